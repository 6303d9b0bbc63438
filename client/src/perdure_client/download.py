"""Fetch files: each is compared with its digest before it gets its name, an interrupted one goes on by Range."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from perdure_client.errors import ApiError, ConnectionLostError, LocalDamageError, UsageError
from perdure_client.paths import display, is_safe, to_url
from perdure_client.progress import Progress
from perdure_client.proof import digest_file
from perdure_client.records import Entry, GetReport
from perdure_client.transport import Transport

_WORKERS = 4
_TRIES = 6
_MOST_PENDING = 1000


class FolderDownload:
    """One run of `get` into one folder. Run again, it fetches only what is missing or different."""

    def __init__(self, transport: Transport, archive_id: str, folder: Path, *, progress: Progress) -> None:
        self._transport, self._archive_id, self._progress = transport, archive_id, progress
        self._top = os.fsencode(folder)
        self._lock = threading.Lock()
        self._report = GetReport()

    def run(self, entries: Iterable[Entry]) -> GetReport:
        """Write the entries below the folder: files, then links and the times of folders."""
        started = time.monotonic()
        os.makedirs(self._top, exist_ok=True)
        others: list[Entry] = []
        with ThreadPoolExecutor(_WORKERS) as pool:
            pending = set()
            for entry in entries:
                if not is_safe(entry.path):
                    self._refuse(entry, "the path leads out of the folder")
                elif entry.kind == "file":
                    pending.add(pool.submit(self._fetch, entry))
                elif entry.kind in ("directory", "symlink"):
                    others.append(entry)
                if len(pending) >= _MOST_PENDING:
                    done = next(as_completed(pending))
                    pending.discard(done)
                    done.result()
            for future in as_completed(pending):
                future.result()
        for entry in sorted(others, key=lambda entry: (entry.kind == "symlink", entry.path)):
            self._make(entry)
        self._report.seconds = time.monotonic() - started
        return self._report

    def _fetch(self, entry: Entry) -> None:
        place = self._place(entry)
        if self._is_here(place, entry):
            with self._lock:
                self._report.kept += 1
            self._progress.add(files=1, size=entry.size)
            return
        for attempt in range(_TRIES):
            try:
                self._fetch_rest(_part_name(place), entry)
                break
            except (ConnectionLostError, ApiError) as error:
                if (isinstance(error, ApiError) and not error.is_worth_a_retry) or attempt == _TRIES - 1:
                    raise
                time.sleep(0.3 * 2**attempt)
        self._accept(place, entry)

    def _fetch_rest(self, part: bytes, entry: Entry) -> None:
        offset = os.path.getsize(part) if os.path.exists(part) else 0
        if offset >= entry.size > 0:
            os.truncate(part, 0)
            offset = 0
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        path = f"/archives/{self._archive_id}/files/{to_url(entry.path)}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        with self._transport.stream("GET", path, headers=headers) as answer:
            descriptor = os.open(part, flags, 0o600)
            with os.fdopen(descriptor, "wb", buffering=0) as stream:
                stream.seek(offset if answer.status_code == 206 else 0)
                stream.truncate()
                for piece in answer.iter_raw(1 << 20):
                    stream.write(piece)
                    self._progress.add(size=len(piece))

    def _accept(self, place: bytes, entry: Entry) -> None:
        """Give the file its name when its bytes are right; wrong bytes are removed and said."""
        part, (algorithm, stated) = _part_name(place), _content_digest(entry)
        size, digest = digest_file(part, algorithm)
        if (size, digest) != (entry.size, stated):
            os.unlink(part)
            raise LocalDamageError(
                f"{display(entry.path)} did not arrive as it is stored ({size} of {entry.size} bytes).",
                next_step="Run the same command again; if it happens again, tell the operator.",
            )
        if entry.mode is not None:
            os.chmod(part, entry.mode & 0o777 | 0o400)
        if entry.mtime_ns is not None:
            os.utime(part, ns=(entry.mtime_ns, entry.mtime_ns))
        os.replace(part, place)
        with self._lock:
            self._report.files += 1
            self._report.bytes_received += size
        self._progress.add(files=1)

    def _is_here(self, place: bytes, entry: Entry) -> bool:
        if os.path.islink(place) or not os.path.isfile(place) or os.path.getsize(place) != entry.size:
            return False
        algorithm, stated = _content_digest(entry)
        return digest_file(place, algorithm)[1] == stated

    def _make(self, entry: Entry) -> None:
        place = self._place(entry)
        if entry.kind == "directory":
            os.makedirs(place, exist_ok=True)
        elif entry.target is not None and not (os.path.islink(place) and os.readlink(place) == entry.target):
            if os.path.lexists(place):
                self._refuse(entry, "something else with this name is here already")
                return
            os.symlink(entry.target, place)

    def _place(self, entry: Entry) -> bytes:
        """Where the entry goes; a symbolic link on the way would lead out and is refused."""
        place = self._top
        *folders, name = entry.path.split(b"/")
        for folder in folders:
            place = os.path.join(place, folder)
            if os.path.islink(place):
                raise UsageError(f"{display(place)} is a symbolic link.", next_step="Fetch into another folder.")
        os.makedirs(place, exist_ok=True)
        return os.path.join(place, name)

    def _refuse(self, entry: Entry, reason: str) -> None:
        with self._lock:
            self._report.refused.append((entry.path, reason))


def _part_name(place: bytes) -> bytes:
    """Where a file grows until it is whole: a name of its own, since the file's may have no room for an ending."""
    folder, name = os.path.split(place)
    return os.path.join(folder, b".%s.part" % hashlib.sha256(name).hexdigest()[:16].encode("ascii"))


def _content_digest(entry: Entry) -> tuple[str, str]:
    for name in ("sha512", "sha256"):
        if name in entry.digests and name in hashlib.algorithms_available:
            return name, entry.digests[name]
    raise LocalDamageError(f"The server states no digest for {display(entry.path)}.")
