"""What this domain needs of the world outside."""

from __future__ import annotations

from typing import Protocol


class Sealer(Protocol):
    """Keeps secrets that we must read again: nobody opens them who has the database and not the key beside it."""

    def seal(self, data: bytes, purpose: str) -> str:
        """Text that only `open` with the same purpose turns back."""
        ...

    def open(self, sealed: str, purpose: str) -> bytes:
        """What was sealed; raises BadSealError for anything that was not, or for another purpose."""
        ...
