"""The signing key as a file of mode 0600 beside the data, and the list of all keys that there ever were.

A folder holds `<key_id>.pem` for each private key and `keys.json`, the public list, oldest key first; its last entry
signs. A key that was rotated out keeps its entry for ever, so that what it signed can be checked.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from perdure.formats.canonical import canonical_json
from perdure.formats.statement import (
    SIGNATURE_ALGORITHM,
    key_id,
    parse_private_key,
    private_key_pem,
    public_key_pem,
    sign,
)
from perdure.kernel.clock import Clock, format_time
from perdure.kernel.errors import PerdureError

KEYS_NAME = "keys.json"
_PRIVATE = 0o600


class SigningKeyError(PerdureError):
    code = "signing_key_unusable"
    title = "The signing key cannot be used"
    next_step = "The operator restores the folder of keys from its backup; a new key cannot stand in for a lost one."


class FileSigner:
    """Signs with the newest key of a folder; safe to share between threads, and to be used by several processes."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self._folder = folder
        self._clock = clock

    def prepare(self) -> None:
        """Make the folder and its first key if there is none; safe to call twice."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._locked():
            if not self._entries():
                self._add_key()

    def rotate(self) -> str:
        """Make a new key that signs from here on, and return its id."""
        with self._locked():
            return self._add_key()

    def sign(self, document: Mapping[str, object]) -> dict[str, object]:
        """The document with `key_id` and `signature`; raises SigningKeyError."""
        entries = self._entries()
        if not entries:
            raise SigningKeyError(f"There is no key in {self._folder}.")
        return sign(document, self._load(str(entries[-1]["key_id"])))

    def public_keys(self) -> list[dict[str, object]]:
        """Every key that ever signed, oldest first."""
        return [dict(entry) for entry in self._entries()]

    def _load(self, identifier: str) -> Ed25519PrivateKey:
        path = self._folder / f"{identifier}.pem"
        try:
            if path.stat().st_mode & 0o077:
                raise SigningKeyError(f"{path} is open to others than its owner.")
            key = parse_private_key(path.read_bytes())
        except (OSError, ValueError) as error:
            raise SigningKeyError(f"{path} cannot be read: {error}") from error
        if key_id(key.public_key()) != identifier:
            raise SigningKeyError(f"{path} holds another key than its name says.")
        return key

    def _add_key(self) -> str:
        key = Ed25519PrivateKey.generate()
        identifier, now = key_id(key.public_key()), format_time(self._clock.now())
        self._write(f"{identifier}.pem", private_key_pem(key))
        entries = self._entries()
        if entries:
            entries[-1]["until"] = now
        entries.append({
            "key_id": identifier,
            "algorithm": SIGNATURE_ALGORITHM,
            "public_key": public_key_pem(key.public_key()).decode("ascii"),
            "since": now,
            "until": None,
        })  # fmt: skip
        self._write(KEYS_NAME, canonical_json({"keys": entries}))
        return identifier

    def _entries(self) -> list[dict[str, Any]]:  # Any: JSON that we wrote
        try:
            document = json.loads((self._folder / KEYS_NAME).read_bytes())
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            raise SigningKeyError(f"{self._folder / KEYS_NAME} cannot be read: {error}") from error
        entries: list[dict[str, Any]] = document["keys"]
        return entries

    def _write(self, name: str, data: bytes) -> None:
        """Write a file that only its owner reads, in one durable step."""
        temporary = self._folder / f".{name}.new"
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _PRIVATE)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(self._folder / name)
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold off other processes that make keys."""
        lock = os.open(self._folder / ".lock", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)
