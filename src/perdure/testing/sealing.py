"""A sealer whose key ends with the process."""

from __future__ import annotations

import secrets

from perdure.identity.errors import BadSealError


class MemorySealer:
    """Keeps what it seals to itself and gives out a name for it."""

    def __init__(self) -> None:
        self._sealed: dict[str, tuple[str, bytes]] = {}

    def seal(self, data: bytes, purpose: str) -> str:
        name = secrets.token_urlsafe(16)
        self._sealed[name] = (purpose, data)
        return name

    def open(self, sealed: str, purpose: str) -> bytes:
        known, data = self._sealed.get(sealed, ("", b""))
        if sealed not in self._sealed or known != purpose:
            raise BadSealError("This was not made here, or it was changed.")
        return data
