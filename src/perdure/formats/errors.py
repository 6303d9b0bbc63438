"""What a reader of a stored format says when the bytes are not what was written."""

from __future__ import annotations

from perdure.kernel.errors import DamagedError


class DamagedFormatError(DamagedError):
    """A stored document cannot be read as the format that it should have."""

    code = "format_damaged"
    title = "A stored document is not in its format"
    next_step = "The document is kept as it is. Read it from another copy, or restore it, and ask again."


class DamagedOcflError(DamagedError):
    """An OCFL object breaks a rule of the specification; `rule` in `extra` is the validation code (E060)."""

    code = "ocfl_damaged"
    title = "An OCFL object breaks a rule of its specification"
    next_step = "The object is kept as it is. Verify it, and repair it from a copy that verifies."

    def __init__(self, rule: str, detail: str, **extra: object) -> None:
        super().__init__(f"{detail} (OCFL {rule})", rule=rule, **extra)
        self.rule = rule


class BadSignatureError(DamagedError):
    """A signed document was changed after signing, or was signed by another key."""

    code = "bad_signature"
    title = "The signature does not fit the document"
    next_step = "Trust nothing that this document says. Fetch it anew from its source and check which key signed it."
