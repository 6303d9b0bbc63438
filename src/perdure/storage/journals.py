"""An archive's journal, kept in every store: the primary is written first, the others follow as they can."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

import structlog

from perdure.storage.crash_points import crash_point
from perdure.storage.errors import OUT, JournalDamagedError
from perdure.storage.model import JournalRead
from perdure.storage.ports import Store

log = structlog.get_logger(__name__)


def append(stores: Sequence[Store], archive_id: UUID, lines: list[bytes]) -> None:
    """Append lines (no newline in them) durably in the first of the stores, and in all of the others that are up."""
    name = _name_of(archive_id)
    stores[0].append_log(name, lines, durable=True)
    crash_point("journal.appended")
    for store in stores[1:]:
        _follow(stores[0], store, name)


def read(stores: Sequence[Store], archive_id: UUID) -> JournalRead:
    """Every whole line, from the first of the stores or else from the one that has most; see `Storage.read_journal`."""
    name = _name_of(archive_id)
    found: dict[str, JournalRead] = {}
    failures: dict[str, JournalDamagedError] = {}
    for store in stores:
        try:
            found[store.info.name] = one = store.read_log(name)
        except JournalDamagedError as error:
            failures[store.info.name] = error
            continue
        if store is stores[0] and one.lines and not one.torn:
            return one
    best = max(found.values(), key=lambda one: len(one.lines), default=JournalRead([]))
    for failure in failures.values():
        if not best.lines or len(best.lines) < failure.whole_lines:
            raise failure
    damaged = {place: failure.detail for place, failure in failures.items()}
    for place, one in found.items():
        if one.torn and len(one.lines) < len(best.lines):  # the primary is written first: it had these lines, too
            damaged[place] = f"It ends in {len(one.torn)} bytes that are no line, after {len(one.lines)} whole lines."
    return replace(best, damaged=damaged)


def reset(stores: Sequence[Store], archive_id: UUID, keep: list[bytes]) -> None:
    """Replace the journal by the lines that it is to keep, in one durable step in each store, the first store last."""
    for store in reversed(stores):
        try:
            store.replace_log(_name_of(archive_id), keep)
        except OUT:
            if store is stores[0]:
                raise


def discard(stores: Sequence[Store], archive_id: UUID) -> None:
    """Empty it in every store; raises what the first of them raises."""
    for store in stores:
        store.replace_log(_name_of(archive_id), [])


def _follow(primary: Store, store: Store, name: str) -> None:
    """Give another store the lines it lacks; one that is out gets them with a later append.

    The primary has all of them, so a damaged journal of another store is kept aside there and written anew.
    """
    try:
        lines = primary.read_log(name).lines
        have = _read_follower(store, name)
        if have is not None and lines[: len(have)] == have:
            store.append_log(name, lines[len(have) :], durable=True)
        else:
            store.replace_log(name, lines)
    except OUT as error:
        log.warning("journal_behind", store=store.name, journal=name, error=error.detail)


def _read_follower(store: Store, name: str) -> list[bytes] | None:
    """The lines that a store other than the primary has, or None when its journal is damaged."""
    try:
        return store.read_log(name).lines
    except JournalDamagedError as error:
        log.error("journal_damaged", store=store.name, journal=name, error=error.detail)
        return None


def _name_of(archive_id: UUID) -> str:
    return f"journal/{archive_id}.ndjson"
