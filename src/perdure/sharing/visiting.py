"""Use cases of whoever has a link: see what it leads to, read it, take it along, drop files.

Paths are those below what the link is for; of a link to one file, the file's name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from uuid import UUID

from sqlalchemy import select

from perdure.archives.downloading import Download, Form
from perdure.archives.errors import (
    DigestMismatchError,
    EntryNotFoundError,
    NoRoomError,
    PathTakenError,
    RefusedItemError,
    UploadEndedError,
    UploadOffsetError,
)
from perdure.archives.filling import Attributes
from perdure.archives.items import UploadView
from perdure.archives.journal import description_at
from perdure.archives.layers import to_manifest_entry
from perdure.archives.listing import EntryPage
from perdure.archives.model import ArchiveState, Creator, Entry, EntryKind
from perdure.archives.reading import MAX_PAGE, Content
from perdure.archives.receiving import FileReceiver, UploadReceiver
from perdure.archives.records import load
from perdure.archives.service import Archives
from perdure.formats.manifest import checksum_line, checksum_list_name
from perdure.identity.errors import BadCredentialsError
from perdure.identity.secrets import digest_secret
from perdure.kernel.actor import SYSTEM, Actor, ActorKind
from perdure.kernel.errors import ConflictError
from perdure.kernel.paths import MAX_PATH_BYTES, BadPathError, check_path, display_path
from perdure.sharing.errors import (
    DropRefusedError,
    LinkAddressNeededError,
    LinkNotFoundError,
    LinkNotYetError,
    LinkPasswordError,
)
from perdure.sharing.links import LINK_PREFIX
from perdure.sharing.model import PASS_LIFETIME, Link, LinkKind
from perdure.sharing.rows import count_start, count_use, to_link
from perdure.sharing.tables import links
from perdure.storage.errors import UploadBusyError, WrongSizeError
from perdure.storage.ports import Buffer


@dataclass(frozen=True, slots=True)
class Visit:
    """A request at the address of a link: the secret in it, what shows the password, and from where it comes."""

    secret: str = field(repr=False)
    password: str | None = field(default=None, repr=False)
    ticket: str | None = field(default=None, repr=False)  # what `give_pass` gave
    address: str = ""


@dataclass(frozen=True, slots=True)
class SharedPage:
    """What the page of a link shows. What may not be shown, or what it is not for, is empty.

    `entry` is the one file that the link is for; `folder` what is listed, below what the link is for.
    """

    kind: LinkKind
    title: str
    is_whole: bool
    has_password: bool
    expires_at: datetime | None
    as_of: datetime | None = None  # of what is described, where it is not as at present
    state: ArchiveState | None = None
    description: str = ""
    creators: tuple[Creator, ...] = ()
    subjects: tuple[str, ...] = ()
    publisher: str = ""
    licence: str = ""
    metadata: bytes | None = None
    entry: Entry | None = None
    folder: bytes = b""
    entries: EntryPage | None = None
    checksum_list: str = ""


class Visiting:
    """Every use case is closed to who has not the secret of a link that holds, and its password if it has one."""

    def __init__(self, archives: Archives) -> None:
        self._archives = archives
        self._ctx = archives.context

    def authenticate(self, secret: str, *, address: str = "") -> Actor:
        """Who bears this secret, of a link, a session or a token, and sends it from `address`.

        Raises what `Identity.authenticate` raises, and LinkAddressNeededError for a link that asks or counts.
        """
        if not secret.startswith(LINK_PREFIX):
            return self._ctx.identity.authenticate(secret, address=address)
        try:
            link, kept = self._find(secret)
        except LinkNotFoundError:
            raise BadCredentialsError("This link is not known, or it has ended.") from None
        is_plain = kept is None and link.download_limit is None and link.pinned_revision is None
        if not is_plain or link.kind is LinkKind.DROP:
            raise LinkAddressNeededError("This link has a password, a limit or a version, or is for dropping files.")
        self._admit(link)
        return _bearer(link)

    def show(self, visit: Visit, folder: bytes = b"", *, limit: int = 200, cursor: str | None = None) -> SharedPage:
        """What the link leads to, with a page of one folder where it may be read."""
        link, actor = self._enter(visit)
        if link.is_used_up:
            raise _gone()
        with self._ctx.db.begin() as tx:
            archive = load(tx, link.archive_id)
            told = archive.description
            if link.pinned_revision is not None:
                told = description_at(tx, archive, link.pinned_revision)
        is_whole, as_of = link.path == b"", None if link.pinned_revision is None else link.created_at
        page = SharedPage(
            kind=link.kind,
            title=told.title if is_whole else display_path(link.path.rpartition(b"/")[2]),
            is_whole=is_whole,
            has_password=link.has_password,
            expires_at=link.expires_at,
            as_of=as_of,
        )
        if link.kind is LinkKind.DROP:
            return replace(page, title=link.name)
        page = replace(page, state=archive.state, checksum_list=checksum_list_name(archive.profile.digests[0]))
        if is_whole:
            page = replace(page, description=told.description, subjects=told.subjects, licence=told.licence)
            said = self._archives.describing.read_metadata(actor, archive.id, as_of=as_of)
            page = replace(page, metadata=said.value)
        if is_whole and link.kind is not LinkKind.REVIEW:
            page = replace(page, creators=told.creators, publisher=told.publisher)
        if link.kind is LinkKind.METADATA:
            return page
        entry = self._find_own_file(link, actor)
        if entry is not None:
            return replace(page, entry=entry)
        place = _below(link, folder)
        found = self._archives.reading.list_entries(actor, archive.id, folder=place, cursor=cursor, limit=limit)
        return replace(page, folder=folder, entries=replace(found, items=[_as_seen(link, e) for e in found.items]))

    def give_pass(self, visit: Visit) -> str:
        """What shows for some hours that the visitor has the password; raises LinkPasswordError."""
        link, kept = self._find(visit.secret)
        self._require_password(link, kept, visit)
        return "" if kept is None else self._ctx.identity.seal_pass(str(link.id), kept, PASS_LIFETIME)

    def open_file(self, visit: Visit, path: bytes, *, goes_on: bool | None) -> Content:
        """A file's bytes. Unless `goes_on` is None this counts as a download, but for one that goes on."""
        link, actor = self._enter(visit)
        content = self._archives.reading.open_content(actor, link.archive_id, self._place_of_file(link, actor, path))
        if goes_on is not None:
            self._begin(link, b"file " + path, visit, goes_on=goes_on)
        return content

    def plan_download(self, visit: Visit, folder: bytes, form: Form, *, goes_on: bool | None) -> Download:
        """What the link is for, or a folder of it, packed; counted as in `open_file`."""
        link, actor = self._enter(visit)
        place = _below(link, folder)
        packed = self._archives.downloading.plan_download(actor, link.archive_id, [place] if place else [], form)
        if goes_on is not None:
            self._begin(link, form.encode() + b" " + folder, visit, goes_on=goes_on)
        return packed

    def iter_checksums(self, visit: Visit) -> tuple[str, Iterator[bytes]]:
        """The name of the list, and a line for each file as `sha512sum -c` reads it, by the paths seen here."""
        link, actor = self._enter(visit)
        if link.is_used_up:
            raise _gone()
        with self._ctx.db.begin() as tx:
            algorithm = load(tx, link.archive_id).profile.digests[0]
        own = self._find_own_file(link, actor)
        if own is None:
            self._archives.reading.list_entries(actor, link.archive_id, folder=link.path, recursive=True, limit=1)
        entries = iter([_as_seen(link, own)]) if own is not None else self._iter_entries(link, actor)
        lines = (
            checksum_line(to_manifest_entry(entry).digests[algorithm], entry.path)
            for entry in entries
            if entry.kind is EntryKind.FILE
        )
        return checksum_list_name(algorithm), lines

    def begin_drop(
        self, visit: Visit, path: bytes, size: int, *, stated_digests: Mapping[str, str] | None = None
    ) -> Drop:
        """Take a new file below the folder of a drop link; raises DropRefusedError for a name that cannot be used."""
        link, actor = self._enter(visit)
        place = self._free_place(link, path)
        with _telling_nothing():
            return Drop(
                self._archives.filling.begin_file(
                    actor, link.archive_id, place, size, stated_digests=stated_digests, replace=False
                )
            )

    def create_upload(self, visit: Visit, path: bytes, size: int, attributes: Attributes) -> UploadView:
        """As `begin_drop`, for an upload that goes on where it stopped."""
        link, actor = self._enter(visit)
        place = self._free_place(link, path)
        with _telling_nothing():
            filling = self._archives.filling
            return filling.create_upload(actor, link.archive_id, place, size, attributes, replace=False)

    def get_upload(self, visit: Visit, upload_id: UUID) -> UploadView:
        """How far an upload is that was begun by this link; raises UnknownUploadError."""
        return self._archives.filling.get_upload(self._dropper(visit), upload_id)

    def settle_upload(self, visit: Visit, upload_id: UUID) -> UploadView:
        """As `get_upload`, finished by this call where all of its bytes are there."""
        with _telling_nothing():
            return self._archives.filling.settle_upload(self._dropper(visit), upload_id)

    def open_upload(self, visit: Visit, upload_id: UUID, offset: int) -> DroppedUpload:
        """Go on with an upload that was begun by this link, at its durable offset."""
        with _telling_nothing():
            return DroppedUpload(self._archives.filling.open_upload(self._dropper(visit), upload_id, offset))

    def abort_upload(self, visit: Visit, upload_id: UUID) -> None:
        """End an upload that was begun by this link, and discard what came."""
        self._archives.filling.abort_upload(self._dropper(visit), upload_id)

    def _dropper(self, visit: Visit) -> Actor:
        link, actor = self._enter(visit, is_counted=False)
        if link.kind is not LinkKind.DROP:
            raise _gone()
        return actor

    def _free_place(self, link: Link, path: bytes) -> bytes:
        """Where a file is dropped; raises DropRefusedError when something is there, inherited things too."""
        if link.kind is not LinkKind.DROP:
            raise _gone()
        place = _below(link, path)
        try:
            self._archives.reading.stat(SYSTEM, link.archive_id, place)
        except EntryNotFoundError:
            return place
        raise _dropped_on()

    def _enter(self, visit: Visit, *, is_counted: bool = True) -> tuple[Link, Actor]:
        """The link and its bearer as an actor, counted as a use unless it goes on with one."""
        link, kept = self._find(visit.secret)
        self._require_password(link, kept, visit)
        self._admit(link, is_counted=is_counted)
        return link, _bearer(link)

    def _find(self, secret: str) -> tuple[Link, str | None]:
        """The link and what is kept of its password; raises LinkNotFoundError also when it has ended."""
        with self._ctx.db.begin() as tx:
            row = tx.execute(select(links).where(links.c.digest == digest_secret(secret))).first()
            if row is None or to_link(row).is_over(self._ctx.clock.now()):
                raise _gone()
            return to_link(row), row.password

    def _require_password(self, link: Link, kept: str | None, visit: Visit) -> None:
        if kept is None:
            return
        identity, name = self._ctx.identity, str(link.id)
        if visit.ticket is not None and identity.is_pass(name, kept, visit.ticket):
            return
        if visit.password is None:
            raise LinkPasswordError("The link has a password.")
        if not identity.open_lock(name, kept, visit.password, visit.address):
            raise LinkPasswordError("This is not the password of the link.")

    def _admit(self, link: Link, *, is_counted: bool = True) -> None:
        """Count a use, unless the archive's state keeps the link shut."""
        with self._ctx.db.begin() as tx:
            archive = load(tx, link.archive_id)
            if archive.state is ArchiveState.DISCARDED:
                raise _gone()
            if link.only_when_closed and archive.state in (ArchiveState.OPEN, ArchiveState.CLOSING):
                raise LinkNotYetError("The archive is still open.")
            if is_counted:
                count_use(tx, link.id, self._ctx.clock.now())

    def _begin(self, link: Link, what: bytes, visit: Visit, *, goes_on: bool) -> None:
        with self._ctx.db.begin() as tx:
            if not count_start(tx, link, what, visit.address, self._ctx.clock.now(), goes_on=goes_on):
                raise _gone()

    def _find_own_file(self, link: Link, actor: Actor) -> Entry | None:
        """The file that the link is for, None when it is for a folder or the whole."""
        if not link.path:
            return None
        entry = self._archives.reading.stat(actor, link.archive_id, link.path)
        return entry if entry.kind is EntryKind.FILE else None

    def _place_of_file(self, link: Link, actor: Actor, path: bytes) -> bytes:
        name = link.path.rpartition(b"/")[2]
        if path == name and self._find_own_file(link, actor) is not None:
            return link.path
        return _below(link, path)

    def _iter_entries(self, link: Link, actor: Actor) -> Iterator[Entry]:
        cursor: str | None = None
        while True:
            page = self._archives.reading.list_entries(
                actor, link.archive_id, folder=link.path, recursive=True, cursor=cursor, limit=MAX_PAGE
            )
            yield from (_as_seen(link, entry) for entry in page.items)
            cursor = page.next_cursor
            if cursor is None:
                return


class Drop:
    """A file on its way in. Whatever keeps it out is told in the same words."""

    def __init__(self, receiver: FileReceiver) -> None:
        self._receiver = receiver

    def write(self, data: Buffer) -> None:
        with _telling_nothing():
            self._receiver.write(data)

    def finish(self) -> Mapping[str, str]:
        """Keep the file and return its digests."""
        with _telling_nothing():
            return self._receiver.finish().digests

    def abort(self) -> None:
        self._receiver.abort()


class DroppedUpload:
    """A part of a file on its way in, told in the same words as a `Drop`."""

    def __init__(self, receiver: UploadReceiver) -> None:
        self._receiver = receiver

    def write(self, data: Buffer) -> None:
        with _telling_nothing():
            self._receiver.write(data)

    def hold(self) -> None:
        self._receiver.hold()

    def checkpoint(self) -> int:
        return self._receiver.checkpoint()

    def finish(self) -> Entry:
        with _telling_nothing():
            return self._receiver.finish()

    def close(self) -> None:
        self._receiver.close()


def _bearer(link: Link) -> Actor:
    return Actor(ActorKind.LINK, name="link", link=link.scope())


def _below(link: Link, path: bytes) -> bytes:
    """The path in the archive of what is at a path below what the link is for."""
    if path:
        check_path(path)
    whole = b"/".join(filter(None, (link.path, path)))
    if len(whole) > MAX_PATH_BYTES:  # nothing else can be wrong with it; where the folder is remains untold
        raise BadPathError("The path is too long here.", path=display_path(path[:200]))
    return whole


def _as_seen(link: Link, entry: Entry) -> Entry:
    """The entry with the path that the visitor sees."""
    if not link.path:
        return entry
    if entry.path == link.path:
        return entry._replace(path=link.path.rpartition(b"/")[2])
    return entry._replace(path=entry.path[len(link.path) + 1 :])


def _gone() -> LinkNotFoundError:
    return LinkNotFoundError("There is nothing at this address, or no longer.")


def _dropped_on() -> DropRefusedError:
    return DropRefusedError("The name cannot be used here.")


@contextmanager
def _telling_nothing() -> Iterator[None]:
    """Let no error tell a visitor what is there already, how much of it, where, or what became of the archive."""
    try:
        yield
    except DigestMismatchError as error:
        raise DigestMismatchError("What arrived is not what was stated.", digest=error.extra.get("digest")) from None
    except WrongSizeError as error:
        raise WrongSizeError("Not as many bytes came as were announced.", **error.extra) from None
    except (UploadBusyError, UploadEndedError, UploadOffsetError):  # of his own upload
        raise
    except (PathTakenError, RefusedItemError):
        raise _dropped_on() from None
    except NoRoomError:
        raise NoRoomError("There is no room for a file of this size.") from None
    except ConflictError:
        raise _gone() from None
