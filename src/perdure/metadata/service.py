"""Typed metadata of things and of the files in them: a mechanism; whoever calls has checked the rights.

A *subject* is a thing (an archive) and a path in it, the empty path for the thing itself. Every function works in the
caller's transaction. Writers of one thing wait for each other until their transactions end, so that none loses a
change of another.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import cast
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Row, Select, delete, func, select

from perdure.kernel.actor import Actor
from perdure.metadata.errors import BrokenHistoryError, NoSuchValueError, RevisionMismatchError
from perdure.metadata.history import (
    CHAIN_START,
    Change,
    digest_leaves,
    line_to_change,
    parse_changes,
    snapshot_line,
)
from perdure.metadata.ledger import Ledger, SubjectState, load_subjects, lock_state
from perdure.metadata.model import (
    Value,
    fold,
    format_pointer,
    iter_parents,
    parse_leaf,
    parse_pointer,
    render,
    unescape,
)
from perdure.metadata.nodes import LeafChange, Nodes, assemble, list_texts
from perdure.metadata.patches import (
    WHOLE,
    MergePatch,
    Needs,
    Patch,
    PatchForm,
    needs_of_changes,
    parse_patch,
    plan_changes,
    plan_needs,
)
from perdure.metadata.rows import in_batches, load_nodes, path_key
from perdure.metadata.tables import changes as change_rows
from perdure.metadata.tables import states, subjects, values

SUBJECTS_AT_ONCE = 500
CHANGES_AT_ONCE = 1000
COPIED_BYTES_AT_ONCE = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Document:
    """Metadata as JSON text; revision 0 where there never were any.

    `digest` (see `history`) is None for a part of a large subject, and where there are no metadata.
    """

    value: bytes
    revision: int
    digest: str | None
    changed_at: datetime | None


@dataclass(frozen=True, slots=True)
class PatchItem:
    """One subject's patch; with `expected_revision` it applies only to that revision (0: no metadata ever)."""

    path: bytes
    patch: bytes
    form: PatchForm = "merge"
    expected_revision: int | None = None


@dataclass(frozen=True, slots=True)
class ChangeResult:
    """The subject after a patch; `changes` is empty when it changed nothing. `sequence` is the thing's."""

    path: bytes
    revision: int
    sequence: int
    changes: tuple[LeafChange, ...]
    digest: str | None


@dataclass(frozen=True, slots=True)
class State:
    """The end of a thing's history; sequence 0 and 128 zeros where there is none."""

    sequence: int
    chain_digest: str
    changed_at: datetime | None


@dataclass(frozen=True, slots=True)
class SubjectDigest:
    """The digest of a subject's present metadata and the sequence of its last change."""

    digest: str
    sequence: int


class Metadata:
    """Reads, patches, exports and restores metadata."""

    def read(
        self, tx: Connection, thing: UUID, path: bytes = b"", *, pointer: str = "", as_of: datetime | None = None
    ) -> Document:
        """The document of a subject or the part at `pointer`, as it is or as it was at `as_of`.

        Members keep their order; in the past, members that were removed since come last. Raises NoSuchValueError for
        a pointer to nothing; a subject without metadata is the empty object.
        """
        tokens = parse_pointer(pointer)
        pointer = format_pointer(tokens)
        if as_of is not None:
            return self._read_past(tx, thing, path, tokens, as_of)
        needs = Needs(frozenset(iter_parents(pointer)), frozenset({pointer}))
        subject, nodes = _load_together(tx, thing, path, needs)
        digest = subject.digest
        if not pointer and digest is None and subject.leaves:
            digest = digest_leaves(path, _leaves_of(nodes))
        text = render(_descend(assemble(nodes), tokens)).encode()
        return Document(text, subject.revision, digest, subject.changed_at if subject.revision else None)

    def patch(
        self,
        tx: Connection,
        thing: UUID,
        path: bytes,
        patch: bytes,
        *,
        form: PatchForm = "merge",
        actor: Actor,
        now: datetime,
        expected_revision: int | None = None,
    ) -> ChangeResult:
        """Apply a JSON Merge Patch or a JSON Patch, whole or not at all; one that changes nothing writes nothing.

        Raises BadMetadataError, RevisionMismatchError, PatchTestFailedError and PatchDoesNotFitError.
        """
        item = PatchItem(path, patch, form, expected_revision)
        return self.patch_many(tx, thing, [item], actor=actor, now=now)[0]

    def patch_many(
        self, tx: Connection, thing: UUID, items: Iterable[PatchItem], *, actor: Actor, now: datetime
    ) -> list[ChangeResult]:
        """Apply many patches, in order, in one go: all or none, as the caller's transaction commits or not."""
        results: list[ChangeResult] = []
        for batch in _distinct_batches(items):
            patches = [(item, parse_patch(item.patch, item.form)) for item in batch]
            results += self._apply(tx, thing, patches, actor=actor, now=now)
        return results

    def drop_values(
        self, tx: Connection, thing: UUID, paths: Iterable[bytes], *, actor: Actor, now: datetime
    ) -> list[ChangeResult]:
        """Remove all metadata of files, as a recorded change each; those without metadata are passed over."""
        results: list[ChangeResult] = []
        for batch in in_batches(sorted(set(paths)), SUBJECTS_AT_ONCE):
            ledger = Ledger(tx, thing, dict.fromkeys(batch, WHOLE))
            removed = {path: _removals(nodes) for path, nodes in ledger.nodes.items() if nodes and nodes[""].members}
            for path, leaf_changes in removed.items():
                ledger.record(path, leaf_changes, actor=actor, now=now)
            ledger.flush()
            results += [_result(ledger, path, leaf_changes) for path, leaf_changes in removed.items()]
        return results

    def paths(self, tx: Connection, thing: UUID) -> list[bytes]:
        """The paths of all subjects that have metadata."""
        described = select(subjects.c.path).where(subjects.c.thing == thing, subjects.c.leaves > 0)
        return list(tx.execute(described.order_by(subjects.c.path)).scalars())

    def copy(
        self, tx: Connection, source: UUID, target: UUID, *, actor: Actor, now: datetime, with_files: bool = False
    ) -> int:
        """Merge the present metadata of one thing into another, by value; with the files' too if so told.

        The changes are recorded as the target's own. Returns the number of subjects.
        """
        for thing in sorted((source, target)):  # in one order, so that two copies never wait for each other
            lock_state(tx, thing)
        copied = 0
        for paths in self._batches_to_copy(tx, source, with_files=with_files):
            found = load_nodes(tx, source, dict.fromkeys(paths, WHOLE))
            patches: list[tuple[PatchItem, Patch]] = [
                (PatchItem(path, b""), MergePatch(assemble(found[path]))) for path in paths
            ]
            self._apply(tx, target, patches, actor=actor, now=now)
            copied += len(paths)
        return copied

    def history(
        self, tx: Connection, thing: UUID, path: bytes | None = None, *, after_sequence: int = 0, limit: int = 100
    ) -> list[Change]:
        """The changes in order, of one subject or (None) of all."""
        return list(map(_to_change, tx.execute(_changes_after(thing, path, after_sequence).limit(limit))))

    def iter_changes(self, tx: Connection, thing: UUID, after_sequence: int = 0) -> Iterator[Change]:
        """Every change after one, in order, without holding them all."""
        statement = _changes_after(thing, None, after_sequence)
        yield from map(_to_change, tx.execute(statement, execution_options={"yield_per": CHANGES_AT_ONCE}))

    def state(self, tx: Connection, thing: UUID) -> State:
        """Where the thing's history stands."""
        row = tx.execute(select(states).where(states.c.thing == thing)).one_or_none()
        if row is None:
            return State(0, CHAIN_START, None)
        return State(row.sequence, row.chain_digest, row.changed_at)

    def iter_snapshot_lines(self, tx: Connection, thing: UUID, path: bytes | None = None) -> Iterator[bytes]:
        """Every present leaf as a canonical line, sorted by the bytes of path and pointer; of one subject or of all."""
        for row in tx.execute(_leaves_in_order(thing, path), execution_options={"yield_per": CHANGES_AT_ONCE}):
            yield snapshot_line(row.path, row.long_pointer or row.pointer_key.decode(), row.value)

    def digests(self, tx: Connection, thing: UUID, paths: Iterable[bytes] | None = None) -> dict[bytes, SubjectDigest]:
        """The digest and last sequence of each named subject that has metadata, of all when None."""
        found = (_with_digest(tx, thing, subject) for subject in self._subjects_with_values(tx, thing, paths))
        return {s.path: SubjectDigest(s.digest, s.sequence) for s in found if s.digest}

    def restore(self, tx: Connection, thing: UUID, lines: Iterable[bytes]) -> State:
        """Rebuild the rows from the lines of an exported history, in order from the first or from where it stands.

        Lines that are here already are compared, so it may be called again; so are lines that come twice, as a process
        leaves them that ended after it wrote them. Raises BrokenHistoryError when a line does not follow from the one
        before it or does not fit the values.
        """
        for batch in in_batches(map(line_to_change, lines), CHANGES_AT_ONCE):
            self._restore_batch(tx, thing, batch)
        return self.state(tx, thing)

    def remove(self, tx: Connection, thing: UUID) -> None:
        """Forget a discarded thing's metadata with their history."""
        for table in (values, change_rows, subjects, states):
            tx.execute(delete(table).where(table.c.thing == thing))

    def find_things(self, text: str, *, with_files: bool = True) -> Select[tuple[UUID]]:
        """A subquery of the things with `text` in any name or value of their metadata, in whatever case.

        Without files only what is said of the thing itself counts.
        """
        found = select(values.c.thing).where(matching(values.c.folded, text)).distinct()
        return found if with_files else found.where(values.c.path_key == path_key(b""))

    def _apply(
        self, tx: Connection, thing: UUID, patches: Sequence[tuple[PatchItem, Patch]], *, actor: Actor, now: datetime
    ) -> list[ChangeResult]:
        ledger = Ledger(tx, thing, {item.path: plan_needs(patch) for item, patch in patches})
        planned: list[tuple[bytes, list[LeafChange]]] = []
        for item, patch in patches:
            _require_revision(ledger.subjects[item.path], item.expected_revision)
            leaf_changes = plan_changes(ledger.nodes[item.path], patch)
            if leaf_changes:
                ledger.record(item.path, leaf_changes, actor=actor, now=now)
            planned.append((item.path, leaf_changes))
        ledger.flush()
        return [_result(ledger, path, leaf_changes) for path, leaf_changes in planned]

    def _read_past(self, tx: Connection, thing: UUID, path: bytes, tokens: Sequence[str], as_of: datetime) -> Document:
        leaves = dict(list_texts(load_nodes(tx, thing, {path: WHOLE})[path]))
        of_subject = (change_rows.c.thing == thing, change_rows.c.path_key == path_key(path))
        later = _changes_of(thing, path).where(change_rows.c.at > as_of).order_by(change_rows.c.sequence.desc())
        for row in tx.execute(later, execution_options={"yield_per": CHANGES_AT_ONCE}):
            _undo(leaves, parse_changes(row.changes))
        last = tx.execute(
            select(func.max(change_rows.c.revision), func.max(change_rows.c.at)).where(
                *of_subject, change_rows.c.at <= as_of
            )
        ).one()
        digest = digest_leaves(path, leaves.items()) if leaves and not tokens else None
        text = render(_descend(_build(leaves), tokens)).encode()
        return Document(text, last[0] or 0, digest, last[1])

    def _batches_to_copy(self, tx: Connection, source: UUID, *, with_files: bool) -> Iterator[list[bytes]]:
        batch: list[bytes] = []
        size = 0
        for subject in self._subjects_with_values(tx, source, None if with_files else [b""]):
            batch.append(subject.path)
            size += subject.size
            if size >= COPIED_BYTES_AT_ONCE or len(batch) >= SUBJECTS_AT_ONCE:
                yield batch
                batch, size = [], 0
        if batch:
            yield batch

    def _subjects_with_values(self, tx: Connection, thing: UUID, paths: Iterable[bytes] | None) -> list[SubjectState]:
        if paths is not None:
            return [subject for subject in load_subjects(tx, thing, paths).values() if subject.leaves]
        rows = tx.execute(
            select(subjects).where(subjects.c.thing == thing, subjects.c.leaves > 0).order_by(subjects.c.path)
        )
        return [SubjectState(r.path, r.revision, r.sequence, r.changed_at, r.leaves, r.size, r.digest) for r in rows]

    def _restore_batch(self, tx: Connection, thing: UUID, batch: Sequence[Change]) -> None:
        sequence, _, _ = lock_state(tx, thing)
        self._compare_known(tx, thing, [change for change in batch if change.sequence <= sequence])
        fresh = _each_once(change for change in batch if change.sequence > sequence)
        leaf_changes: dict[bytes, list[LeafChange]] = {}
        for change in fresh:
            leaf_changes.setdefault(change.path, []).extend(change.changes)
        needs = {path: needs_of_changes(iter(changes)) for path, changes in leaf_changes.items()}
        ledger = Ledger(tx, thing, needs)
        for change in fresh:
            ledger.replay(change)
        ledger.flush()

    def _compare_known(self, tx: Connection, thing: UUID, known: Sequence[Change]) -> None:
        wanted = [change.sequence for change in known]
        query = select(change_rows).where(change_rows.c.thing == thing, change_rows.c.sequence.in_(wanted))
        present = {row.sequence: _to_change(row) for row in tx.execute(query)} if wanted else {}
        for change in known:
            if present.get(change.sequence) != change:
                raise _different(change)


def matching(column: ColumnElement[str], text: str) -> ColumnElement[bool]:
    """Whether a folded column contains the text, whatever its case; `%` and `_` mean themselves."""
    return column.contains(fold(text), autoescape=True)


def _distinct_batches(items: Iterable[PatchItem]) -> Iterator[list[PatchItem]]:
    """Batches in which no subject is twice: a later patch of it must see the earlier one's outcome."""
    batch: dict[bytes, PatchItem] = {}
    for item in items:
        if item.path in batch or len(batch) >= SUBJECTS_AT_ONCE:
            yield list(batch.values())
            batch = {}
        batch[item.path] = item
    if batch:
        yield list(batch.values())


def _require_revision(subject: SubjectState, expected: int | None) -> None:
    if expected is not None and expected != subject.revision:
        raise RevisionMismatchError(
            f"The metadata have revision {subject.revision}, not {expected}.",
            revision=subject.revision,
            expected_revision=expected,
        )


def _load_together(tx: Connection, thing: UUID, path: bytes, needs: Needs) -> tuple[SubjectState, Nodes]:
    """The state and the values of one subject that belong together, though a writer commits between two queries."""
    subject = load_subjects(tx, thing, [path])[path]
    while True:
        nodes = load_nodes(tx, thing, {path: needs})[path]
        present = load_subjects(tx, thing, [path])[path]
        if present.revision == subject.revision:
            return subject, nodes
        subject = present


def _with_digest(tx: Connection, thing: UUID, subject: SubjectState) -> SubjectState:
    if subject.digest is None and subject.leaves:
        subject, nodes = _load_together(tx, thing, subject.path, WHOLE)
        subject.digest = digest_leaves(subject.path, _leaves_of(nodes)) if subject.leaves else None
    return subject


def _result(ledger: Ledger, path: bytes, leaf_changes: Sequence[LeafChange]) -> ChangeResult:
    subject = ledger.subjects[path]
    return ChangeResult(path, subject.revision, subject.sequence, tuple(leaf_changes), subject.digest)


def _leaves_of(nodes: Nodes) -> list[tuple[str, str]]:
    return [(pointer, node.value) for pointer, node in nodes.items() if node.value is not None]


def _removals(nodes: Nodes) -> list[LeafChange]:
    return [LeafChange(pointer, text, None) for pointer, text in _leaves_of(nodes)]


def _descend(document: Value, tokens: Sequence[str]) -> Value:
    value = document
    for token in tokens:
        if isinstance(value, dict) and token in value:
            value = value[token]
        elif isinstance(value, list) and token.isascii() and token.isdigit() and token in map(str, range(len(value))):
            value = value[int(token)]
        else:
            pointer = format_pointer(tokens)
            raise NoSuchValueError(f"There is no value at {pointer!r}.", pointer=pointer)
    return value


def _undo(leaves: dict[str, str], leaf_changes: Sequence[LeafChange]) -> None:
    for change in leaf_changes:
        if change.before is None:
            leaves.pop(change.pointer, None)
        else:
            leaves[change.pointer] = change.before


def _build(leaves: dict[str, str]) -> Value:
    document: dict[str, Value] = {}
    for pointer, text in leaves.items():
        *above, last = map(unescape, pointer.split("/")[1:])
        owner = document
        for name in above:
            owner = cast("dict[str, Value]", owner.setdefault(name, {}))  # leaves never stand above leaves
        owner[last] = parse_leaf(text)
    return document


def _changes_of(thing: UUID, path: bytes | None) -> Select[tuple[object, ...]]:
    query = select(change_rows).where(change_rows.c.thing == thing)
    return query if path is None else query.where(change_rows.c.path_key == path_key(path))


def _changes_after(thing: UUID, path: bytes | None, after_sequence: int) -> Select[tuple[object, ...]]:
    return _changes_of(thing, path).where(change_rows.c.sequence > after_sequence).order_by(change_rows.c.sequence)


def _leaves_in_order(thing: UUID, path: bytes | None) -> Select[tuple[object, ...]]:
    whole_pointer = func.coalesce(func.convert_to(values.c.long_pointer, "UTF8"), values.c.pointer_key)
    query = (
        select(subjects.c.path, values.c.pointer_key, values.c.long_pointer, values.c.value)
        .join(values, (values.c.thing == subjects.c.thing) & (values.c.path_key == subjects.c.path_key))
        .where(subjects.c.thing == thing, values.c.value.is_not(None))
        .order_by(subjects.c.path, whole_pointer)
    )
    return query if path is None else query.where(subjects.c.path_key == path_key(path))


def _each_once(given: Iterable[Change]) -> list[Change]:
    """The changes without those that come again; raises BrokenHistoryError for two of one number that differ."""
    found: dict[int, Change] = {}
    for change in given:
        if found.setdefault(change.sequence, change) != change:
            raise _different(change)
    return list(found.values())


def _different(change: Change) -> BrokenHistoryError:
    return BrokenHistoryError(f"Change {change.sequence} differs from the one that is kept.", sequence=change.sequence)


def _to_change(row: Row[tuple[object, ...]]) -> Change:
    return Change(
        thing=row.thing,
        sequence=row.sequence,
        path=row.path,
        revision=row.revision,
        at=row.at,
        actor_id=row.actor_id,
        actor_name=row.actor_name,
        changes=parse_changes(row.changes),
        digest=row.digest,
    )
