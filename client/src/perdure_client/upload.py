"""Send a folder: plan what is missing, small files in batches, large ones resumable, every byte compared by digest."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

from perdure_client.digesting import FollowingDigest
from perdure_client.errors import ApiError, ClientError, ConnectionLostError, LocalDamageError, SourceChangedError
from perdure_client.local import LocalItem, LocalTree, check_unchanged, open_source, read_whole
from perdure_client.paths import display, from_json, to_json, to_url
from perdure_client.progress import Progress
from perdure_client.records import PutReport
from perdure_client.sockets import Piece
from perdure_client.transport import Transport

BATCH_TYPE = "application/vnd.archive.batch"
TUS = {"Tus-Resumable": "1.0.0"}
_SMALL_FILE = 16 << 20  # up to here a file goes in a batch with others
_FIRST_BATCH, _SMALLEST_BATCH, _LARGEST_BATCH = 16 << 20, 1 << 20, 64 << 20  # bytes in memory, for each worker
_QUICK, _SLOW = 2.0, 10.0  # seconds: a quicker batch is followed by a larger one, a slower one by a smaller
_WHOLE_FILE = 64 << 20  # up to here a file goes in one request, from its beginning again when the connection is lost
_PIECE = 2 << 20  # between two the server may have its say
_LARGE_WORKERS = 2
_SMALL_WORKERS = 3
_RESUMES_WITHOUT_PROGRESS = 5


class FolderUpload:
    """One run of `put`. Run again after anything, it sends only what the archive lacks."""

    def __init__(self, transport: Transport, archive_id: str, *, progress: Progress, checksum: bool = False) -> None:
        self._transport, self._archive_id, self._progress = transport, archive_id, progress
        self._checksum = checksum
        self._limits: dict[str, int] = transport.json("GET", "")["limits"]
        self._lock = threading.Lock()
        self._rooms = threading.local()
        self._report = PutReport()

    def run(self, tree: LocalTree) -> PutReport:
        """Send the tree; refusals are in the report, a lost connection or a missing right is raised."""
        started = time.monotonic()
        self._report.seen = len(tree.items) + len(tree.refused)
        self._report.refused.extend(tree.refused)
        wanted = self._plan(tree.items)
        self._progress.total_files = len(wanted)
        self._progress.total_bytes = sum(item.size for item in wanted)
        largest = min(_SMALL_FILE, self._limits["batch_bytes"])
        small = [item for item in wanted if item.kind != "file" or item.size <= largest]
        large = [item for item in wanted if item.kind == "file" and item.size > largest]
        self._batches = Batches(small, self._limits["batch_files"], self._limits["batch_bytes"])
        self._in_parallel(self._send_batch, self._batches, _SMALL_WORKERS)
        self._in_parallel(self._send_large, iter(large), _LARGE_WORKERS)
        self._report.seconds = time.monotonic() - started
        return self._report

    def _in_parallel(self, work: Callable[[Any], None], things: Iterator[Any], workers: int) -> None:
        """Do all; the first failure that is not a refusal stops what has not begun."""
        is_stopped = threading.Event()

        def work_on() -> None:
            try:
                while not is_stopped.is_set():
                    with self._lock:
                        thing = next(things, None)
                    if thing is None:
                        return
                    work(thing)
            except BaseException:
                is_stopped.set()
                raise

        with ThreadPoolExecutor(workers) as pool:
            try:
                for future in [pool.submit(work_on) for _ in range(workers)]:
                    future.result()
            except KeyboardInterrupt:
                self._progress.stop()
                raise
            finally:
                is_stopped.set()

    def _plan(self, items: list[LocalItem]) -> list[LocalItem]:
        wanted: list[LocalItem] = []
        step = self._limits["plan_items"]
        for start in range(0, max(len(items), 1), step):  # asked even for nothing: the archive may not be there
            chunk = items[start : start + step]
            body = {"items": [self._plan_item(item) for item in chunk]}
            answer = self._transport.json("POST", f"/archives/{self._archive_id}/plan", json=body, repeatable=True)
            for found in answer["items"]:
                item = chunk[found["index"]]
                if found["verdict"] == "refused":
                    self._refuse(item, found["reason"])
                else:
                    wanted.append(item)
            self._report.present += len(chunk) - len(answer["items"])
        return wanted

    def _plan_item(self, item: LocalItem) -> dict[str, object]:
        record = describe_item(item)
        if self._checksum and item.kind == "file":
            record["digests"] = {"sha512": _digest_source(item)}
        return record

    def _send_batch(self, batch: list[LocalItem]) -> None:
        index, sent = [], []
        started = time.monotonic()
        room, filled = self._lend_room(sum(item.size for item in batch if item.kind == "file")), 0
        for item in batch:
            record = describe_item(item)
            if item.kind == "file":
                try:
                    content = read_whole(item, room[filled:])
                except SourceChangedError as error:
                    self._refuse(item, error.detail)
                    continue
                record["digests"] = {"sha512": hashlib.sha512(content).hexdigest()}
                filled += len(content)
            index.append(record)
            sent.append(item)
        if not sent:
            return
        header = json.dumps({"items": index}, separators=(",", ":")).encode("utf-8")
        head = struct.pack(">I", len(header)) + header
        answer = self._transport.send(
            "POST",
            f"/archives/{self._archive_id}/batch",
            _BatchBody(head, room[:filled], _Gone(self._progress)),
            size=len(head) + filled,
            headers={"Content-Type": BATCH_TYPE},
            repeatable=True,
        ).json()
        self._settle_batch(sent, answer["items"])
        self._batches.learn(time.monotonic() - started, filled)

    def _lend_room(self, size: int) -> memoryview:
        """Memory of this thread, which its next batch overwrites: the system clears what it gives anew."""
        if len(getattr(self._rooms, "room", b"")) < max(size, 1):
            self._rooms.room = b""  # before there is another
            self._rooms.room = bytearray(max(-(-size // _PIECE), 1) * _PIECE)
        return memoryview(self._rooms.room)

    def _settle_batch(self, sent: list[LocalItem], results: list[dict[str, Any]]) -> None:
        if [from_json(result) for result in results] != [item.path for item in sent]:
            raise ClientError(
                "The server did not account for every file of a batch.", next_step="Run the command again."
            )
        for item, result in zip(sent, results, strict=True):
            if result["state"] == "refused":
                self._progress.add(size=-item.size)
                self._refuse(item, result.get("reason") or "refused by the server")
            else:
                self._stored(item)

    def _send_large(self, item: LocalItem) -> None:
        try:
            upload = WholeUpload if item.size <= _WHOLE_FILE else LargeUpload
            upload(self._transport, self._archive_id, item, self._progress).run()
        except SourceChangedError as error:
            self._refuse(item, error.detail)
        except ApiError as error:
            if error.exit_code not in (2, 5) or error.code in ("archive_closed", "quota_exceeded"):
                raise
            self._refuse(item, error.detail)
        else:
            self._stored(item)

    def _stored(self, item: LocalItem) -> None:
        with self._lock:
            self._report.stored += 1
            self._report.bytes_sent += item.size
        self._progress.add(files=1)  # its bytes were counted while they went

    def _refuse(self, item: LocalItem, reason: str) -> None:
        with self._lock:
            self._report.refused.append((item.path, reason))


class Batches:
    """Batches within the server's limits, in the order of the list.

    Where they go fast they grow, to spread what each costs; where they go slowly they shrink: a lost connection costs
    the seconds that one takes.
    """

    def __init__(self, items: Sequence[LocalItem], most_files: int, most_bytes: int) -> None:
        self._items = iter(items)
        self._most_files, self._most_bytes = most_files, min(_LARGEST_BATCH, most_bytes)
        self._bytes = min(_FIRST_BATCH, self._most_bytes)
        self._next: LocalItem | None = next(self._items, None)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> list[LocalItem]:
        batch: list[LocalItem] = []
        size = 0
        while self._next is not None and len(batch) < self._most_files:
            size += self._next.size
            if batch and size > self._bytes:
                break
            batch.append(self._next)
            self._next = next(self._items, None)
        if not batch:
            raise StopIteration
        return batch

    def learn(self, seconds: float, size: int) -> None:
        """Tell how long a batch of so many bytes took."""
        if seconds < _QUICK:
            self._bytes = min(max(self._bytes, 2 * size), self._most_bytes)
        elif seconds > _SLOW:
            self._bytes = min(max(self._bytes // 2, _SMALLEST_BATCH), self._most_bytes)


class _Gone:
    """How far one body has gone, as progress: going back takes it back."""

    def __init__(self, progress: Progress) -> None:
        self._progress, self._offset = progress, 0

    def reach(self, offset: int) -> None:
        self._progress.add(size=offset - self._offset)
        self._offset = offset


class _BatchBody:
    """Head and contents of a batch, as often as they are asked for: sent again, they change nothing."""

    def __init__(self, head: bytes, contents: memoryview, gone: _Gone) -> None:
        self._head, self._contents, self._gone = head, contents, gone

    def __iter__(self) -> Iterator[Piece]:
        self._gone.reach(0)
        yield self._head
        for start in range(0, len(self._contents), _PIECE):
            piece = self._contents[start : start + _PIECE]
            yield piece
            self._gone.reach(start + len(piece))


class WholeUpload:
    """One file in one request; sent from its beginning again when the connection is lost."""

    def __init__(self, transport: Transport, archive_id: str, item: LocalItem, progress: Progress) -> None:
        self._transport, self._archive_id, self._item = transport, archive_id, item
        self._gone = _Gone(progress)

    def run(self) -> None:
        """Send the file; raises SourceChangedError (nothing of it is kept) or LocalDamageError."""
        descriptor = open_source(self._item)  # before anything is asked of the server, which would keep room for it
        try:
            with ThreadPoolExecutor(1, thread_name_prefix="digest") as digester:
                self._send(descriptor, _Prefix(descriptor, digester))
        except ClientError:
            self._gone.reach(0)
            raise
        finally:
            os.close(descriptor)

    def _send(self, descriptor: int, digest: _Prefix) -> None:
        for attempt in range(_RESUMES_WITHOUT_PROGRESS + 1):
            try:
                answer = self._put(descriptor, digest)
            except (ConnectionLostError, ApiError) as error:
                is_final = isinstance(error, ApiError) and not error.is_worth_a_retry
                if is_final or attempt == _RESUMES_WITHOUT_PROGRESS:
                    raise
                time.sleep(error.wait_seconds + min(2**attempt * 0.2, 5))
            else:
                self._compare(answer, digest)
                return

    def _put(self, descriptor: int, digest: _Prefix) -> Any:
        self._gone.reach(0)
        headers = {"X-Mtime-Ns": str(self._item.mtime_ns), "X-Mode": f"{self._item.mode:o}"}
        place = f"/archives/{self._archive_id}/files/{to_url(self._item.path)}"
        return self._transport.send(
            "PUT", place, self._read_from(0, descriptor, digest), size=self._item.size, headers=headers
        )

    def _read_from(self, offset: int, descriptor: int, digest: _Prefix) -> Iterator[memoryview]:
        """The file's bytes from an offset on, digested meanwhile; a piece is valid until the one after the next."""
        digest.start(offset)
        rooms = [memoryview(bytearray(min(_PIECE, self._item.size - offset))) for _ in range(2)]
        while offset < self._item.size:
            room = rooms[0][: self._item.size - offset]
            data = room[: os.preadv(descriptor, [room], offset)]
            if offset + len(data) >= self._item.size or not len(data):
                check_unchanged(self._item, descriptor)
            if not len(data):
                raise SourceChangedError(f"{display(self._item.path)} became shorter while it was read.")
            digest.add(data)  # which has ended with the piece before
            offset += len(data)
            yield data
            self._gone.reach(offset)
            rooms.reverse()

    def _compare(self, answer: Any, digest: _Prefix) -> None:
        stated = answer.headers.get("Repr-Digest", "")
        own = base64.b64encode(bytes.fromhex(digest.finish(self._item.size))).decode("ascii")
        if "sha-512=:" in stated and f"sha-512=:{own}:" not in stated:
            raise LocalDamageError(
                f"{display(self._item.path)} arrived with another digest than it has here.",
                next_step="Remove it from the archive and send it again; check this computer's memory and disk.",
            )


class LargeUpload(WholeUpload):
    """One file by the tus protocol: goes on at the offset that the server has on its medium."""

    def _send(self, descriptor: int, digest: _Prefix) -> None:
        url, offset = self._find() or self._create()
        failures = 0
        while True:
            before = offset
            try:
                answer = self._send_rest(url, offset, descriptor, digest)
            except SourceChangedError:
                self._transport.request("DELETE", url, headers=TUS, plane="data")
                raise
            except (ConnectionLostError, ApiError) as error:
                if offset == self._item.size and self._was_finished(error, digest):
                    return
                offset = self._recover(url, error, offset)
                failures = 0 if offset > before else failures + 1
                if failures > _RESUMES_WITHOUT_PROGRESS:
                    raise
                time.sleep(error.wait_seconds + min(2**failures * 0.2, 5))
            else:
                self._compare(answer, digest)
                return

    def _find(self) -> tuple[str, int] | None:
        """An unfinished upload of this very file from an earlier run."""
        for upload in self._transport.json("GET", f"/archives/{self._archive_id}/uploads")["items"]:
            same = from_json(upload) == self._item.path and upload["size"] == self._item.size
            if same and upload.get("mtime_ns") == self._item.mtime_ns and upload["state"] in ("reserved", "receiving"):
                return upload["url"], upload["offset"]
        return None

    def _create(self) -> tuple[str, int]:
        pairs = {
            "path": self._item.path,
            "mtime_ns": str(self._item.mtime_ns).encode(),
            "mode": str(self._item.mode).encode(),
        }
        described = ",".join(f"{name} {base64.b64encode(value).decode('ascii')}" for name, value in pairs.items())
        headers = {**TUS, "Upload-Length": str(self._item.size), "Upload-Metadata": described}
        answer = self._transport.request("POST", f"/archives/{self._archive_id}/uploads", headers=headers, plane="data")
        return answer.headers["Location"], 0

    def _send_rest(self, url: str, offset: int, descriptor: int, digest: _Prefix) -> Any:
        headers = {**TUS, "Upload-Offset": str(offset), "Content-Type": "application/offset+octet-stream"}
        self._gone.reach(offset)
        pieces = self._read_from(offset, descriptor, digest)
        return self._transport.send("PATCH", url, pieces, size=self._item.size - offset, headers=headers)

    def _was_finished(self, error: ClientError, digest: _Prefix) -> bool:
        """Whether the upload has ended because the file is there: the answer to its last bytes was lost."""
        if not (isinstance(error, ApiError) and error.code == "upload_ended"):
            return False
        record = {**describe_item(self._item), "digests": {"sha512": digest.finish(self._item.size)}}
        place = f"/archives/{self._archive_id}/plan"
        return not self._transport.json("POST", place, json={"items": [record]}, repeatable=True)["items"]

    def _recover(self, url: str, error: ClientError, offset: int) -> int:
        """Where to go on; raises the error when the server still answers and it is not worth another try."""
        if isinstance(error, ApiError) and not error.is_worth_a_retry and error.status != 409:
            raise error
        try:
            answer = self._transport.request("HEAD", url, headers=TUS, plane="data")
        except ConnectionLostError:  # it may be on its way back: where it was is as good a guess as any
            return offset
        except ApiError as busy:  # with the request that was lost here
            if busy.code != "upload_busy":
                raise
            return offset
        return int(answer.headers["Upload-Offset"])


class _Prefix:
    """The digest of a file up to where it was read; a jump back or ahead digests the prefix again."""

    def __init__(self, descriptor: int, threads: ThreadPoolExecutor) -> None:
        self._descriptor, self._threads = descriptor, threads
        self._digest = FollowingDigest("sha512", threads)

    def start(self, offset: int) -> None:
        if offset < self._digest.size:
            self._digest = FollowingDigest("sha512", self._threads)
        while self._digest.size < offset:
            data = os.pread(self._descriptor, min(_PIECE, offset - self._digest.size), self._digest.size)
            if not data:
                raise SourceChangedError("The file became shorter while it was read.")
            self.add(data)

    def add(self, data: bytes | memoryview) -> None:
        self._digest.add(data)

    def finish(self, size: int) -> str:
        self.start(size)
        return self._digest.finish()


def describe_item(item: LocalItem) -> dict[str, object]:
    """One item as the plan and the batch index name it."""
    record: dict[str, object] = {**to_json(item.path), "kind": item.kind, "size": item.size}
    record |= {"mtime_ns": item.mtime_ns, "mode": item.mode}
    if item.target is not None:
        record |= to_json(item.target, "target")
    return record


def _digest_source(item: LocalItem) -> str:
    descriptor = open_source(item)
    try:
        with ThreadPoolExecutor(1) as digester:
            return _Prefix(descriptor, digester).finish(item.size)
    finally:
        os.close(descriptor)
