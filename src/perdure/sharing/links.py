"""Use cases of those who manage an archive: make links, list and revoke them."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection, insert, select, update

from perdure.archives import events as facts
from perdure.archives.errors import EntryNotFoundError
from perdure.archives.model import Archive, ArchiveState, EntryKind
from perdure.archives.placing import end_link_uploads
from perdure.archives.reading import Reading
from perdure.archives.records import Context, require_archive, require_state
from perdure.identity.callers import check_name
from perdure.identity.model import Action
from perdure.identity.secrets import digest_secret, new_secret
from perdure.kernel.actor import SYSTEM, Actor
from perdure.kernel.clock import format_time
from perdure.kernel.errors import BadInputError
from perdure.kernel.ids import new_id
from perdure.kernel.paths import check_path
from perdure.sharing.errors import LinkKindError, LinkNotFoundError, LinkTooWideError
from perdure.sharing.model import KIND_ACTIONS, Link, LinkKind, find_kind_problem
from perdure.sharing.rows import to_link, to_row
from perdure.sharing.storing import try_to_store
from perdure.sharing.tables import links

LINK_PREFIX = "pdl_"
_MOST_LISTED = 1000
_WRITERS_AT_ONCE = 2  # each holds a connection while storage takes another: more could exhaust the pool


@dataclass(frozen=True, slots=True)
class LinkRequest:
    """What a link shall be; see `Link`."""

    kind: LinkKind
    name: str
    path: bytes = b""
    expires_at: datetime | None = None
    password: str | None = field(default=None, repr=False)
    download_limit: int | None = None
    only_when_closed: bool = False
    is_pinned: bool = False


class Links:
    """Links of an archive, seen by who manages it."""

    def __init__(self, ctx: Context, reading: Reading) -> None:
        self._ctx = ctx
        self._reading = reading
        self._slots = threading.BoundedSemaphore(_WRITERS_AT_ONCE)

    def make_link(self, actor: Actor, archive_id: UUID, wanted: LinkRequest) -> tuple[str, Link]:
        """Make a link and return its secret, which is told this once, and what it is.

        Raises LinkTooWideError for what the actor may not do himself, PassingOnError for what he may not pass on or
        not for so long, LinkKindError, and EntryNotFoundError for a path with nothing at it; files may be dropped below
        a folder that is not there yet.
        """
        with self._ctx.db.begin() as tx:
            self._require_maker(tx, actor, archive_id, wanted)
        problem = find_kind_problem(
            wanted.kind,
            wanted.path,
            wanted.download_limit,
            only_when_closed=wanted.only_when_closed,
            is_pinned=wanted.is_pinned,
        )
        if problem:
            raise LinkKindError(f"It is of the kind {wanted.kind.value}: {problem}.", field="kind")
        if wanted.path:
            self._check_place(archive_id, wanted)
        kept = None if wanted.password is None else self._ctx.identity.make_lock(wanted.password)
        secret = new_secret(LINK_PREFIX)
        link = Link(
            id=new_id(),
            archive_id=archive_id,
            path=wanted.path,
            kind=wanted.kind,
            name=check_name(wanted.name, "name"),
            made_by=actor.identity_id,
            created_at=self._ctx.clock.now(),
            expires_at=self._check_end(wanted.expires_at),
            has_password=kept is not None,
            download_limit=wanted.download_limit,
            only_when_closed=wanted.only_when_closed,
            pinned_revision=None,
            revoked_at=None,
        )
        with self._ctx.db.begin() as tx:
            archive = self._require_maker(tx, actor, archive_id, wanted)
            if wanted.is_pinned:
                link = replace(link, pinned_revision=_find_version(archive, wanted.kind))
            tx.execute(insert(links).values(to_row(link, digest_secret(secret), kept)))
            self._ctx.events.record(tx, facts.LINK_MADE, archive_id, actor, _told(link))
        self._store(archive_id)
        return secret, link

    def list_links(self, actor: Actor, archive_id: UUID) -> list[Link]:
        """The links of an archive, newest first, ended ones too; for those who manage it."""
        query = select(links).where(links.c.archive_id == archive_id).order_by(links.c.id.desc()).limit(_MOST_LISTED)
        with self._ctx.db.begin() as tx:
            require_archive(tx, self._ctx, actor, Action.MANAGE, archive_id)
            return [to_link(row) for row in tx.execute(query)]

    def revoke_link(self, actor: Actor, archive_id: UUID, link_id: UUID) -> None:
        """End a link for ever; safe to call twice. Raises LinkNotFoundError when the archive has no such."""
        mine = (links.c.id == link_id) & (links.c.archive_id == archive_id)
        with self._ctx.db.begin() as tx:
            require_archive(tx, self._ctx, actor, Action.MANAGE, archive_id)
            row = tx.execute(select(links.c.revoked_at).where(mine).with_for_update()).first()
            if row is None:
                raise LinkNotFoundError("The archive has no such link.")
            if row.revoked_at is None:
                now = self._ctx.clock.now()
                tx.execute(update(links).where(mine).values(revoked_at=now, change=links.c.change + 1))
                end_link_uploads(tx, archive_id, link_id, now)
                self._ctx.events.record(tx, facts.LINK_REVOKED, archive_id, actor, {"link": str(link_id)})
        self._store(archive_id)

    def _store(self, archive_id: UUID) -> None:
        with self._slots:
            try_to_store(self._ctx, archive_id)

    def _require_maker(self, tx: Connection, actor: Actor, archive_id: UUID, wanted: LinkRequest) -> Archive:
        kind = wanted.kind
        archive = require_archive(tx, self._ctx, actor, Action.MANAGE, archive_id)
        self._ctx.identity.require_passing_on_in(tx, actor, archive.thing(), until=wanted.expires_at)
        missing = KIND_ACTIONS[kind] - self._ctx.identity.actions(tx, actor, archive.thing())
        if missing:
            said = ", ".join(sorted(missing))
            raise LinkTooWideError(f"You may not do this yourself with the archive: {said}.", missing=sorted(missing))
        takes = (ArchiveState.OPEN,) if kind is LinkKind.DROP else tuple(ArchiveState)[:3]
        require_state(archive, *takes)
        return archive

    def _check_place(self, archive_id: UUID, wanted: LinkRequest) -> None:
        check_path(wanted.path)
        try:
            entry = self._reading.stat(SYSTEM, archive_id, wanted.path)  # who may make the link may read it
        except EntryNotFoundError:
            if wanted.kind is LinkKind.DROP:
                return
            raise
        if wanted.kind is LinkKind.DROP and entry.kind is not EntryKind.DIRECTORY:
            raise LinkKindError("Files are dropped below a folder; this is none.", field="path")

    def _check_end(self, end: datetime | None) -> datetime | None:
        if end is not None and (end.tzinfo is None or end <= self._ctx.clock.now()):
            raise BadInputError("The link's end needs a time zone and lies in the future.", field="expires_at")
        return end


def _find_version(archive: Archive, kind: LinkKind) -> int:
    if kind is not LinkKind.METADATA and archive.state is not ArchiveState.CLOSED:
        raise LinkKindError("The files of an archive that is not closed still change.", field="pinned")
    return archive.revision


def list_links_made_by(tx: Connection, identity_id: UUID) -> list[dict[str, object]]:
    """The links that somebody made, oldest first, for his export."""
    rows = tx.execute(select(links).where(links.c.made_by == identity_id).order_by(links.c.id))
    return [
        {
            **_told(link),
            "name": link.name,
            "archive": str(link.archive_id),
            "created_at": format_time(link.created_at),
            "is_revoked": link.revoked_at is not None,
        }
        for link in map(to_link, rows)
    ]


def _told(link: Link) -> dict[str, object]:
    return {
        "link": str(link.id),
        "kind": link.kind.value,
        "of_part": link.path != b"",
        "expires_at": format_time(link.expires_at) if link.expires_at else None,
        "has_password": link.has_password,
        "download_limit": link.download_limit,
        "only_when_closed": link.only_when_closed,
        "pinned_revision": link.pinned_revision,
    }
