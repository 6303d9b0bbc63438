"""Registrars that need nobody outside: clearly marked test DOIs, for first steps and for tests.

The prefix 10.5072 is set aside for tests: no resolver follows it. The suffix is the archive's own short form, so an
identifier is the same whenever it is asked for and nothing can be given out twice.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Mapping
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from uuid import UUID

from perdure.archives.errors import UnknownIdentifierError
from perdure.archives.ports import Registration
from perdure.kernel.ids import short_form

TEST_PREFIX = "10.5072"


class MemoryRegistrar:
    """Keeps what it knows as long as it lives."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, Registration] = {}
        self.records: dict[str, tuple[Mapping[str, object], str]] = {}

    def reserve(self, archive_id: UUID) -> Registration:
        identifier = doi_for_tests(archive_id)
        with self._lock:
            return self._known.setdefault(identifier, Registration(identifier, "reserved", is_test=True))

    def register(self, identifier: str, record: Mapping[str, object], url: str) -> Registration:
        return self._change(identifier, "registered", record, url)

    def tombstone(self, identifier: str, record: Mapping[str, object], url: str) -> Registration:
        return self._change(identifier, "tombstone", record, url)

    def get(self, identifier: str) -> Registration:
        with self._lock:
            return self._require(identifier)

    def _change(self, identifier: str, state: str, record: Mapping[str, object], url: str) -> Registration:
        with self._lock:
            self._known[identifier] = replace(self._require(identifier), state=state)
            self.records[identifier] = (record, url)
            return self._known[identifier]

    def _require(self, identifier: str) -> Registration:
        try:
            return self._known[identifier]
        except KeyError:
            raise _unknown(identifier) from None


class FolderRegistrar:
    """Keeps one JSON document for each identifier in a folder, so that what was given out is known after a restart."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()

    def reserve(self, archive_id: UUID) -> Registration:
        identifier = doi_for_tests(archive_id)
        with self._lock:
            if not self._path(identifier).exists():
                self._write(identifier, {"identifier": identifier, "state": "reserved", "is_test": True})
            return self._read(identifier)

    def register(self, identifier: str, record: Mapping[str, object], url: str) -> Registration:
        return self._change(identifier, "registered", record, url)

    def tombstone(self, identifier: str, record: Mapping[str, object], url: str) -> Registration:
        return self._change(identifier, "tombstone", record, url)

    def get(self, identifier: str) -> Registration:
        return self._read(identifier)

    def _change(self, identifier: str, state: str, record: Mapping[str, object], url: str) -> Registration:
        with self._lock:
            known = self._read(identifier)
            document = {"identifier": known.identifier, "state": state, "is_test": known.is_test}
            self._write(identifier, {**document, "url": url, "record": dict(record)})
            return replace(known, state=state)

    def _read(self, identifier: str) -> Registration:
        try:
            document = json.loads(self._path(identifier).read_bytes())
        except FileNotFoundError:
            raise _unknown(identifier) from None
        return Registration(document["identifier"], document["state"], document["is_test"])

    def _write(self, identifier: str, document: Mapping[str, object]) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # the records of private archives are in it
        path = self._path(identifier)
        new = path.with_name(f"{path.name}.{os.getpid()}.new")
        with new.open("w", encoding="utf-8") as file:
            json.dump(document, file, indent=1, sort_keys=True)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
        _sync_folder(self._folder)

    def _path(self, identifier: str) -> Path:
        return self._folder / f"{sha256(identifier.encode()).hexdigest()}.json"


def doi_for_tests(archive_id: UUID) -> str:
    """The test DOI of an archive."""
    return f"{TEST_PREFIX}/{short_form(archive_id)}"


def _sync_folder(folder: Path) -> None:
    with contextlib.suppress(PermissionError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _unknown(identifier: str) -> UnknownIdentifierError:
    return UnknownIdentifierError(f"The identifier {identifier[:200]!r} was never reserved.")
