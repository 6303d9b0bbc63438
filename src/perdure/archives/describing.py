"""Metadata of archives and of the files in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection, update

from perdure.archives import events
from perdure.archives.entries import find_visible
from perdure.archives.errors import EntryNotFoundError
from perdure.archives.layers import list_layers
from perdure.archives.model import ArchiveState
from perdure.archives.records import Context, require_archive, require_state
from perdure.archives.tables import archives
from perdure.identity.model import Action
from perdure.kernel.actor import Actor, without_name
from perdure.kernel.ids import short_form
from perdure.kernel.paths import check_path, display_path
from perdure.metadata.history import Change
from perdure.metadata.patches import PatchForm
from perdure.metadata.service import ChangeResult, Document

MAX_HISTORY = 1000
_DESCRIBED = (ArchiveState.OPEN, ArchiveState.CLOSING, ArchiveState.CLOSED)


class Describing:
    """Reads and patches metadata, in every state that has content to describe."""

    def __init__(self, context: Context) -> None:
        self._ctx = context

    def read_metadata(
        self, actor: Actor, archive_id: UUID, path: bytes = b"", *, pointer: str = "", as_of: datetime | None = None
    ) -> Document:
        """The metadata of the archive (no path) or of a file, now or as of a time; or the part at a JSON pointer."""
        with self._ctx.db.begin() as tx:
            require_archive(tx, self._ctx, actor, _reading(path), archive_id, path=path)
            if as_of is None:
                self._require_entry(tx, archive_id, path)
            return self._ctx.metadata.read(tx, archive_id, path, pointer=pointer, as_of=as_of)

    def patch_metadata(
        self,
        actor: Actor,
        archive_id: UUID,
        path: bytes,
        patch: bytes,
        *,
        form: PatchForm = "merge",
        expected_revision: int | None = None,
    ) -> ChangeResult:
        """Apply a JSON merge patch or JSON Patch, whole or not at all; acknowledged when it is safe in the journal.

        Metadata of a file of an ancestor belong to this archive, not to the ancestor.
        """
        with self._ctx.changing(archive_id) as tx:
            archive = require_archive(tx, self._ctx, actor, Action.DESCRIBE, archive_id, lock=True)
            if path:
                self._ctx.identity.require(tx, actor, Action.READ, archive.thing())
            require_state(archive, *_DESCRIBED)
            self._require_entry(tx, archive_id, path)
            result = self._ctx.metadata.patch(
                tx,
                archive_id,
                path,
                patch,
                form=form,
                actor=without_name(actor),
                now=self._ctx.clock.now(),
                expected_revision=expected_revision,
            )
            if result.changes:
                self._note_change(tx, actor, archive_id, result)
        return result

    def metadata_history(
        self, actor: Actor, archive_id: UUID, path: bytes | None = None, *, after: int = 0, limit: int = 100
    ) -> Sequence[Change]:
        """The changes in order, of the archive (empty path), of one file, or of all (None).

        Names of persons are told to those who are logged in, as everywhere.
        """
        with self._ctx.db.begin() as tx:
            require_archive(tx, self._ctx, actor, _reading(path), archive_id)
            found = self._ctx.metadata.history(
                tx, archive_id, path, after_sequence=after, limit=max(1, min(limit, MAX_HISTORY))
            )
        names = self._ctx.identity.find_names(actor, {one.actor_id for one in found if one.actor_id})
        return [one if one.actor_id is None else replace(one, actor_name=names.get(one.actor_id, "")) for one in found]

    def _require_entry(self, tx: Connection, archive_id: UUID, path: bytes) -> None:
        if path and check_path(path) not in find_visible(tx, list_layers(tx, archive_id), [path]):
            raise EntryNotFoundError(
                f"The archive {short_form(archive_id)} has nothing at {display_path(path)!r}.", path=display_path(path)
            )

    def _note_change(self, tx: Connection, actor: Actor, archive_id: UUID, result: ChangeResult) -> None:
        note_metadata(tx, self._ctx, archive_id, result.sequence)
        data = {
            "sequence": result.sequence,
            "revision": result.revision,
            "pointers": len(result.changes),
            "digest": result.digest,
            "of_file": bool(result.path),
        }
        self._ctx.events.record(tx, events.METADATA_CHANGED, archive_id, actor, data)


def _reading(path: bytes | None) -> Action:
    """What is said of a file tells of the file: it is for those who may read the listing."""
    return Action.SEE if path == b"" else Action.READ


def note_metadata(tx: Connection, ctx: Context, archive_id: UUID, sequence: int) -> None:
    """Note that the archive's metadata has a change that journal and head still lack."""
    marks = {"metadata_sequence": sequence, "changed_at": ctx.clock.now()}
    tx.execute(update(archives).where(archives.c.id == archive_id).values(**marks))
