"""What can go wrong in the life of an archive, each with a stable code and a next step."""

from __future__ import annotations

from perdure.kernel.errors import BadInputError, ConflictError, NotAllowedError, NotFoundError, TryAgainError


class ArchiveNotFoundError(NotFoundError):
    code = "archive_not_found"
    title = "There is no such archive, or you may not see it"
    next_step = "Check the identifier; ask the archive's owner for access if it exists."


class ArchiveOpenError(ConflictError):
    """The archive still takes content, and what was asked for wants a closed one."""

    code = "archive_open"
    title = "The archive is still open"
    next_step = "Close the archive first."


class ArchiveClosingError(ConflictError):
    code = "archive_closing"
    title = "The archive is being closed"
    next_step = "Wait until it is closed; to add more, append to the closed archive."


class ArchiveClosedError(ConflictError):
    code = "archive_closed"
    title = "The archive is closed: its content never changes"
    next_step = "Append to it: open a new archive with this one as its parent."


class ArchiveWithdrawnError(ConflictError):
    code = "archive_withdrawn"
    status = 410
    title = "The archive was withdrawn"
    next_step = "Read the tombstone for when and why."


class ArchiveDiscardedError(ConflictError):
    code = "archive_discarded"
    status = 410
    title = "The archive was discarded before it was closed"
    next_step = "Open a new archive."


class RevisionConflictError(ConflictError):
    """Somebody else changed the thing since the caller read it; `revision` in `extra` is the present one."""

    code = "revision_conflict"
    status = 412
    title = "It was changed since you read it"
    next_step = "Read it again, make your change on what it is, and send that with the new revision."


class IdempotencyKeyReusedError(ConflictError):
    code = "idempotency_key_reused"
    title = "This idempotency key belongs to another request"
    next_step = "Use a fresh key for each new request; repeat a key only with the very same request."


class RequestUnderWayError(TryAgainError):
    code = "request_under_way"
    title = "The same request is just being carried out"
    next_step = "Send the same request with the same idempotency key again in a few seconds."


class BadDescriptionError(BadInputError):
    code = "bad_description"
    title = "The archive's record cannot be changed like this"
    next_step = "Correct the named field and send the change again."


class BadLifetimeError(BadInputError):
    code = "bad_lifetime"
    title = "The date is outside what the archive's profile allows"
    next_step = "Choose a date between the present one and the named latest one, or a profile with a longer lifetime."


class BadPeriodError(BadInputError):
    code = "bad_period"
    title = "These days make no period that can be reported"
    next_step = "Give the first day before the last one, at most ten years apart."


class BadAccessError(BadInputError):
    code = "bad_access"
    title = "This access class cannot be set"
    next_step = "Use private, embargoed with a date in the future, or public."


class BadProfileError(BadInputError):
    code = "bad_profile"
    title = "The profile contradicts itself"
    next_step = "Correct the named field of the profile."


class ProfileNotFoundError(NotFoundError):
    code = "profile_not_found"
    title = "There is no such profile"
    next_step = "List the profiles that this account may choose."


class ProfileNotOfferedError(NotAllowedError):
    code = "profile_not_offered"
    title = "This account may not choose that profile"
    next_step = "Choose one of the profiles that are listed for the account, or ask an administrator to allow it."


class ProfileDoesNotFitError(ConflictError):
    """The archive as it is breaks a rule of the profile that it should change to."""

    code = "profile_does_not_fit"
    title = "The archive does not fit the profile"
    next_step = "Choose a profile whose limits hold the archive as it is."


class MandatoryRoleMissingError(ConflictError):
    code = "mandatory_role_missing"
    title = "The archive's profile demands a role that nobody would hold"
    next_step = "Grant the role to somebody else first."


class ChildrenRemainError(ConflictError):
    """`children` in `extra` names the archives that show this one's content."""

    code = "children_remain"
    title = "Other archives build on this one"
    next_step = "Withdraw the named archives first, or change to a profile that lets them keep what they inherited."


class AlreadyApprovedError(ConflictError):
    code = "already_approved"
    title = "You have already approved this withdrawal"
    next_step = "Another person with the right to withdraw must approve it, too."


class ConfirmationMismatchError(BadInputError):
    code = "confirmation_mismatch"
    title = "The title given as confirmation is not the archive's"
    next_step = "Repeat the archive's title exactly, to show that you mean this archive."


class TransferNotFoundError(NotFoundError):
    code = "transfer_not_found"
    title = "There is no such offer, or it is not for you"
    next_step = "List the offers that wait: it may have been answered, taken back, or have ended."


class TransferPendingError(ConflictError):
    code = "transfer_pending"
    title = "An offer of this archive waits already"
    next_step = "Wait for its answer, or take it back first."


class TransferVoidError(ConflictError):
    code = "transfer_void"
    title = "Who offered the archive may not give it any more"
    next_step = "Ask the present owner for a new offer."


class GrantNotFoundError(NotFoundError):
    code = "archive_grant_not_found"
    title = "The archive has no such grant"
    next_step = "List the archive's grants and use an id from there."


class EntryNotFoundError(NotFoundError):
    code = "entry_not_found"
    title = "The archive has nothing at this path"
    next_step = "List the folder above it; names are compared byte by byte."


class JournalUnavailableError(TryAgainError):
    """The change is in the database, but its journal line is not yet safe on the store."""

    code = "journal_unavailable"
    title = "The change could not be written to the store"
    next_step = "The change is kept and is written as soon as the store answers; read the archive before you repeat it."


class StoresNotEmptyError(ConflictError):
    """Rebuild writes into an empty database only."""

    code = "database_not_empty"
    title = "The database already holds archives"
    next_step = "Rebuild into a new, migrated database, and compare the two before you switch."


class DatabaseBehindError(ConflictError):
    """An older database over newer stores: to go on would be to write over what it has never heard of."""

    code = "database_behind"
    title = "The stores know of more events than the database"
    next_step = (
        "The database was restored from a backup that is older than the stores. Restore a newer one, or run "
        "`perdure admin rebuild` into an empty database; then start again."
    )


class UnknownIdentifierError(NotFoundError):
    code = "identifier_unknown"
    title = "The registrar does not know this identifier"
    next_step = "Check the identifier; only identifiers that were reserved here can be registered."


# Filling


class NoRoomError(ConflictError):
    """`limit` and `wanted` in `extra` are in the unit that the sentence names."""

    code = "quota_exceeded"
    status = 413
    title = "This is more than may be stored here"
    next_step = "Remove what is not needed, or ask for more room: the sentence says whose limit it is."


class TooManyUploadsError(TryAgainError):
    code = "too_many_uploads"
    status = 429
    title = "Many files are on their way by this link"
    next_step = "Send them one after the other; who broke one off finds it free again after a quarter of an hour."


class DigestMismatchError(BadInputError):
    """What arrived is not what the sender digested."""

    code = "digest_mismatch"
    title = "The bytes received do not have the stated digest"
    next_step = "Send the file again; what was received is not kept."


class RefusedItemError(BadInputError):
    code = "item_refused"
    title = "This cannot be stored in an archive"
    next_step = "Correct what the sentence names, or leave it out."


class PathTakenError(ConflictError):
    code = "path_taken"
    title = "Something else has this path already"
    next_step = "Choose another path, or remove first what is there."


class EntryChangedError(ConflictError):
    code = "entry_changed"
    status = 412
    title = "Something else is at the path than the request expects"
    next_step = "Read it again and decide anew."


class TooManyItemsError(BadInputError):
    code = "too_many_items"
    status = 413
    title = "The request holds more than is taken at once"
    next_step = "Split it; the limits are at the root of the API."


class UploadEndedError(ConflictError):
    """The upload is finished, abandoned or past its time."""

    code = "upload_ended"
    status = 410
    title = "The upload has ended"
    next_step = "Ask the plan what is still missing, and begin a new upload for it."


class UploadOffsetError(ConflictError):
    """`offset` in `extra` says where to go on."""

    code = "upload_offset"
    title = "The upload goes on at another offset"
    next_step = "Ask for the upload's offset and send from there."


class NothingToHideError(ConflictError):
    code = "nothing_to_hide"
    title = "No ancestor of the archive shows anything at this path"
    next_step = "Only what was inherited can be hidden; remove what is the archive's own."


class FolderNotAllowedError(NotAllowedError):
    code = "folder_not_allowed"
    title = "The server may not read this folder"
    next_step = "Name a folder below one of the allowed roots, or ask the operator to allow it."


# Closing and reading


class EmptyArchiveError(ConflictError):
    code = "archive_empty"
    title = "There is nothing in the archive"
    next_step = "Add files first, or discard the archive."


class RecordIncompleteError(ConflictError):
    """`missing` in `extra` names the fields."""

    code = "record_incomplete"
    title = "The record lacks what the profile demands of a closed archive"
    next_step = "Fill in the named fields, then close again."


class UploadsUnfinishedError(ConflictError):
    """`uploads` in `extra` lists ids and paths."""

    code = "uploads_unfinished"
    title = "Uploads into the archive are not finished"
    next_step = "Finish or abort them, or close with `discard_uploads`."


class NotEnoughStoresError(ConflictError):
    """`wanted` and `usable` in `extra` say how many copies the profile demands and which stores could hold one."""

    code = "not_enough_stores"
    title = "There are not as many stores as the profile demands copies"
    next_step = "Ask the operator to connect another store, or change to a profile with fewer copies."


class CopiesMissingError(TryAgainError):
    """`verified` and `wanted` in `extra` count copies."""

    code = "copies_missing"
    title = "Fewer copies are verified than the profile demands"
    next_step = "Nothing was lost; it is tried again. The operator looks at the stores that are named."


class ContentMovingError(TryAgainError):
    code = "content_moving"
    title = "The file is just being sealed, or was replaced"
    next_step = "Ask again in a few seconds; nothing was lost."


class TransfersLandingError(TryAgainError):
    code = "transfers_landing"
    title = "Files are just arriving"
    next_step = "Nothing: it goes on as soon as they have arrived, or their senders are gone."


class NotReopenableError(ConflictError):
    code = "not_reopenable"
    title = "The closing has gone too far to be taken back"
    next_step = "Ask for the closing again; it goes on where it stopped."


class NotAFileError(ConflictError):
    code = "not_a_file"
    title = "This is not a file"
    next_step = "List the folder, or follow the symbolic link's target."


class NotClosedError(ConflictError):
    code = "not_closed"
    title = "Only a closed archive has this"
    next_step = "Close the archive first."


class ReceiptNotReadyError(TryAgainError):
    code = "receipt_not_ready"
    status = 409
    title = "There is no receipt yet"
    next_step = "Wait until as many copies are verified as the profile demands; do not delete the source before."
