"""What can go wrong with metadata."""

from __future__ import annotations

from perdure.kernel.errors import BadInputError, ConflictError, DamagedError, NotFoundError


class BadMetadataError(BadInputError):
    """`extra` names the place: `pointer` is the RFC 6901 pointer into the document that was sent or would result."""

    code = "bad_metadata"
    title = "The metadata cannot be kept as they are"
    next_step = "Correct the value at the named pointer and send the request again; nothing was changed."

    def __init__(self, detail: str, *, pointer: str = "") -> None:
        shown = pointer[:200].encode("utf-8", "backslashreplace").decode()
        super().__init__(f"{detail} (at {shown!r})" if shown else detail, pointer=shown)


class PatchTestFailedError(ConflictError):
    """A `test` operation of a JSON Patch does not hold; nothing was changed."""

    code = "patch_test_failed"
    title = "A test in the patch does not hold"
    next_step = "Read the present metadata and decide anew; nothing was changed."


class PatchDoesNotFitError(ConflictError):
    """An operation of a JSON Patch names a place that the document does not have; nothing was changed."""

    code = "patch_does_not_fit"
    title = "The patch names a place that the metadata do not have"
    next_step = "Read the present metadata and make the patch for them, or send a merge patch."


class RevisionMismatchError(ConflictError):
    code = "revision_mismatch"
    status = 412
    title = "The metadata were changed since you read them"
    next_step = "Read the present metadata, apply your change to them and send it with the new revision."


class NoSuchValueError(NotFoundError):
    code = "no_such_value"
    title = "The metadata have no value at this pointer"
    next_step = "Read the whole document to see which members it has."


class BrokenHistoryError(DamagedError):
    """The lines of a history do not chain, or do not fit the values they claim to change."""

    code = "broken_history"
    title = "The history of the metadata does not prove itself"
