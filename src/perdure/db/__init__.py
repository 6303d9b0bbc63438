"""The one database: its engine, transactions, bulk loading, migrations and the embedded server."""

from perdure.db.engine import Database, Question, metadata
from perdure.db.errors import DatabaseUnavailableError, TransactionAbortedError

__all__ = ["Database", "DatabaseUnavailableError", "Question", "TransactionAbortedError", "metadata"]
