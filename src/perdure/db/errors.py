"""What can go wrong between us and the database."""

from __future__ import annotations

from perdure.kernel.errors import ConflictError, PerdureError, TryAgainError


class DatabaseUnavailableError(TryAgainError):
    code = "database_unavailable"
    title = "The database cannot be reached at this moment"
    next_step = "Send the same request again after a short while; what was acknowledged is safe."


class DatabaseFullError(TryAgainError):
    code = "database_full"
    status = 507
    title = "There is no room left on the disk of the database"
    next_step = "Nothing was lost. Tell the operator; send the same request again when there is room."


class TransactionAbortedError(TryAgainError):
    """Two transactions stood in each other's way (deadlock, lock time-out); this one changed nothing."""

    code = "transaction_aborted"
    title = "Another change was being made to the same thing"


class EmbeddedServerError(PerdureError):
    code = "embedded_server_failed"
    title = "The embedded database server cannot run"
    next_step = "Read the server's log that is named; `perdure doctor` says what is wrong with the installation."


class DataFolderInUseError(ConflictError):
    code = "data_folder_in_use"
    title = "Another process is serving this data folder"
    next_step = "Stop the other process, or give this one a data folder of its own."


class SchemaNewerError(ConflictError):
    code = "schema_newer"
    title = "The database was migrated by a newer release"
    next_step = "Start the newer release; an older one would damage what it does not know."


class SchemaBehindError(ConflictError):
    code = "schema_behind"
    title = "The database waits for its migration"
    next_step = "Run `perdure admin migrate`, then start again."
