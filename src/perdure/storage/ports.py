"""What a store must be able to do, whatever its medium.

A store holds *objects* under their ids in its root, and *trees* in staging: folders of files that become objects by one
step (`publish`, `exchange`). Staging is never read by other tools. On a medium without rename a tree may lie at the
final keys already, with the OCFL declaration held back until `publish`. Beside them lie *logs* (append-only lines) and
*uploads* (single files that grow over several requests). Names of trees, logs and uploads are relative paths of plain
ASCII made by the domain; paths in trees and objects are relative, text, and joined by `/`.

Every method raises StoreFullError, StoreFailedError or StoreUnavailableError where the medium says so, and
`FileNotFoundError` for a tree, file or object that is not there. A store is safe to share between threads.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol
from uuid import UUID

from perdure.storage.model import Abilities, JournalRead, Room, StoreInfo

Buffer = bytes | bytearray | memoryview


class Sink(Protocol):
    """A new file that takes bytes in order. It is whole after `close`, and durable after the tree's next sync."""

    def write(self, data: Buffer) -> None: ...

    def close(self) -> None: ...

    def abort(self) -> None:
        """Close and remove the file; safe to call after anything."""
        ...


class Upload(Protocol):
    """A file that grows over several requests, held by one holder at a time.

    `size` bytes are written, of which `durable` survive any crash; a fresh holder begins with `size == durable`.
    `note` is what the last `keep_note` kept.
    """

    attributes: bytes
    note: bytes | None
    size: int
    durable: int

    def write(self, data: Buffer) -> None: ...

    def checkpoint(self) -> int:
        """Make everything written durable, then record and return its length."""
        ...

    def read(self, offset: int, length: int) -> Iterator[bytes]: ...

    def keep_note(self, note: bytes) -> None:
        """Record a note durably."""
        ...

    def close(self) -> None:
        """Let go of the upload; safe to call twice."""
        ...


class Store(Protocol):
    """One place for bytes."""

    @property
    def name(self) -> str: ...

    @property
    def info(self) -> StoreInfo:
        """Raises StoreUnavailableError before `prepare`."""
        ...

    @property
    def abilities(self) -> Abilities: ...

    def prepare(self, instance_id: UUID, expected_id: UUID | None = None) -> None:
        """Create the store or open it, and probe its medium. Safe to call twice.

        A store that should have `expected_id` is never created: what is missing then is a mount. Raises
        ForeignStoreError for a place that holds something else.
        """
        ...

    @property
    def is_sound(self) -> bool:
        """Whether this object may write: never again after it lost writes, or when its place was mounted anew."""
        ...

    def renew(self) -> Store:
        """The same place as a new process would open it, not yet prepared; what is under way on this object fails."""
        ...

    def room(self) -> Room: ...

    # Trees in staging

    def create_file(self, tree: str, path: str) -> Sink | None:
        """Begin a new file, making the folders above it; None when the name is taken by a file or a folder."""
        ...

    def put_file(self, tree: str, path: str, data: Buffer) -> bool:
        """Write a small file in one step; False when the name is taken. Durable after the tree's next sync."""
        ...

    def adopt_file(self, tree: str, path: str, object_id: str, object_path: str) -> bool:
        """Let a tree share a file of an object in this store without rewriting it; False where that is impossible."""
        ...

    def sync_tree(self, tree: str) -> None:
        """Make durable every file, folder, move and log of the tree that was finished before the call."""
        ...

    def move_file(self, tree: str, path: str, new_path: str) -> None:
        """Give a staged file another name, making folders; raises FileExistsError when the name is taken."""
        ...

    def set_aside(self, tree: str, path: str) -> None:
        """Move a staged file to quarantine, where nothing reads or removes it."""
        ...

    def forget_set_aside(self, tree: str) -> None:
        """Remove from quarantine what was set aside of a tree, or of all trees in a folder."""
        ...

    def walk_tree(self, tree: str) -> Iterator[tuple[str, int]]:
        """Path and size of every file of the tree; size -1 for what is no regular file. Nothing if there is no tree."""
        ...

    def prune_tree(self, tree: str) -> None:
        """Remove the folders of a tree that hold nothing."""
        ...

    def file_size(self, tree: str, path: str) -> int: ...

    def read_file(self, tree: str, path: str, offset: int = 0, length: int | None = None) -> Iterator[bytes]: ...

    def remove_files(self, tree: str, paths: Iterable[str]) -> int:
        """Remove staged files and return how many there were; a path that is not there is passed over."""
        ...

    def remove_tree(self, tree: str) -> tuple[int, int]:
        """Remove a tree with everything in it; returns files and bytes. A name without a tree is passed over."""
        ...

    def iter_trees(self) -> Iterator[tuple[str, float]]:
        """Every tree, log and upload in staging by name, with the time in seconds of its last change."""
        ...

    # Objects in the root

    def publish(self, tree: str, object_id: str) -> None:
        """Sync the tree, then make it the object in one durable step; raises FileExistsError if the object exists."""
        ...

    def exchange(self, tree: str, object_id: str) -> None:
        """Sync the tree, then put it in the object's place in one durable step; the old object is gone after it."""
        ...

    def settle_object(self, object_id: str) -> None:
        """Make sure that the step which made this object is durable, when its caller may have been interrupted."""
        ...

    def set_object_aside(self, object_id: str) -> None:
        """Move an object to quarantine in one step; nothing happens if there is none."""
        ...

    def has_object(self, object_id: str) -> bool: ...

    def walk_object(self, object_id: str) -> Iterator[tuple[str, int]]:
        """Path and size of every file; size -1 for links and the like, and with a trailing `/` an empty folder."""
        ...

    def read_object(self, object_id: str, path: str, offset: int = 0, length: int | None = None) -> Iterator[bytes]: ...

    def read_medium(self, object_id: str, path: str) -> Iterator[memoryview]:
        """A whole file from the medium, read as `abilities` say; a block is valid until the next one is asked for."""
        ...

    def local_path(self, object_id: str, path: str) -> Path | None:
        """Where this machine can open the file by itself, or None."""
        ...

    def remove_object(self, object_id: str) -> tuple[int, int]:
        """Remove an object so that no reader meets half of it; returns files and bytes, 0 and 0 if there was none.

        What was set aside of it leaves quarantine, too.
        """
        ...

    def iter_objects(self) -> Iterator[str]:
        """The ids of all objects, read from the store itself."""
        ...

    # Logs, uploads, files of the store itself

    def append_log(self, name: str, lines: Iterable[bytes], *, durable: bool) -> None:
        """Append whole lines (given without newline) in one step, after setting a torn end aside."""
        ...

    def read_log(self, name: str) -> JournalRead:
        """Every whole line; raises JournalDamagedError for damage before the end. Nothing if there is no log."""
        ...

    def replace_log(self, name: str, lines: Iterable[bytes]) -> None:
        """Replace a log in one durable step; without lines the log is removed."""
        ...

    def create_upload(self, name: str, attributes: bytes) -> None:
        """Begin an upload that keeps `attributes` with it; one that exists is left as it is."""
        ...

    def open_upload(self, name: str) -> Upload:
        """Take hold of an upload and cut it to its durable length; raises UploadBusyError while another holds it."""
        ...

    def upload_offset(self, name: str) -> int:
        """The durable length, without taking hold."""
        ...

    def move_upload(self, name: str, tree: str, path: str) -> bool:
        """Make a durable upload a file of a tree; False when the name is taken.

        Its note and attributes stay until `remove_upload`, so that a caller who was interrupted finds them; an upload
        whose bytes were moved opens with `size` 0 and its note.
        """
        ...

    def remove_upload(self, name: str) -> None: ...

    def write_store_file(self, name: str, data: bytes) -> None:
        """Keep a small file with the store itself, replaced in one durable step."""
        ...

    def read_store_file(self, name: str) -> bytes | None: ...
