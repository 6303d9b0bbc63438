"""Fetch files: each is compared with its digest before it gets its name.

Small files come many in one answer; a large one comes by itself, and goes on by Range when it is interrupted.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

from perdure_client.digesting import FollowingDigest
from perdure_client.errors import ApiError, ClientError, ConnectionLostError, LocalDamageError, UsageError
from perdure_client.paths import display, from_json, is_safe, leads_out, to_json, to_url
from perdure_client.progress import Progress
from perdure_client.proof import digest_file
from perdure_client.records import Entry, GetReport
from perdure_client.transport import Transport

_WORKERS = 4
_TRIES = 6
_MOST_PENDING = 16
_SMALL_FILE = 1 << 20
_BLOCK = 4 << 20
_BATCH_BYTES = 4 << 20
_OPEN_PART = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


class FolderDownload:
    """One run of `get` into one folder. Run again, it fetches only what is missing or different."""

    def __init__(self, transport: Transport, archive_id: str, folder: Path, *, progress: Progress) -> None:
        self._transport, self._archive_id, self._progress = transport, archive_id, progress
        self._top = os.fsencode(folder)
        self._lock = threading.Lock()
        self._report = GetReport()
        self._limits: dict[str, int] = transport.json("GET", "")["limits"]
        self._folders: set[bytes] = set()  # made, and seen to be no links
        self._digesters = ThreadPoolExecutor(_WORKERS, thread_name_prefix="digest")

    def run(self, entries: Iterable[Entry]) -> GetReport:
        """Write the entries below the folder: files, then links and the times of folders."""
        started = time.monotonic()
        os.makedirs(self._top, exist_ok=True)
        others: list[Entry] = []
        running: deque[Future[None]] = deque()
        with self._digesters, ThreadPoolExecutor(_WORKERS) as pool:
            try:
                for work in self._iter_work(entries, others):
                    running.append(pool.submit(work))
                    if len(running) >= _MOST_PENDING:
                        running.popleft().result()
                while running:
                    running.popleft().result()
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt):
                    self._progress.stop()
                pool.shutdown(cancel_futures=True)
                raise
        for entry in sorted(others, key=lambda entry: (entry.kind == "symlink", entry.path)):
            self._make(entry)
        self._report.seconds = time.monotonic() - started
        return self._report

    def _iter_work(self, entries: Iterable[Entry], others: list[Entry]) -> Iterator[Callable[[], None]]:
        """What is to be fetched in one request each; what is no file goes to `others`."""
        batch: list[Entry] = []
        size = 0
        for entry in entries:
            if not is_safe(entry.path):
                self._refuse(entry, "the path leads out of the folder")
            elif entry.kind in ("directory", "symlink"):
                others.append(entry)
            elif entry.kind == "file" and entry.size > _SMALL_FILE:
                yield partial(self._fetch, entry)
            elif entry.kind == "file":
                if batch and (len(batch) >= self._limits["batch_files"] or size + entry.size > _BATCH_BYTES):
                    yield partial(self._fetch_batch, batch)
                    batch, size = [], 0
                batch.append(entry)
                size += entry.size
        if batch:
            yield partial(self._fetch_batch, batch)

    # Small files

    def _fetch_batch(self, batch: list[Entry]) -> None:
        """Fetch small files in one answer; what does not come right in it is fetched by itself."""
        wanted = [entry for entry in batch if not self._keep(entry)]
        if not wanted:
            return
        paths = [fields.get("path") or fields for fields in (to_json(entry.path) for entry in wanted)]
        try:
            answer = self._transport.request(
                "POST", f"/archives/{self._archive_id}/read-batch", json={"paths": paths}, plane="data", repeatable=True
            )
        except ConnectionLostError:  # also when one file cannot be read in the middle of the answer
            contents: Iterator[bytes | None] = iter([None] * len(wanted))
        else:
            contents = _split_batch(answer.content, wanted)
        for entry, content in zip(wanted, contents, strict=True):
            algorithm, stated = _content_digest(entry)
            if content is None or hashlib.new(algorithm, content).hexdigest() != stated:
                self._fetch(entry)
            else:
                self._write(entry, content)

    def _write(self, entry: Entry, content: bytes) -> None:
        """Write a small file whose bytes are right, and give it its name."""
        place = self._place(entry)
        part = _part_name(place)
        descriptor = os.open(part, _OPEN_PART | os.O_TRUNC, 0o600)
        try:
            _write_all(descriptor, content)
            self._name(entry, part, place, descriptor)
        finally:
            os.close(descriptor)
        self._progress.add(size=entry.size)

    # Large files

    def _fetch(self, entry: Entry) -> None:
        if self._keep(entry):
            return
        place = self._place(entry)
        for attempt in range(_TRIES):
            try:
                self._fetch_rest(place, entry)
                return
            except (ConnectionLostError, ApiError) as error:
                if (isinstance(error, ApiError) and not error.is_worth_a_retry) or attempt == _TRIES - 1:
                    raise
                time.sleep(error.wait_seconds + 0.3 * 2**attempt)

    def _fetch_rest(self, place: bytes, entry: Entry) -> None:
        """Fetch what is missing of a file and give it its name when its bytes are right; wrong bytes are removed."""
        part, (algorithm, stated) = _part_name(place), _content_digest(entry)
        offset = os.path.getsize(part) if os.path.exists(part) else 0
        offset = 0 if offset >= entry.size else offset
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        path = f"/archives/{self._archive_id}/files/{to_url(entry.path)}"
        with self._transport.large(path, headers=headers) as answer:
            digest = FollowingDigest(algorithm, self._digesters)
            with os.fdopen(os.open(part, os.O_RDWR | _OPEN_PART & ~os.O_WRONLY, 0o600), "r+b", buffering=0) as stream:
                stream.truncate(offset if answer.status_code == 206 else 0)
                while block := stream.read(_BLOCK):
                    digest.add(block)
                for piece in answer.pieces:
                    digest.add(piece)
                    _write_all(stream.fileno(), piece)
                    self._progress.add(size=len(piece))
                if digest.finish() == stated and digest.size == entry.size:
                    self._name(entry, part, place, stream.fileno())
                    return
        os.unlink(part)
        raise LocalDamageError(
            f"{display(entry.path)} did not arrive as it is stored ({digest.size} of {entry.size} bytes).",
            next_step="Run the same command again; if it happens again, tell the operator.",
        )

    # Any file

    def _name(self, entry: Entry, part: bytes, place: bytes, descriptor: int) -> None:
        """Give a file whose bytes were compared its mode, time and name."""
        if entry.mode is not None:
            os.fchmod(descriptor, entry.mode & 0o777 | 0o400)
        if entry.mtime_ns is not None:
            os.utime(descriptor, ns=(entry.mtime_ns, entry.mtime_ns))
        os.replace(part, place)
        with self._lock:
            self._report.files += 1
            self._report.bytes_received += entry.size
        self._progress.add(files=1)

    def _keep(self, entry: Entry) -> bool:
        """Whether the file is here already with the right digest; it is then counted as kept."""
        place, (algorithm, stated) = self._place(entry), _content_digest(entry)
        try:
            found = os.lstat(place)
        except FileNotFoundError:
            return False
        if not stat.S_ISREG(found.st_mode) or found.st_size != entry.size or digest_file(place, algorithm)[1] != stated:
            return False
        with self._lock:
            self._report.kept += 1
        self._progress.add(files=1, size=entry.size)
        return True

    def _make(self, entry: Entry) -> None:
        place = self._place(entry)
        if entry.kind == "directory":
            os.makedirs(place, exist_ok=True)
        elif entry.target is not None and leads_out(entry.path, entry.target):
            self._refuse(entry, f"the symbolic link leads out of the folder, to {display(entry.target)}")
        elif entry.target is not None and not (os.path.islink(place) and os.readlink(place) == entry.target):
            if os.path.lexists(place):
                self._refuse(entry, "something else with this name is here already")
                return
            os.symlink(entry.target, place)

    def _place(self, entry: Entry) -> bytes:
        """Where the entry goes; a symbolic link on the way would lead out and is refused."""
        above, _, name = entry.path.rpartition(b"/")
        if above not in self._folders:
            place = self._top
            for folder in above.split(b"/") if above else []:
                place = os.path.join(place, folder)
                if os.path.islink(place):
                    raise UsageError(f"{display(place)} is a symbolic link.", next_step="Fetch into another folder.")
            os.makedirs(place, exist_ok=True)
            self._folders.add(above)
        return os.path.join(self._top, above, name)

    def _refuse(self, entry: Entry, reason: str) -> None:
        with self._lock:
            self._report.refused.append((entry.path, reason))


def _split_batch(body: bytes, wanted: list[Entry]) -> Iterator[bytes | None]:
    """The content of each wanted file, None for one that the answer leaves out."""
    (length,) = struct.unpack_from(">I", body)
    items = json.loads(body[4 : 4 + length])["items"]
    if [from_json(item) for item in items] != [entry.path for entry in wanted]:
        raise ClientError("The server answered with other files than were asked for.")
    position = 4 + length
    for item in items:
        if item["state"] != "sent":
            yield None
            continue
        yield body[position : position + item["size"]]
        position += item["size"]


def _write_all(descriptor: int, data: bytes) -> None:
    done = os.write(descriptor, data)
    while done < len(data):
        done += os.write(descriptor, memoryview(data)[done:])


def _part_name(place: bytes) -> bytes:
    """Where a file grows until it is whole: a name of its own, since the file's may have no room for an ending."""
    folder, name = os.path.split(place)
    return os.path.join(folder, b".%s.part" % hashlib.sha256(name).hexdigest()[:16].encode("ascii"))


def _content_digest(entry: Entry) -> tuple[str, str]:
    for name in ("sha512", "sha256"):
        if name in entry.digests and name in hashlib.algorithms_available:
            return name, entry.digests[name]
    raise LocalDamageError(f"The server states no digest for {display(entry.path)}.")
