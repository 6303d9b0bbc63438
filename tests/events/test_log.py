"""The log on PostgreSQL: order, late commits, one sequencer, export and return."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from typing import Protocol

import pytest
from sqlalchemy import text

from perdure.db import Database
from perdure.events import Event, EventLog, verify_chain
from perdure.events.model import GENESIS, build_segment, chain_digest
from perdure.kernel.actor import SYSTEM, Actor, ActorKind
from perdure.kernel.clock import Clock
from perdure.kernel.errors import DamagedError
from perdure.kernel.ids import new_id

ANA = Actor(ActorKind.PERSON, new_id(), "Ana Meyer")


class MovableClock(Clock, Protocol):
    def move(self, by: timedelta) -> None: ...


def record(db: Database, log: EventLog, *steps: object) -> None:
    for step in steps:
        with db.begin() as tx:
            log.record(tx, "files.added", None, ANA, {"step": step})


def read_all(db: Database, log: EventLog) -> list[Event]:
    with db.begin() as tx:
        return log.read(tx, after=0, limit=10_000)


def test_an_event_is_read_once_it_is_numbered(db: Database, log: EventLog) -> None:
    record(db, log, 1, 2)
    assert read_all(db, log) == []
    assert log.sequence_pending() == 2
    events = read_all(db, log)
    assert [(event.number, event.data["step"], event.actor_id) for event in events] == [
        (1, 1, ANA.identity_id),
        (2, 2, ANA.identity_id),
    ]
    assert verify_chain(events) is None
    assert log.sequence_pending() == 0


def test_more_events_than_one_transaction_numbers(db: Database, log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perdure.events.service._BATCH", 3)
    record(db, log, *range(7))
    assert log.sequence_pending() == 7
    events = read_all(db, log)
    assert [event.data["step"] for event in events] == list(range(7))
    assert verify_chain(events) is None


def test_what_is_rolled_back_was_never_recorded(db: Database, log: EventLog) -> None:
    def record_and_fail() -> None:
        with db.begin() as tx:
            log.record(tx, "files.added", None, ANA)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        record_and_fail()
    assert log.sequence_pending() == 0


def test_a_late_commit_is_read_by_whoever_had_read_past_it(db: Database, log: EventLog) -> None:
    with db.begin() as late:
        log.record(late, "archive.opened", new_id(), ANA, {"step": "early begun"})
        record(db, log, "late begun")
        log.sequence_pending()
        seen = read_all(db, log)
        assert [event.data["step"] for event in seen] == ["late begun"]
    log.sequence_pending()
    with db.begin() as tx:
        after = log.read(tx, after=seen[-1].number, limit=10)
    assert [event.data["step"] for event in after] == ["early begun"]
    assert verify_chain(read_all(db, log)) is None


def test_events_of_one_subject_follow_the_order_of_commits(db: Database, log: EventLog) -> None:
    archive, other_begun, first_recorded = new_id(), threading.Event(), threading.Event()

    def second() -> None:
        with db.begin() as tx:
            tx.execute(text("SELECT pg_current_xact_id()"))  # older than the first one's transaction
            other_begun.set()
            first_recorded.wait(60)
            log.record(tx, "files.added", archive, ANA, {"step": 2})

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(second)
        other_begun.wait(60)
        with db.begin() as tx:
            log.record(tx, "files.added", archive, ANA, {"step": 1})
            first_recorded.set()
            with pytest.raises(TimeoutError):
                waiting.result(timeout=0.2)  # it waits for the commit of the first
        waiting.result(timeout=60)
    log.sequence_pending()
    assert [event.data["step"] for event in read_all(db, log)] == [1, 2]


def test_events_of_different_subjects_do_not_wait_for_each_other(db: Database, log: EventLog) -> None:
    with db.begin() as one, db.begin() as two:
        log.record(one, "files.added", new_id(), ANA)
        log.record(two, "files.added", new_id(), ANA)


def test_many_writers_and_sequencers_make_one_gapless_chain(db: Database, log: EventLog) -> None:
    archives = [new_id() for _ in range(3)]

    def write(start: int) -> None:
        for step in range(start, start + 15):
            with db.begin() as tx:
                log.record(tx, "files.added", archives[step % 3], ANA, {"step": step})
            log.sequence_pending()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(0, 60, 15)))
    events = read_all(db, log)
    assert [event.number for event in events] == list(range(1, 61))
    assert verify_chain(events) is None
    assert {event.data["step"] for event in events} == set(range(60))


def test_a_cut_off_sequencer_leaves_the_chain_whole(
    db: Database, log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(db, log, *range(5))
    with monkeypatch.context() as broken:
        broken.setattr("perdure.events.service.chain_digest", _fail_at_third())
        with pytest.raises(RuntimeError):
            log.sequence_pending()
    assert read_all(db, log) == []
    assert log.sequence_pending() == 5
    assert verify_chain(read_all(db, log)) is None


def _fail_at_third() -> Callable[[bytes, Event], bytes]:
    def digest(previous: bytes, event: Event) -> bytes:
        if event.number == 3:
            raise RuntimeError("killed")
        return chain_digest(previous, event)

    return digest


def test_numbers_survive_the_database_without_a_changed_digit(db: Database, log: EventLog) -> None:
    record(db, log, 1e22, 0.1, -0.0, 10**30, 1.0, {"nested": [1e-7, None, "é\u0000"]})
    log.sequence_pending()
    assert verify_chain(read_all(db, log)) is None


def test_a_row_changed_behind_our_back_is_found(db: Database, log: EventLog) -> None:
    record(db, log, *range(4))
    log.sequence_pending()
    with db.begin() as tx:
        tx.execute(text("""UPDATE events SET data = '{"step": 9}' WHERE number = 3"""))
    assert verify_chain(read_all(db, log)) == 3


def test_reading_is_by_subject_and_by_what_may_be_seen(db: Database, log: EventLog) -> None:
    mine, other = new_id(), new_id()
    with db.begin() as tx:
        for archive in (mine, other, None, mine):
            log.record(tx, "files.added", archive, SYSTEM)
    log.sequence_pending()
    with db.begin() as tx:
        assert [event.number for event in log.read(tx, after=0, limit=9, subject=mine)] == [1, 4]
        assert [event.number for event in log.read(tx, after=1, limit=1)] == [2]
        assert [e.number for e in log.read(tx, after=0, limit=9, visible=lambda column: column == other)] == [2]
        assert log.head(tx)[0] == 4


def test_what_cannot_be_chained_is_refused_at_once(db: Database, log: EventLog) -> None:
    with db.begin() as tx:
        for data in ({"x": float("nan")}, {"x": "\ud800"}):
            with pytest.raises(ValueError, match=r"."):
                log.record(tx, "files.added", None, ANA, data)
        with pytest.raises(ValueError, match=r"subject\.action"):
            log.record(tx, "Files added", None, ANA)


def test_waiting_ends_with_the_next_event_or_the_time(db: Database, log: EventLog) -> None:
    assert not log.wait_for(0, timeout=0.01)
    stop = threading.Event()
    with ThreadPoolExecutor(2) as pool:
        sequencer = pool.submit(log.run_sequencer, stop, interval=0.01)
        waiter = pool.submit(log.wait_for, 0, timeout=20)
        record(db, log, 1)
        assert waiter.result(timeout=20)
        stop.set()
        sequencer.result(timeout=60)


def test_names_of_people_stay_out_of_the_log(db: Database, log: EventLog) -> None:
    record(db, log, 1)
    log.sequence_pending()
    with db.begin() as tx:
        segment = log.build_segment(tx, after=0)
    assert segment is not None
    assert b"Meyer" not in segment.data


def test_a_log_is_exported_and_comes_back_in_an_empty_database(
    db: Database, log: EventLog, clock: MovableClock, make_database: Callable[[], Database]
) -> None:
    record(db, log, *range(5))
    log.sequence_pending()
    with db.begin() as tx:
        segments = [log.build_segment(tx, after=0, limit=2), log.build_segment(tx, after=2, limit=2)]
        segments += list(log.iter_segments(tx, after=4))
        assert log.build_segment(tx, after=5) is None
        assert [(s.first, s.last, s.name) for s in segments if s] == [
            (1, 2, "000000000001-000000000002.ndjson"),
            (3, 4, "000000000003-000000000004.ndjson"),
            (5, 5, "000000000005-000000000005.ndjson"),
        ]
    lost = make_database()
    restored = EventLog(lost, clock)
    record(lost, restored, "recorded while the log was empty")
    for segment in segments:
        assert segment is not None
        with lost.begin() as tx:
            assert restored.restore_segment(tx, segment.data) == segment.last - segment.first + 1
        with lost.begin() as tx:
            assert restored.restore_segment(tx, segment.data) == 0
    assert read_all(lost, restored) == read_all(db, log)
    restored.sequence_pending()
    assert verify_chain(read_all(lost, restored)) is None


def test_a_segment_that_does_not_continue_the_log_is_refused(
    db: Database, log: EventLog, clock: MovableClock, make_database: Callable[[], Database]
) -> None:
    record(db, log, *range(4))
    log.sequence_pending()
    with db.begin() as tx:
        later = log.build_segment(tx, after=2)
        events = log.read(tx, after=0, limit=2)
    assert later is not None
    lost = make_database()
    restored = EventLog(lost, clock)
    forged = build_segment(events[1:], GENESIS).data
    for damaged in (later.data, forged, later.data.replace(b'"step":2', b'"step":7'), b"", b"{}"):
        with pytest.raises(DamagedError), lost.begin() as tx:
            restored.restore_segment(tx, damaged)
    assert read_all(lost, restored) == []


def test_a_segment_of_another_history_is_refused(
    db: Database, log: EventLog, clock: MovableClock, make_database: Callable[[], Database]
) -> None:
    record(db, log, "ours")
    log.sequence_pending()
    elsewhere = make_database()
    other = EventLog(elsewhere, clock)
    record(elsewhere, other, "theirs", "theirs too")
    other.sequence_pending()
    with elsewhere.begin() as tx:
        segment = other.build_segment(tx, after=0)
    assert segment is not None
    with pytest.raises(DamagedError), db.begin() as tx:
        log.restore_segment(tx, segment.data)


def test_the_root_of_a_day_stays_even_if_the_clock_goes_back(db: Database, log: EventLog, clock: MovableClock) -> None:
    first, second = date(2026, 3, 1), date(2026, 3, 2)
    record(db, log, 1, 2)
    log.sequence_pending()
    clock.move(timedelta(days=1))
    record(db, log, 3)
    log.sequence_pending()
    with db.begin() as tx:
        before = log.daily_root(tx, first)
    clock.move(-timedelta(days=1))
    record(db, log, 4)
    log.sequence_pending()
    with db.begin() as tx:
        assert log.daily_root(tx, first) == before
        assert (before.number, log.daily_root(tx, second).number) == (2, 4)
        assert log.daily_root(tx, second).digest == log.head(tx)[1].hex()
        assert log.daily_root(tx, first - timedelta(days=1)).number == 0
