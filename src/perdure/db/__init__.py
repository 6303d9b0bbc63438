"""The one database: its engine, transactions, bulk loading, migrations and the embedded server."""

from perdure.db.engine import Database, metadata
from perdure.db.errors import DatabaseUnavailableError, TransactionAbortedError
from perdure.db.questions import Question, put_in_words

__all__ = ["Database", "DatabaseUnavailableError", "Question", "TransactionAbortedError", "metadata", "put_in_words"]
