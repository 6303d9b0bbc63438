"""What can go wrong with stores, and what to do about it."""

from __future__ import annotations

from perdure.kernel.errors import BadInputError, ConflictError, DamagedError, NotFoundError, PerdureError, TryAgainError


class StoreFullError(TryAgainError):
    code = "store_full"
    status = 507
    title = "There is no room left on the store"
    next_step = "Nothing was lost. Tell the operator; send the same request again when there is room."


class StoreUnavailableError(TryAgainError):
    code = "store_unavailable"
    title = "A store cannot be reached at this moment"
    next_step = "Send the same request again later; what was acknowledged is safe in the other stores."


class StoreFailedError(PerdureError):
    """The medium reported an error; what was not acknowledged before it does not count as stored."""

    code = "store_failed"
    title = "The medium of a store reported an error"
    next_step = (
        "Nothing unacknowledged is kept. The operator must look at the medium; then send the same request again."
    )


class ForeignStoreError(ConflictError):
    code = "store_foreign"
    title = "The folder is not a store of this instance"
    next_step = "Point the setting at an empty folder, or at the store that belongs to this instance."


class UnknownStoreError(NotFoundError):
    code = "store_unknown"
    title = "There is no store with this identifier"
    next_step = "List the configured stores, and check the settings of this process."


class UnknownObjectError(NotFoundError):
    code = "object_unknown"
    title = "There is no such stored object"
    next_step = "Check the identifier; a rebuild finds objects that the database has lost."


class SourceRefusedError(BadInputError):
    code = "source_refused"
    title = "Only regular files can be taken in"
    next_step = "Leave the named path out, or put a regular file in its place."


class SourceChangedError(ConflictError):
    code = "source_changed"
    title = "The file changed while it was read"
    next_step = "Wait until nothing writes to the file and ask again; what was read of it is not kept."


class WrongSizeError(BadInputError):
    code = "wrong_size"
    title = "The bytes received are not as many as were announced"
    next_step = "Send the whole file again; what was received of it is not kept."


class UnknownUploadError(NotFoundError):
    code = "upload_unknown"
    title = "There is no such upload"
    next_step = "Begin the upload again."


class UploadBusyError(ConflictError):
    code = "upload_busy"
    title = "Another request is writing to this upload"
    next_step = "Wait until the other request ends, ask for the offset and go on from there."


class StagedContentError(DamagedError):
    code = "staged_content_damaged"
    title = "Staged files are not what was acknowledged"
    next_step = "Sealing stopped and nothing was removed. Send the named files again, then ask again."


class NoGoodCopyError(DamagedError):
    code = "no_good_copy"
    title = "No copy of this object can be trusted at this moment"
    next_step = "Nothing was changed. Verify the copies; the operator is told."


class CopyDamagedError(DamagedError):
    code = "copy_damaged"
    title = "A copy is not what its inventory says"
    next_step = "The copy is kept as evidence and is not read any more; place a new one from a verified copy."


class JournalDamagedError(DamagedError):
    code = "journal_damaged"
    title = "A journal is damaged before its last line"
    next_step = "The journal is kept as it is. Compare it with the journals of the other stores."

    def __init__(self, detail: str, *, line: int) -> None:
        super().__init__(detail, line=line)
        self.whole_lines = line


class VerificationStoppedError(TryAgainError):
    code = "verification_stopped"
    title = "The verification was stopped before its end"
    next_step = "Start it again; a part of a verification counts for nothing."


OUT = (StoreFailedError, StoreFullError, StoreUnavailableError)  # what a store beside the primary may be for a while
