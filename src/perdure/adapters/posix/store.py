"""A store in a folder: `root/` is an OCFL storage root, beside it `staging/`, `journal/`, `quarantine/`, `store.json`.

All of it lies on one file system, so that a tree becomes an object by one rename.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import stat
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

from perdure.adapters.posix import files
from perdure.adapters.posix.files import make_folders
from perdure.adapters.posix.helper import HelperProcess
from perdure.adapters.posix.logs import Logs, replace_file
from perdure.adapters.posix.medium import MediumReader
from perdure.adapters.posix.sinks import FileSink
from perdure.adapters.posix.syncing import Syncer
from perdure.adapters.posix.system import exchange, move_new, probe, sync_path, translate, translated
from perdure.adapters.posix.uploads import ATTRIBUTES, FileUpload, read_record
from perdure.formats import ocfl
from perdure.formats.canonical import canonical_json, parse_json_object
from perdure.kernel.errors import PerdureError
from perdure.kernel.ids import new_id
from perdure.storage.crash_points import crash_point
from perdure.storage.errors import ForeignStoreError, StoreUnavailableError
from perdure.storage.helpers import Helper
from perdure.storage.model import Abilities, JournalRead, Room, StoreInfo
from perdure.storage.ports import Buffer, Sink, Upload

FORMAT_VERSION = 1
STORE_FILE = "store.json"
_FOLDERS = ("root", "staging", "journal", "quarantine")
_IGNORED = frozenset({"lost+found"})  # a fresh file system has it
_RECORD = ".record"  # beside an upload: how far it is durable
_SWAP = b"swap"  # folder in staging where an exchange in two renames keeps both forms
_UUID = re.compile(rb"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")  # in the names of objects and of their trees


class PosixStore:
    """A store in the folder `location`; `prepare` comes before everything else. Safe to share between threads."""

    def __init__(
        self,
        name: str,
        location: Path,
        *,
        medium: str = "disk",
        stands: str | None = None,
        abilities: Abilities | None = None,
        on_sync_failure: Callable[[], None] | None = None,
    ) -> None:
        """`stands` is the location that profiles know it by; without it, the folder itself. `abilities` takes the place
        of probing, for a file system that promises less than it seems to.

        After a failed sync this process writes nothing more here; `on_sync_failure` may see to it that another does.
        """
        self._name = name
        self._folder = location.absolute()
        self._medium = medium
        self._stands = stands
        self._given = abilities
        self._on_sync_failure = on_sync_failure
        top = os.fsencode(self._folder)
        self._root, self._staging, self._journal, self._quarantine = (top + b"/" + f.encode() for f in _FOLDERS)
        self._top = top
        self._info: StoreInfo | None = None
        self._abilities: Abilities | None = None

    @property
    def name(self) -> str:
        return self._name

    @property
    def info(self) -> StoreInfo:
        if self._info is None:
            raise StoreUnavailableError(f"The store {self._name} is not prepared.")
        return self._info

    @property
    def abilities(self) -> Abilities:
        if self._abilities is None:
            raise StoreUnavailableError(f"The store {self._name} is not prepared.")
        return self._abilities

    def prepare(self, instance_id: UUID, expected_id: UUID | None = None) -> None:
        if self._info is not None:
            return
        with translated(self._name):
            store_id = _claim(self._folder, instance_id, expected_id)
            for name in _FOLDERS:
                (self._folder / name).mkdir(mode=0o750, exist_ok=True)
            self._abilities = self._given or probe(self._folder / "staging")
            self._folder_fd = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            weakref.finalize(self, os.close, self._folder_fd)
            batch = self._abilities.batch_sync
            self._syncer = Syncer(self._name, self._folder_fd, batch=batch, on_failure=self._on_sync_failure)
            self._logs = Logs(self._syncer, self._quarantine)
            self._reader = MediumReader(self._abilities.medium_read)
            self._make_root()
            self._prune_interrupted()
        self._info = StoreInfo(store_id, self._name, "posix", self._medium, self._stands or str(self._folder))

    @property
    def is_sound(self) -> bool:
        try:
            return self._info is None or (self._syncer.is_sound and self._is_same_place())
        except OSError:
            return False

    def renew(self) -> PosixStore:
        return PosixStore(
            self._name,
            self._folder,
            medium=self._medium,
            stands=self._stands,
            abilities=self._given,
            on_sync_failure=self._on_sync_failure,
        )

    def room(self) -> Room:
        with self._translated():
            found = os.statvfs(self._top)
        return Room(found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize)

    # Trees in staging

    def create_file(self, tree: str, path: str) -> Sink | None:
        target = self._in_tree(tree, path)
        with self._translated():
            fd = files.create(target, self._staging)
        return None if fd is None else FileSink(fd, target, self._name, self._syncer)

    def put_file(self, tree: str, path: str, data: Buffer) -> bool:
        # the hot path of small files: no context manager, three system calls
        try:
            return files.put(self._in_tree(tree, path), self._staging, data, self._syncer)
        except OSError as error:
            known = translate(error, self._name)
            if known is None:
                raise
            raise known from error

    def start_helper(self) -> Helper | None:
        medium_read = self.abilities.medium_read
        return HelperProcess(self._staging, self._root, medium_read) if self._syncer.batch else None

    def adopt_file(self, tree: str, path: str, object_id: str, object_path: str) -> bool:
        if not self.abilities.hard_links:
            return False
        target = self._in_tree(tree, path)
        with self._translated():
            make_folders(os.path.dirname(target), self._staging)
            try:
                os.link(self._in_object(object_id, object_path), target, follow_symlinks=False)
            except OSError as error:
                if error.errno in (errno.EMLINK, errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP):
                    return False
                raise
        self._syncer.note(os.path.dirname(target))
        return True

    def sync_tree(self, tree: str) -> None:
        self._require_same_place()
        if not self._syncer.batch:
            self._note_folders(self._in_tree(tree))
        self._syncer.sync()

    def move_file(self, tree: str, path: str, new_path: str) -> None:
        target = self._in_tree(tree, new_path)
        with self._translated():
            make_folders(os.path.dirname(target), self._staging)
            move_new(self._in_tree(tree, path), target)

    def set_aside(self, tree: str, path: str) -> None:
        target = self._quarantine + f"/{tree}/{path}.{secrets.token_hex(6)}".encode("utf-8", "surrogateescape")
        if len(os.path.basename(target)) > 255:
            target = self._quarantine + f"/{tree}/{secrets.token_hex(16)}".encode()
        with self._translated():
            make_folders(os.path.dirname(target), self._quarantine)
            os.rename(self._in_tree(tree, path), target)
        self._syncer.note(os.path.dirname(target))

    def forget_set_aside(self, tree: str) -> None:
        with self._translated():
            files.remove_tree(self._quarantine + b"/" + tree.encode())

    def walk_tree(self, tree: str) -> Iterator[tuple[str, int]]:
        with self._translated(), contextlib.suppress(FileNotFoundError):
            yield from files.walk(self._in_tree(tree))

    def prune_tree(self, tree: str) -> None:
        with self._translated():
            files.prune(self._in_tree(tree))

    def file_size(self, tree: str, path: str) -> int:
        with self._translated():
            return os.lstat(self._in_tree(tree, path)).st_size

    def read_file(self, tree: str, path: str, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        with self._translated():
            yield from files.read_blocks(self._in_tree(tree, path), offset, length)

    def remove_files(self, tree: str, paths: Iterable[str]) -> int:
        with self._translated():
            return sum(files.remove_file(self._in_tree(tree, path)) for path in paths)

    def remove_tree(self, tree: str) -> tuple[int, int]:
        with self._translated():
            return files.remove_tree(self._in_tree(tree))

    def iter_trees(self) -> Iterator[tuple[str, float]]:
        newest: dict[str, float] = {}
        with self._translated():
            self._require_present()
            for top in _scan(self._staging):
                if top.name == _SWAP or not top.is_dir(follow_symlinks=False):
                    continue
                for entry in _scan(top.path):
                    name = os.fsdecode(top.name + b"/" + entry.name).removesuffix(_RECORD)
                    newest[name] = max(newest.get(name, 0.0), entry.stat(follow_symlinks=False).st_mtime)
        yield from newest.items()

    # Objects in the root

    def publish(self, tree: str, object_id: str) -> None:
        source, target = self._in_tree(tree), self._in_object(object_id)
        self.sync_tree(tree)
        crash_point("publish.synced")
        with self._translated():
            self._rename_new(source, target)
            crash_point("publish.renamed")
            self._syncer.sync_folder(os.path.dirname(source))
        self.settle_object(object_id)  # every folder above: others may have made them and not synced them yet

    def exchange(self, tree: str, object_id: str) -> None:
        source, target = self._in_tree(tree), self._in_object(object_id)
        self.sync_tree(tree)
        crash_point("exchange.synced")
        with self._translated():
            if self.abilities.exchange:
                exchange(source, target)
            else:
                self._exchange_in_steps(source, target)
            crash_point("exchange.done")
            self._sync_rename(source, target, [])
            files.remove_tree(source)
            crash_point("exchange.old_removed")

    def settle_object(self, object_id: str) -> None:
        with self._translated():
            folder = os.path.dirname(self._in_object(object_id))
            while len(folder) >= len(self._root):
                self._syncer.sync_folder(folder)
                folder = os.path.dirname(folder)

    def set_object_aside(self, object_id: str) -> None:
        source = self._in_object(object_id)
        target = self._quarantine + b"/objects/" + os.path.basename(source) + b"." + secrets.token_hex(6).encode()
        with self._translated():
            make_folders(os.path.dirname(target), self._quarantine)
            try:
                os.rename(source, target)
            except FileNotFoundError:
                return
            self._sync_rename(source, target, [])
            self._prune_above(source)

    def has_object(self, object_id: str) -> bool:
        with self._translated():
            try:
                return stat.S_ISDIR(os.stat(self._found_object(object_id)).st_mode)
            except (FileNotFoundError, NotADirectoryError):
                self._require_present()
                return False

    def walk_object(self, object_id: str) -> Iterator[tuple[str, int]]:
        with self._translated():
            yield from files.walk(self._found_object(object_id), empty_folders=True)

    def read_object(self, object_id: str, path: str, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        with self._translated():
            yield from files.read_blocks(self._found_file(object_id, path), offset, length)

    def read_medium(self, object_id: str, path: str) -> Iterator[memoryview]:
        with self._translated():
            yield from self._reader.read(self._found_file(object_id, path))

    def local_path(self, object_id: str, path: str) -> Path | None:
        found = self._in_object(object_id, path)
        return Path(os.fsdecode(found)) if os.path.exists(found) else None

    def remove_object(self, object_id: str) -> tuple[int, int]:
        source = self._in_object(object_id)
        doomed = self._staging + b"/objects/" + os.path.basename(source) + b".removed"
        with self._translated():
            make_folders(os.path.dirname(doomed), self._staging)
            with contextlib.suppress(FileNotFoundError):
                _move_doomed(source, doomed)
                self._sync_rename(source, doomed, [])
            crash_point("remove.renamed")
            self._prune_above(source)  # while what is removed still tells whoever comes later what was removed
            removed = files.remove_tree(doomed)
            for entry in _scan(self._quarantine + b"/objects"):
                if entry.name.startswith(os.path.basename(source) + b"."):
                    files.remove_tree(entry.path)
        return removed

    def iter_objects(self) -> Iterator[str]:
        declaration = ocfl.OBJECT_DECLARATION_NAME.encode()
        with self._translated():
            self._require_present()
            self._finish_exchanges()
            folders = [entry.path for entry in _scan(self._root) if entry.name != b"extensions"]
            while folders:
                folder = folders.pop()
                if os.path.exists(folder + b"/" + declaration):
                    yield _object_id_of(os.path.basename(folder))
                elif os.path.isdir(folder):
                    folders += [entry.path for entry in _scan(folder)]

    # Logs, uploads, files of the store itself

    def append_log(self, name: str, lines: Iterable[bytes], *, durable: bool) -> None:
        path, top = self._log(name)
        with self._translated():
            self._logs.append(path, top, lines, durable=durable)

    def read_log(self, name: str) -> JournalRead:
        with self._translated():
            found = self._logs.read(self._log(name)[0])
            if not found.lines:
                self._require_present()  # a log that is missing is not the same as a store that is missing
            return found

    def replace_log(self, name: str, lines: Iterable[bytes]) -> None:
        path, top = self._log(name)
        with self._translated():
            self._logs.replace(path, top, lines)

    def create_upload(self, name: str, attributes: bytes) -> None:
        path, record = self._upload(name)
        with self._translated():
            if self._logs.read(record).lines:
                return
            fd = files.create(path, self._staging)
            if fd is not None:
                os.close(fd)
            self._syncer.sync_folder(os.path.dirname(path))
            self._logs.append(record, self._staging, [ATTRIBUTES + attributes], durable=True)
            self._syncer.sync_folder(self._staging)

    def open_upload(self, name: str) -> Upload:
        path, record = self._upload(name)
        with self._translated():
            return FileUpload(path, record, self._staging, self._name, self._syncer, self._logs)

    def upload_offset(self, name: str) -> int:
        with self._translated():
            return read_record(self._logs, self._upload(name)[1])[1]

    def move_upload(self, name: str, tree: str, path: str) -> bool:
        source, target = self._upload(name)[0], self._in_tree(tree, path)
        with self._translated():
            try:
                make_folders(os.path.dirname(target), self._staging)
                move_new(source, target)
            except (FileExistsError, NotADirectoryError):
                return False
        self._syncer.note(os.path.dirname(target))
        return True

    def remove_upload(self, name: str) -> None:
        path, record = self._upload(name)
        with self._translated():
            files.remove_file(path)
            self._logs.replace(record, self._staging, [])

    def write_store_file(self, name: str, data: bytes) -> None:
        with self._translated():
            replace_file(self._store_file(name), data, self._syncer.sync_file)
            self._syncer.sync_folder(self._top)

    def read_store_file(self, name: str) -> bytes | None:
        with self._translated():
            try:
                return Path(os.fsdecode(self._store_file(name))).read_bytes()
            except FileNotFoundError:
                return None

    # Inside

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            with translated(self._name):
                yield
        except FileNotFoundError:
            with translated(self._name):
                self._require_present()  # a file that is missing is not the same as a store that is missing
            raise

    def _require_present(self) -> None:
        try:
            os.stat(self._top + b"/" + STORE_FILE.encode())
        except (FileNotFoundError, NotADirectoryError):
            raise StoreUnavailableError(f"The store {self._name} is not at {self._folder}: is it mounted?") from None

    def _is_same_place(self) -> bool:
        """Whether the folder is the one that was opened at the start: syncs go to that one's file system."""
        return os.path.samestat(os.stat(self._top), os.fstat(self._folder_fd))

    def _require_same_place(self) -> None:
        with self._translated():
            if self._is_same_place():
                return
        self._require_present()
        if self._on_sync_failure is not None:
            self._on_sync_failure()
        raise StoreUnavailableError(f"Another file system lies at {self._folder} since the store was opened.")

    def _in_tree(self, tree: str, path: str | None = None) -> bytes:
        relative = tree if path is None else f"{tree}/{path}"
        return self._staging + b"/" + relative.encode("utf-8", "surrogateescape")

    def _in_object(self, object_id: str, path: str | None = None) -> bytes:
        folder = self._root + b"/" + ocfl.object_path(object_id).encode()
        return folder if path is None else folder + b"/" + path.encode("utf-8", "surrogateescape")

    def _log(self, name: str) -> tuple[bytes, bytes]:
        """The path of a log, and the folder of the store that it lies in."""
        top = self._staging if name.startswith("staging/") else self._journal
        return self._top + b"/" + name.encode(), top

    def _upload(self, name: str) -> tuple[bytes, bytes]:
        path = self._in_tree(name)
        return path, path + _RECORD.encode()

    def _store_file(self, name: str) -> bytes:
        if "/" in name or name in (STORE_FILE, *_FOLDERS, ".", ".."):
            raise ValueError(f"{name!r} cannot be a file of the store itself")
        return self._top + b"/" + name.encode()

    def _make_root(self) -> None:
        for name, data in sorted(ocfl.ROOT_FILES.items(), reverse=True):  # the declaration (0=…) comes last
            path = self._root + b"/" + name.encode()
            if not os.path.exists(path):
                make_folders(os.path.dirname(path), self._root)
                replace_file(path, data, self._syncer.sync_file)
        for folder, _, _ in os.walk(self._root + b"/extensions"):
            sync_path(folder)
        for path in (self._root, self._top, os.path.dirname(self._top)):
            sync_path(path)

    def _note_folders(self, tree: bytes) -> None:
        """Without a batch sync, every folder of a tree has to be synced by itself, and those above it."""
        for folder, _, _ in os.walk(tree):
            self._syncer.note(folder)
        folder = os.path.dirname(tree)
        while len(folder) >= len(self._staging):
            self._syncer.note(folder)
            folder = os.path.dirname(folder)

    def _rename_new(self, source: bytes, target: bytes) -> None:
        """Rename a folder to a name that is free, making the folders above it; they do not stay when it fails."""
        try:
            self._rename_into_root(source, target)
        except BaseException:
            with contextlib.suppress(OSError, PerdureError):  # the first error is told; the next start prunes again
                self._prune_above(target)
            raise

    def _rename_into_root(self, source: bytes, target: bytes) -> None:
        """A parent that another thread finds empty and removes between the two steps is made again."""
        while True:
            make_folders(os.path.dirname(target), self._root)
            crash_point("publish.folders_made")
            try:
                os.rename(source, target)
            except FileNotFoundError:
                if not os.path.isdir(source):
                    raise
            except OSError as error:
                if error.errno == errno.ENOTEMPTY:
                    raise FileExistsError(errno.EEXIST, "the object exists", target) from None
                raise
            else:
                return

    def _sync_rename(self, source: bytes, target: bytes, made: list[bytes]) -> None:
        folders = {os.path.dirname(source), os.path.dirname(target), *map(os.path.dirname, made)}
        for folder in sorted(folders, key=len, reverse=True):
            self._syncer.sync_folder(folder)

    def _exchange_in_steps(self, source: bytes, target: bytes) -> None:
        """Two renames; between them `_found_object` finds the new form, which is complete and synced."""
        new, old = self._swap_names(target)
        make_folders(os.path.dirname(new), self._staging)
        for leftover in (new, old):  # the object is in its place, so these are of an interrupted attempt
            files.remove_tree(leftover)
        os.rename(source, new)
        self._sync_rename(source, new, [os.path.dirname(new)])
        crash_point("exchange.new_ready")
        os.rename(target, old)
        crash_point("exchange.old_aside")
        make_folders(os.path.dirname(target), self._root)  # whoever prunes may find them empty just now
        os.rename(new, target)
        self._sync_rename(new, target, [])
        files.remove_tree(old)

    def _swap_names(self, target: bytes) -> tuple[bytes, bytes]:
        name = self._staging + b"/" + _SWAP + b"/" + os.path.basename(target)
        return name + b".new", name + b".old"

    def _found_object(self, object_id: str) -> bytes:
        """The folder of an object, after finishing an exchange that was interrupted between its renames."""
        target = self._in_object(object_id)
        if not self.abilities.exchange and not os.path.isdir(target):
            new, old = self._swap_names(target)
            if os.path.isdir(old) and os.path.isdir(new):
                with contextlib.suppress(FileNotFoundError):
                    make_folders(os.path.dirname(target), self._root)
                    os.rename(new, target)
                    self._sync_rename(new, target, [])
        return target

    def _finish_exchanges(self) -> None:
        """An object whose exchange was interrupted between its renames is not in the root until it is asked for."""
        for entry in _scan(self._staging + b"/" + _SWAP):
            name, is_old, _ = entry.name.partition(b".old")
            if is_old:
                self._found_object(_object_id_of(name))

    def _found_file(self, object_id: str, path: str) -> bytes:
        self._found_object(object_id)
        return self._in_object(object_id, path)

    def _prune_above(self, path: bytes) -> None:
        """Remove the folders above an object that hold nothing any more: a storage root has no empty folders."""
        folder, is_changed = os.path.dirname(path), False
        while len(folder) > len(self._root):
            try:
                os.rmdir(folder)
                is_changed = True
            except FileNotFoundError:
                pass
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                break
            folder = os.path.dirname(folder)
        if is_changed:
            with contextlib.suppress(FileNotFoundError):  # another thread found it empty, and syncs the one above
                self._syncer.sync_folder(folder)

    def _prune_interrupted(self) -> None:
        """Remove empty folders where a process ended before its object came into them, or after it left them.

        What it was about is still in staging, or in quarantine. What is being exchanged comes back to its place.
        """
        tops = [top for top in (*_scan(self._staging), *_scan(self._quarantine)) if top.is_dir(follow_symlinks=False)]
        found: dict[bytes, set[bytes]] = {}
        for top in tops:
            folders = (entry.name for entry in _scan(top.path) if entry.is_dir(follow_symlinks=False))
            found.setdefault(top.name, set()).update(name for folder in folders for name in _UUID.findall(folder))
        for name in set().union(*found.values()) - found.get(_SWAP, set()):
            self._prune_above(self._in_object(f"urn:uuid:{name.decode()}"))


@contextmanager
def _scanned(folder: bytes) -> Iterator[Iterator[os.DirEntry[bytes]]]:
    with os.scandir(folder) as found:
        yield found


def _scan(folder: bytes) -> list[os.DirEntry[bytes]]:
    try:
        with _scanned(folder) as found:
            return list(found)
    except FileNotFoundError:
        return []


def find_instance_id(folder: Path) -> UUID | None:
    """The instance that the store in this folder belongs to, or None where there is no store."""
    try:
        return UUID(str(parse_json_object((folder / STORE_FILE).read_bytes())["instance_id"]))
    except FileNotFoundError:
        return None


def _claim(folder: Path, instance_id: UUID, expected_id: UUID | None) -> UUID:
    """The identity of the store in this folder, made when the folder is empty or not there and none is expected.

    `store.json` comes before everything else, so that an interrupted claim is found again as ours.
    """
    path = folder / STORE_FILE
    if not path.exists():
        if expected_id is not None:
            raise StoreUnavailableError(f"{folder} does not hold the store {expected_id}: is it mounted?")
        folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        strangers = [e.name for e in folder.iterdir() if e.name not in _IGNORED and not _is_ours(e.name)]
        if strangers and not path.exists():  # they are ours if another process claimed the folder meanwhile
            raise ForeignStoreError(f"{folder} is not empty and has no {STORE_FILE}: {min(strangers)!r} is there.")
        if not path.exists():
            _write_identity(path, instance_id)
    found = parse_json_object(path.read_bytes())
    if found.get("format_version") != FORMAT_VERSION:
        raise ForeignStoreError(f"{folder} has the format version {found.get('format_version')!r}.")
    if found.get("instance_id") != str(instance_id):
        raise ForeignStoreError(f"{folder} is the store of the instance {found.get('instance_id')}.")
    if expected_id is not None and found.get("store_id") != str(expected_id):
        raise ForeignStoreError(f"{folder} is the store {found.get('store_id')}, not {expected_id}.")
    return UUID(str(found["store_id"]))


def _write_identity(path: Path, instance_id: UUID) -> None:
    """Of two processes that claim a folder at one time, the first wins and both read the same identity."""
    document = {"format_version": FORMAT_VERSION, "store_id": str(new_id()), "instance_id": str(instance_id)}
    draft = os.fsencode(path) + b".claim-" + secrets.token_hex(6).encode()
    replace_file(draft, canonical_json(document) + b"\n", os.fsync)
    try:
        move_new(draft, os.fsencode(path))
    except FileExistsError:
        files.remove_file(draft)
    sync_path(os.fsencode(path.parent))


def _is_ours(name: str) -> bool:
    return name.startswith(f"{STORE_FILE}.")  # of a claim that was interrupted


def _move_doomed(source: bytes, doomed: bytes) -> None:
    try:
        os.rename(source, doomed)
    except OSError as error:
        if error.errno != errno.ENOTEMPTY:
            raise
        files.remove_tree(doomed)  # of an earlier removal that was interrupted
        os.rename(source, doomed)


def _object_id_of(folder: bytes) -> str:
    """The object id that a folder of the layout is named after (ours are short enough never to be cut)."""
    parts = folder.split(b"%")
    decoded = parts[0] + b"".join(bytes([int(part[:2], 16)]) + part[2:] for part in parts[1:])
    return decoded.decode("utf-8")
