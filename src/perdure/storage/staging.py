"""Taking bytes in: every byte enters here, is digested while it streams, and lies at once where it will stay.

Nothing here is durable before `sync`, except what an upload's checkpoint says.
"""

from __future__ import annotations

import json
import os
import stat
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import cast
from uuid import UUID

from perdure.kernel.digests import MultiDigest, digest_bytes
from perdure.kernel.errors import PerdureError
from perdure.kernel.paths import display_path
from perdure.storage.crash_points import crash_point
from perdure.storage.errors import SourceChangedError, SourceRefusedError, UnknownUploadError, WrongSizeError
from perdure.storage.model import DATA_PREFIX, PartRef, Received
from perdure.storage.ports import Buffer, Sink, Store, Upload
from perdure.storage.source_files import OPEN_SOURCE, SMALL, iter_content_names, mark_of

BLOCK = 1 << 20
_COPY_BLOCK = 4 << 20
_BLOCKS_IN_FLIGHT = 3
_KEPT_DIGESTS = 256


def tree_of(part: PartRef) -> str:
    """The name of a part's tree in staging."""
    return f"{part.archive_id}/{part.part_id}"


def log_of(part: PartRef) -> str:
    """The name of the log of entries beside a part's tree."""
    return f"staging/{part.archive_id}/{part.part_id}.entries.ndjson"


def upload_of(part: PartRef, upload_id: UUID) -> str:
    """The name of an upload; it belongs to the archive, so that it outlives the part it was begun for."""
    return f"{part.archive_id}/upload-{upload_id}"


class FileWriter:
    """One staged file being written by one thread: any number of `write`, then `finish` or `abort`."""

    def __init__(self, sink: Sink, content: str, digests: Iterable[str]) -> None:
        self._sink = sink
        self._content = content
        self._digest = MultiDigest(digests)
        self._is_removed = False

    @property
    def size(self) -> int:
        return self._digest.size

    def write(self, data: Buffer) -> None:
        """Take bytes in order; when it raises, the file is gone."""
        with self._or_abort():
            self._sink.write(data)
            self._digest.update(data)

    def finish(self, expected_size: int | None = None) -> Received:
        """Close the file and tell what was received; raises WrongSizeError, and then the file is gone."""
        with self._or_abort():
            if expected_size is not None and self.size != expected_size:
                raise WrongSizeError(f"{self.size} bytes came in place of {expected_size}.")
            self._sink.close()
        return Received(self._content, self.size, self._digest.hexdigests())

    def abort(self) -> None:
        """Remove the file, once: another one may have its name afterwards. Safe to call twice."""
        if not self._is_removed:
            self._is_removed = True
            self._sink.abort()

    def leave(self) -> str | None:
        """Close the file as it is and tell where it is staged; None when it is removed already."""
        if not self._is_removed:
            with suppress(PerdureError):  # nobody is promised these bytes
                self._sink.close()
        return None if self._is_removed else self._content

    @contextmanager
    def _or_abort(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.abort()
            raise


@dataclass(slots=True)
class _Progress:
    """How far an upload was digested by this process."""

    digest: MultiDigest


class UploadWriter:
    """A resumable file in the hands of one request; `close` it when the request ends, whatever happened."""

    def __init__(self, staging: Staging, part: PartRef, name: str, upload: Upload, progress: _Progress | None) -> None:
        self._staging = staging
        self._part = part
        self._name = name
        self._upload = upload
        attributes = json.loads(upload.attributes)
        self._path = bytes.fromhex(attributes["path"])
        self._names: list[str] = attributes["digests"]
        self._digest = progress.digest if progress else MultiDigest(self._names)
        self._earlier = self._find_finished()

    @property
    def offset(self) -> int:
        """How many bytes are written; right after opening, how many are durable: all, once they are a staged file."""
        return self._earlier.size if self._earlier else self._upload.size

    @property
    def durable_offset(self) -> int:
        return self._upload.durable

    def write(self, data: Buffer) -> None:
        """Write at the offset."""
        if self._earlier:
            if len(data):
                raise WrongSizeError("More bytes came, and the upload is complete.", offset=self.offset)
            return
        self._catch_up()
        self._upload.write(data)
        self._digest.update(data)

    def flush_durable(self) -> int:
        """Make what was written durable and return the offset, which no crash takes back."""
        if self._earlier:
            return self._earlier.size
        offset = self._upload.checkpoint()
        crash_point("upload.flushed")
        return offset

    def finish(self, expected_size: int | None = None) -> Received:
        """Make the upload a staged file of the part. Safe to call again after a crash at any step.

        The upload's note stays until `forget_upload`, which belongs after the database's commit. Raises
        WrongSizeError and keeps the upload when bytes are missing or too many.
        """
        if self._earlier:
            return self._earlier
        if expected_size is not None and self.offset != expected_size:
            raise WrongSizeError(f"{self.offset} bytes came in place of {expected_size}.", offset=self.offset)
        self._catch_up()
        self.flush_durable()
        self._earlier = self._move(self._digest.hexdigests())
        return self._earlier

    def close(self) -> None:
        """Let go of the upload and remember how far it was digested, so that the next request need not begin anew."""
        if self._upload.size == self._upload.durable:
            self._staging.remember_progress(self._name, _Progress(self._digest))
        self._upload.close()

    def _catch_up(self) -> None:
        """Digest what was written before this process knew of the upload: the state of a digest cannot be saved."""
        if self._digest.size > self._upload.size:
            self._digest = MultiDigest(self._names)
        behind = self._upload.size - self._digest.size
        if behind:
            for block in self._upload.read(self._digest.size, behind):
                self._digest.update(block)

    def _move(self, digests: dict[str, str]) -> Received:
        tree = tree_of(self._part)
        for content in iter_content_names(self._path):
            received = Received(content, self._upload.size, digests)
            self._upload.keep_note(_note_of(tree, received))
            crash_point("upload.noted")
            if self._staging.store.move_upload(self._name, tree, DATA_PREFIX + content):
                crash_point("upload.moved")
                return received
        raise AssertionError("the names never end")

    def _find_finished(self) -> Received | None:
        if self._upload.note is None or self._upload.size:
            return None
        note = json.loads(self._upload.note)
        received = Received(note["content"], note["size"], note["digests"])
        try:
            present = self._staging.store.file_size(note["tree"], DATA_PREFIX + received.content)
        except FileNotFoundError:
            present = -1
        if note["tree"] == tree_of(self._part) and present == received.size:
            return received
        if received.size == 0:
            return None  # an empty upload that was not moved looks the same; moving it again is right
        raise UnknownUploadError("The upload was finished, and its file is not staged in this part any more.")


class Staging:
    """The staged parts and uploads of the primary store. Safe to share between threads."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._progress: OrderedDict[str, _Progress] = OrderedDict()
        self._lock = threading.Lock()
        self._writers = ThreadPoolExecutor(max_workers=16, thread_name_prefix="copy-in")

    def begin_file(self, part: PartRef, path: bytes, digests: Iterable[str]) -> FileWriter:
        tree = tree_of(part)
        for content in iter_content_names(path):
            sink = self.store.create_file(tree, DATA_PREFIX + content)
            if sink is not None:
                return FileWriter(sink, content, digests)
        raise AssertionError("the names never end")

    def write_small(self, part: PartRef, path: bytes, data: Buffer, digests: Iterable[str]) -> Received:
        tree, put_file = tree_of(part), self.store.put_file
        for content in iter_content_names(path):
            if put_file(tree, DATA_PREFIX + content, data):
                return Received(content, len(data), digest_bytes(cast("bytes", data), digests))
        raise AssertionError("the names never end")

    # Copying in

    def copy_in(
        self, part: PartRef, source: bytes | Path, path: bytes, digests: Iterable[str], dir_fd: int | None
    ) -> Received:
        shown = os.fsencode(source)
        fd = _open_source(source, shown, dir_fd)
        try:
            before = os.fstat(fd)
            if not stat.S_ISREG(before.st_mode):
                raise SourceRefusedError(f"{display_path(shown)} is not a regular file.")
            if before.st_size <= SMALL:
                received = self._copy_small(part, fd, before, path, digests, shown)
            else:
                received = self._copy_large(part, fd, path, digests)
            if not self._is_unchanged(before, received.size, source, dir_fd):
                self.store.remove_files(tree_of(part), [DATA_PREFIX + received.content])
                raise _changed(shown)
        except OSError as error:  # of the source: those of the store are ours already
            raise SourceRefusedError(f"{display_path(shown)} cannot be read: {error.strerror}.") from error
        finally:
            os.close(fd)
        return received._replace(mtime_ns=before.st_mtime_ns, mode=stat.S_IMODE(before.st_mode))

    def _copy_small(
        self, part: PartRef, fd: int, before: os.stat_result, path: bytes, digests: Iterable[str], shown: bytes
    ) -> Received:
        data = os.read(fd, before.st_size + 1)
        if len(data) != before.st_size:
            raise _changed(shown)
        return self.write_small(part, path, data, digests)

    def _copy_large(self, part: PartRef, fd: int, path: bytes, digests: Iterable[str]) -> Received:
        """Read and digest in this thread while another one writes the block before."""
        writer = self.begin_file(part, path, ())
        digest = MultiDigest(digests)
        free = [bytearray(_COPY_BLOCK) for _ in range(_BLOCKS_IN_FLIGHT)]
        busy: list[tuple[Future[None], bytearray]] = []
        try:
            while True:
                if not free:
                    future, block = busy.pop(0)
                    future.result()
                    free.append(block)
                block = free.pop()
                count = os.readv(fd, [block])
                if not count:
                    break
                view = memoryview(block)[:count]
                # one block at a time is with the writing thread, so their order is kept
                if busy:
                    busy[-1][0].result()
                busy.append((self._writers.submit(writer.write, view), block))
                digest.update(view)
            for future, _ in busy:
                future.result()
            received = writer.finish(digest.size)
        except BaseException:
            for future, _ in busy:
                future.exception()
            writer.abort()
            raise
        return received._replace(digests=digest.hexdigests())

    def _is_unchanged(self, before: os.stat_result, size: int, source: bytes | Path, dir_fd: int | None) -> bool:
        try:
            after = os.stat(source, dir_fd=dir_fd, follow_symlinks=False)
        except OSError:
            return False
        return size == before.st_size and mark_of(before) == mark_of(after)

    # Uploads

    def begin_upload(self, part: PartRef, upload_id: UUID, path: bytes, digests: Iterable[str]) -> None:
        attributes = json.dumps({"path": path.hex(), "digests": sorted(digests)}).encode()
        self.store.create_upload(upload_of(part, upload_id), attributes)

    def open_upload(self, part: PartRef, upload_id: UUID) -> UploadWriter:
        name = upload_of(part, upload_id)
        try:
            upload = self.store.open_upload(name)
        except FileNotFoundError:
            raise UnknownUploadError(f"There is no upload {upload_id}.") from None
        with self._lock:
            progress = self._progress.pop(name, None)
        try:
            return UploadWriter(self, part, name, upload, progress)
        except BaseException:
            upload.close()
            raise

    def upload_offset(self, part: PartRef, upload_id: UUID) -> int:
        try:
            return self.store.upload_offset(upload_of(part, upload_id))
        except FileNotFoundError:
            raise UnknownUploadError(f"There is no upload {upload_id}.") from None

    def forget_upload(self, part: PartRef, upload_id: UUID) -> None:
        name = upload_of(part, upload_id)
        with self._lock:
            self._progress.pop(name, None)
        self.store.remove_upload(name)

    def remember_progress(self, name: str, progress: _Progress) -> None:
        with self._lock:
            self._progress[name] = progress
            if len(self._progress) > _KEPT_DIGESTS:
                self._progress.popitem(last=False)


def _open_source(source: bytes | Path, shown: bytes, dir_fd: int | None) -> int:
    try:
        return os.open(source, OPEN_SOURCE, dir_fd=dir_fd)
    except FileNotFoundError:
        raise _changed(shown) from None
    except OSError as error:
        raise SourceRefusedError(f"{display_path(shown)} cannot be read: {error.strerror}.") from error


def _changed(shown: bytes) -> SourceChangedError:
    return SourceChangedError(f"{display_path(shown)} changed while it was read.")


def _note_of(tree: str, received: Received) -> bytes:
    note = {"tree": tree, "content": received.content, "size": received.size, "digests": dict(received.digests)}
    return json.dumps(note, sort_keys=True).encode()
