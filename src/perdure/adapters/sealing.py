"""Sealing with a key that lies beside the data, never in the database."""

from __future__ import annotations

import base64
import os
import secrets
import tempfile
from contextlib import suppress
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from perdure.identity.errors import BadSealError

KEY_NAME = "sealing.key"
_KEY_BYTES = 32
_NONCE_BYTES = 12


class FileSealer:
    """AES-256-GCM (NIST SP 800-38D); the key is made when it is first needed, in a file of mode 0600."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._cipher: AESGCM | None = None

    def seal(self, data: bytes, purpose: str) -> str:
        nonce = secrets.token_bytes(_NONCE_BYTES)
        sealed = self._key().encrypt(nonce, data, purpose.encode())
        return base64.urlsafe_b64encode(nonce + sealed).decode().rstrip("=")

    def open(self, sealed: str, purpose: str) -> bytes:
        try:
            raw = base64.b64decode(sealed + "=" * (-len(sealed) % 4), altchars=b"-_", validate=True)
            return self._key().decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], purpose.encode())
        except (ValueError, InvalidTag):
            raise BadSealError("This was not made here, or it was changed.") from None

    def _key(self) -> AESGCM:
        if self._cipher is None:
            self._cipher = AESGCM(self._find_or_make())
        return self._cipher

    def _find_or_make(self) -> bytes:
        """The key of the file; of two processes that make one at once, one wins and both use it."""
        path = self._folder / KEY_NAME
        with suppress(FileNotFoundError):
            return path.read_bytes()
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=self._folder, prefix=f".{KEY_NAME}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(secrets.token_bytes(_KEY_BYTES))
                file.flush()
                os.fsync(file.fileno())
            with suppress(FileExistsError):
                os.link(name, path)
        finally:
            os.unlink(name)
        return path.read_bytes()
