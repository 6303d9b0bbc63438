"""Writing changes: one lock per thing, one sequence, one chain; values, history and state in one transaction."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy import Connection, select, update
from sqlalchemy.dialects.postgresql import insert

from perdure.kernel.actor import Actor
from perdure.metadata.errors import BrokenHistoryError
from perdure.metadata.history import CHAIN_START, Change, digest_leaves, render_changes, require_chain, seal
from perdure.metadata.nodes import LeafChange, Nodes, apply_changes, copy_nodes
from perdure.metadata.patches import WHOLE, Needs
from perdure.metadata.rows import in_batches, load_nodes, path_key, save_nodes
from perdure.metadata.tables import changes as change_rows
from perdure.metadata.tables import states, subjects

EAGER_DIGEST_BYTES = 64 * 1024  # the digest of a larger subject is computed when it is asked for
MAX_CHANGE_CHARACTERS = 32 * 1024 * 1024  # one row of the history; PostgreSQL's limit is 1 GiB
_EMPTY = Needs(frozenset({""}), frozenset())
_BEGINNING = datetime.min.replace(tzinfo=UTC)


@dataclass(slots=True)
class SubjectState:
    """The row of a subject as it will be written."""

    path: bytes
    revision: int = 0
    sequence: int = 0
    changed_at: datetime = _BEGINNING
    leaves: int = 0
    size: int = 0
    digest: str | None = None


def lock_state(tx: Connection, thing: UUID) -> tuple[int, str, datetime]:
    """Take the thing's lock until the transaction ends; its sequence, its chain's digest, when it last changed."""
    query = select(states.c.sequence, states.c.chain_digest, states.c.changed_at).where(states.c.thing == thing)
    row = tx.execute(query.with_for_update()).one_or_none()
    if row is None:
        fresh = insert(states).values(thing=thing, sequence=0, chain_digest=CHAIN_START)
        tx.execute(fresh.on_conflict_do_nothing())
        row = tx.execute(query.with_for_update()).one()
    return row.sequence, row.chain_digest, row.changed_at or _BEGINNING


def load_subjects(tx: Connection, thing: UUID, paths: Iterable[bytes]) -> dict[bytes, SubjectState]:
    """The state of each subject, a fresh one where there is none."""
    found: dict[bytes, SubjectState] = {}
    for batch in in_batches(paths):
        keys = [path_key(path) for path in batch]
        found |= {path: SubjectState(path) for path in batch}
        for row in tx.execute(select(subjects).where(subjects.c.thing == thing, subjects.c.path_key.in_(keys))):
            found[row.path] = SubjectState(
                row.path, row.revision, row.sequence, row.changed_at, row.leaves, row.size, row.digest
            )
    return found


class Ledger:
    """A batch of changes to one thing: locked at the start, recorded one by one, written by `flush`."""

    def __init__(self, tx: Connection, thing: UUID, needs: Mapping[bytes, Needs]) -> None:
        self._tx = tx
        self._thing = thing
        self.sequence, self.chain_digest, self._changed_at = lock_state(tx, thing)
        self.subjects = load_subjects(tx, thing, needs)
        self.nodes = load_nodes(tx, thing, {path: self._existing(path, need) for path, need in needs.items()})
        self._before: dict[bytes, Nodes] = {path: copy_nodes(nodes) for path, nodes in self.nodes.items()}
        self._recorded: list[Change] = []

    def record(self, path: bytes, leaf_changes: Sequence[LeafChange], *, actor: Actor, now: datetime) -> None:
        """Take note of changes of one subject by one act; a very large one becomes several changes of one time."""
        at = max(now, self._changed_at)
        for part in _slices(leaf_changes):
            change = Change(
                thing=self._thing,
                sequence=self.sequence + 1,
                path=path,
                revision=self.subjects[path].revision + 1,
                at=at,
                actor_id=actor.identity_id,
                actor_name=actor.name,
                changes=tuple(part),
                digest="",
            )
            self._take(seal(change, self.chain_digest))

    def replay(self, change: Change) -> None:
        """Take a change from an exported history; raises BrokenHistoryError unless it follows and fits."""
        require_chain(change, self.chain_digest)
        subject = self.subjects[change.path]
        if (change.thing, change.sequence, change.revision) != (self._thing, self.sequence + 1, subject.revision + 1):
            raise BrokenHistoryError(f"Change {change.sequence} is not the next one.", sequence=change.sequence)
        self._take(change)

    def flush(self) -> None:
        """Write what was recorded."""
        if not self._recorded:
            return
        touched = {change.path for change in self._recorded}
        after = {path: self.nodes[path] for path in sorted(touched)}
        save_nodes(self._tx, self._thing, self._before, after)
        self._compute_digests(touched)
        self._write_changes()
        self._write_subjects(touched)
        self._write_state()
        self._before |= {path: copy_nodes(nodes) for path, nodes in after.items()}
        self._recorded = []

    def _existing(self, path: bytes, need: Needs) -> Needs:
        return need if self.subjects[path].leaves else _EMPTY  # a first load asks for nothing that cannot be there

    def _take(self, change: Change) -> None:
        apply_changes(self.nodes[change.path], change.changes)
        subject = self.subjects[change.path]
        for leaf in change.changes:
            subject.leaves += (leaf.after is not None) - (leaf.before is not None)
            subject.size += _size(leaf.pointer, leaf.after) - _size(leaf.pointer, leaf.before)
        subject.revision, subject.sequence, subject.changed_at = change.revision, change.sequence, change.at
        self.sequence, self.chain_digest, self._changed_at = change.sequence, change.digest, change.at
        self._recorded.append(change)

    def _compute_digests(self, touched: Iterable[bytes]) -> None:
        small = []
        for path in touched:
            subject = self.subjects[path]
            subject.digest = None
            if subject.leaves and subject.size <= EAGER_DIGEST_BYTES:
                small.append(path)
        for path, nodes in load_nodes(self._tx, self._thing, dict.fromkeys(small, WHOLE)).items():
            leaves = ((pointer, node.value) for pointer, node in nodes.items() if node.value is not None)
            self.subjects[path].digest = digest_leaves(path, leaves)

    def _write_changes(self) -> None:
        self._tx.execute(
            insert(change_rows),
            [
                {
                    "thing": change.thing,
                    "sequence": change.sequence,
                    "path_key": path_key(change.path),
                    "path": change.path,
                    "revision": change.revision,
                    "at": change.at,
                    "actor_id": change.actor_id,
                    "actor_name": change.actor_name,
                    "changes": render_changes(change.changes),
                    "digest": change.digest,
                }
                for change in self._recorded
            ],
        )

    def _write_subjects(self, touched: Iterable[bytes]) -> None:
        fresh = insert(subjects)
        columns = ("revision", "sequence", "changed_at", "leaves", "size", "digest")
        rows = [
            {"thing": self._thing, "path_key": path_key(path), "path": path}
            | {name: getattr(self.subjects[path], name) for name in columns}
            for path in sorted(touched)
        ]
        self._tx.execute(
            fresh.on_conflict_do_update(
                index_elements=["thing", "path_key"], set_={name: fresh.excluded[name] for name in columns}
            ),
            rows,
        )

    def _write_state(self) -> None:
        self._tx.execute(
            update(states)
            .where(states.c.thing == self._thing)
            .values(sequence=self.sequence, chain_digest=self.chain_digest, changed_at=self._changed_at)
        )


def _size(pointer: str, text: str | None) -> int:
    return 0 if text is None else len(pointer.encode()) + len(text.encode())


def _slices(leaf_changes: Sequence[LeafChange]) -> Iterator[list[LeafChange]]:
    part: list[LeafChange] = []
    size = 0
    for change in leaf_changes:
        part.append(change)
        size += len(change.pointer) + len(change.before or "") + len(change.after or "")
        if size >= MAX_CHANGE_CHARACTERS:
            yield part
            part, size = [], 0
    if part:
        yield part
