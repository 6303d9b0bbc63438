"""Changes of the record and the metadata: by revision, none lost, safe in the journal when acknowledged."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import text

from perdure.archives.errors import (
    ArchiveClosedError,
    ArchiveNotFoundError,
    BadDescriptionError,
    BadLifetimeError,
    EntryNotFoundError,
    GrantNotFoundError,
    JournalUnavailableError,
    MandatoryRoleMissingError,
    NotEnoughStoresError,
    ProfileDoesNotFitError,
    ProfileNotOfferedError,
    RevisionConflictError,
)
from perdure.archives.heads import gathering_time
from perdure.archives.model import Access
from perdure.archives.profiles import SHIPPED
from perdure.identity import Grantee, Role
from perdure.identity.errors import NotLoggedInError
from perdure.jobs.worker import run_pending
from perdure.kernel.actor import ANONYMOUS, Actor
from perdure.kernel.errors import NotAllowedError
from perdure.metadata.errors import RevisionMismatchError
from perdure.storage.errors import StoreFullError

from .house import House


@pytest.mark.slow
def test_two_hundred_concurrent_changes_lose_none(house: House, ada: Actor) -> None:
    archive = house.open(ada)

    def change(number: int) -> None:
        if number % 4 == 0:
            house.life.describe(ada, archive.id, {"subjects": [f"s{number}"]})
        else:
            house.describing.patch_metadata(ada, archive.id, b"", json.dumps({f"k{number}": number}).encode())

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(change, range(200)))
    kept = json.loads(house.describing.read_metadata(ada, archive.id).value)
    assert kept == {f"k{number}": number for number in range(200) if number % 4}
    history = house.life.record_history(ada, archive.id, limit=1000).items
    assert sorted(c.after["description"]["subjects"][0] for c in history[1:]) == sorted(
        f"s{n}" for n in range(0, 200, 4)
    )
    lines = [json.loads(line) for line in house.ctx.storage.read_journal(archive.id).lines]
    assert [line["revision"] for line in lines if line["kind"] == "record"] == list(range(2, 52))
    assert len([line for line in lines if line["kind"] == "metadata"]) == 150


def test_stale_revisions_are_refused(house: House, ada: Actor) -> None:
    archive = house.open(ada)
    house.life.describe(ada, archive.id, {"title": "A"}, 1)
    with pytest.raises(RevisionConflictError) as caught:
        house.life.describe(ada, archive.id, {"title": "B"}, 1)
    assert caught.value.extra["revision"] == 2
    house.describing.patch_metadata(ada, archive.id, b"", b'{"a":1}', expected_revision=0)
    with pytest.raises(RevisionMismatchError):
        house.describing.patch_metadata(ada, archive.id, b"", b'{"a":2}', expected_revision=0)
    assert house.look(archive.id).description.title == "A"


def test_a_change_that_changes_nothing_is_none(house: House, ada: Actor) -> None:
    archive = house.open(ada)
    assert house.life.describe(ada, archive.id, {"title": archive.description.title}).revision == 1
    assert not house.ctx.storage.read_journal(archive.id).lines


def test_what_the_store_refused_is_written_later(house: House, ada: Actor, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = house.open(ada)

    def refuse(archive_id: object, lines: object) -> None:
        raise StoreFullError("full")

    with monkeypatch.context() as patched:
        patched.setattr(house.ctx.storage, "append_journal", refuse)
        with pytest.raises(JournalUnavailableError):
            house.life.describe(ada, archive.id, {"title": "Kept"})
    assert house.heads.fold_quiet() == 0  # not quiet yet: the journal is written, not the head
    assert b"Kept" in house.ctx.storage.read_journal(archive.id).lines[0]


def test_quiet_changes_are_folded_into_one_version(house: House, ada: Actor) -> None:
    archive = house.open(ada)
    for number in range(5):
        house.life.describe(ada, archive.id, {"title": f"T{number}"})
        house.describing.patch_metadata(ada, archive.id, b"", json.dumps({"n": number}).encode())
    house.clock.move(minutes=1)
    assert house.heads.fold_quiet() == 0
    house.clock.move(minutes=2)
    assert house.heads.fold_quiet() == 1
    assert house.look(archive.id).head_version == 2
    assert not house.ctx.storage.read_journal(archive.id).lines
    assert house.head_file(archive.id, "history/record-000002.ndjson").count(b"\n") == 5
    assert house.head_file(archive.id, "metadata/history-000002.ndjson").count(b"\n") == 5
    assert house.heads.fold_quiet() == 0
    assert house.heads.fold(archive.id) == 2


def test_a_head_with_many_versions_gets_new_ones_less_often(house: House, ada: Actor) -> None:
    archive = house.open(ada)
    for number in range(15):
        house.life.describe(ada, archive.id, {"title": f"T{number}"})
        house.heads.fold(archive.id)
    assert house.look(archive.id).head_version == 16
    house.life.describe(ada, archive.id, {"title": "Last"})
    house.clock.move(minutes=5)
    house.describing.patch_metadata(ada, archive.id, b"", b'{"n": 1}')
    house.clock.move(minutes=2)
    assert house.heads.fold_quiet() == 0  # quiet, but the oldest change waits for eight minutes at 16 versions
    house.clock.move(minutes=2)
    assert house.heads.fold_quiet() == 1
    assert house.look(archive.id).head_version == 17


def test_archives_whose_changes_gather_hold_up_no_other(
    house: House, ada: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perdure.archives.heads._FOUND_AT_ONCE", 1)
    monkeypatch.setattr("perdure.archives.heads._VERSIONS_AT_FULL_PACE", 1)
    gathering, quiet = house.open(ada), house.open(ada)
    for _ in range(2):
        house.life.describe(ada, gathering.id, {"title": f"T{house.look(gathering.id).head_version}"})
        house.heads.fold(gathering.id)
    for archive in (gathering, quiet):
        house.life.describe(ada, archive.id, {"title": "Last"})
    house.clock.move(minutes=3)
    assert house.heads.fold_quiet() == 1
    assert [house.look(archive.id).head_version for archive in (gathering, quiet)] == [3, 2]


@pytest.mark.parametrize(("version", "minutes"), [(1, 2), (8, 2), (16, 8), (80, 200), (5000, 7 * 24 * 60)])
def test_changes_gather_longer_the_more_versions_there_are(version: int, minutes: int) -> None:
    assert gathering_time(version, timedelta(minutes=2)) == timedelta(minutes=minutes)


def test_a_head_ahead_of_the_database_is_healed(house: House, ada: Actor, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = house.open(ada)
    house.life.describe(ada, archive.id, {"title": "One"})
    with monkeypatch.context() as patched:
        patched.setattr(house.ctx.storage, "reset_journal", lambda archive_id, keep: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            house.heads.fold(archive.id)
    assert house.look(archive.id).head_version == 1
    house.life.describe(ada, archive.id, {"title": "Two"})
    house.heads.fold(archive.id)
    segments = [name for name in house.head_files(archive.id) if name.startswith("history/")]
    lines = [line for name in sorted(segments) for line in house.head_file(archive.id, name).splitlines()]
    assert [json.loads(line)["revision"] for line in lines] == [1, 2, 3]


def test_a_version_writes_in_proportion_to_the_change(house: House, ada: Actor) -> None:
    archive = house.open(ada)
    house.describing.patch_metadata(ada, archive.id, b"", json.dumps({"big": ["x" * 1000] * 90}).encode())
    house.heads.fold(archive.id)
    before = _size_of(house)
    house.describing.patch_metadata(ada, archive.id, b"", b'{"small":1}')
    house.heads.fold(archive.id)
    assert _size_of(house) - before < 30_000


def test_file_metadata_needs_the_file(house: House, ada: Actor) -> None:
    archive = house.open(ada)
    house.fill(archive, {b"a.h5": b"x"})
    assert house.describing.patch_metadata(ada, archive.id, b"a.h5", b'{"q":1}').revision == 1
    with pytest.raises(EntryNotFoundError):
        house.describing.patch_metadata(ada, archive.id, b"b.h5", b'{"q":1}')
    house.close(archive)
    child = house.life.append_to(ada, archive.id, {})
    assert house.describing.read_metadata(ada, child.id, b"a.h5").revision == 0
    assert len(house.describing.metadata_history(ada, archive.id, b"a.h5")) == 1


def test_profile_of_a_closed_archive_changes_by_rule(house: House, ada: Actor) -> None:
    archive = house.close(house.open(ada))
    assert house.life.change_profile(ada, archive.id, "beamline").profile.withdraw_approvals == 2
    with pytest.raises(ProfileDoesNotFitError):
        house.life.change_profile(ada, archive.id, "facility")  # another content digest
    account = house.ctx.identity.get_personal_account(ada)
    house.ctx.identity.change_account(house.administrator, account.id, allowed_profiles=["personal"])
    assert [profile.name for profile in house.profiles.list_profiles(ada, account.id)] == ["personal"]
    with pytest.raises(ProfileNotOfferedError):
        house.life.change_profile(ada, archive.id, "facility")
    assert house.told(archive.id)[-1].data["to"] == "beamline"
    with pytest.raises(NotAllowedError):
        house.profiles.define_profile(ada, SHIPPED[0])


def test_a_closed_archive_tells_the_registrar_and_keeps_what_it_says(house: House, ada: Actor) -> None:
    archive = house.close(house.open(ada))
    house.life.describe(ada, archive.id, {"title": "Scan of two leaves"})
    run_pending(house.ctx.jobs)
    record, url = house.registrar.records[archive.identifier or ""]
    assert record["titles"] == [{"title": "Scan of two leaves"}]
    assert url.startswith("https://archive.example.org/archives/")
    with pytest.raises(BadDescriptionError):
        house.life.describe(ada, archive.id, {"creators": None})


def test_a_profile_with_more_copies_gets_them(house: House, ada: Actor) -> None:
    for name, copies in (("once", 1), ("thrice", 3)):
        house.profiles.define_profile(house.administrator, replace(SHIPPED[0], name=name, copies=copies))
    archive = house.open(ada, profile="once")
    house.fill(archive, {b"a": b"x"})
    house.close(archive)
    with pytest.raises(NotEnoughStoresError):
        house.life.change_profile(ada, archive.id, "thrice")
    house.life.change_profile(ada, archive.id, "personal")
    run_pending(house.ctx.jobs)
    assert house.life.get(ada, archive.id).verified_copies == 2


def test_lifetime_grows_up_to_the_profile(house: House, ada: Actor) -> None:
    archive = house.open(ada, profile="beamline")
    longer = archive.keep_until + timedelta(days=365)
    assert house.life.extend_lifetime(ada, archive.id, longer).keep_until == longer
    for date in (archive.keep_until, archive.keep_until + timedelta(days=20_000)):
        with pytest.raises(BadLifetimeError):
            house.life.extend_lifetime(ada, archive.id, date)


def test_roles_are_part_of_the_record(house: House, ada: Actor, bob: Actor) -> None:
    archive = house.open(ada)
    given = house.life.grant(ada, archive.id, Grantee(identity_id=bob.identity_id), Role.READER)
    assert house.look(archive.id).revision == 2
    with pytest.raises(NotAllowedError):
        house.life.describe(bob, archive.id, {"title": "Mine"})
    assert "grants" not in house.life.record_history(bob, archive.id).items[-1].after
    assert str(given.id) in house.life.record_history(ada, archive.id).items[-1].after["grants"]
    with pytest.raises(GrantNotFoundError):
        house.life.revoke(ada, archive.id, archive.id)
    house.life.revoke(bob, archive.id, given.id)
    with pytest.raises(ArchiveNotFoundError):
        house.life.get(bob, archive.id)


def test_a_mandatory_role_is_not_left_empty(house: House, ada: Actor, bob: Actor) -> None:
    archive = house.open(ada)
    given = house.life.grant(ada, archive.id, Grantee(identity_id=bob.identity_id), Role.MANAGER)
    with house.ctx.db.begin() as tx:
        tx.execute(text("UPDATE archives SET profile = jsonb_set(profile, '{mandatory_roles}', '[\"manager\"]')"))
    with pytest.raises(MandatoryRoleMissingError):
        house.life.revoke(ada, archive.id, given.id)


def test_public_page_shows_what_may_be_shown(house: House, ada: Actor, bob: Actor) -> None:
    archive = house.open(ada)
    with pytest.raises(ArchiveNotFoundError):
        house.life.public_page(ANONYMOUS, str(archive.id))
    archive = house.close(archive)
    identifier = archive.identifier or ""
    page = house.life.public_page(ANONYMOUS, identifier)
    assert (page.title, page.may_read, page.archive, page.is_test_identifier) == ("Scan of a leaf", False, None, True)
    with pytest.raises((ArchiveNotFoundError, NotLoggedInError)):
        house.life.get(ANONYMOUS, archive.id)
    house.life.set_access(ada, archive.id, Access.PUBLIC)
    assert house.life.public_page(bob, identifier).may_read
    with pytest.raises(NotAllowedError):
        house.life.set_access(bob, archive.id, Access.PRIVATE)


def test_list_finds_by_title_path_and_metadata(house: House, ada: Actor, bob: Actor) -> None:
    archive = house.open(ada)
    others = [house.open(ada) for _ in range(3)]
    house.life.describe(ada, archive.id, {"title": "Straße 100%"})
    house.fill(archive, {b"deep/Tomo_1.h5": b"x"})
    house.describing.patch_metadata(ada, archive.id, b"", b'{"Sample":"Perovskite"}')
    for words in ("STRASSE", "100%", "Tomo_1", "perovskite", "sample"):
        assert [view.archive.id for view in house.life.list_archives(ada, text=words).items] == [archive.id], words
        assert house.life.list_archives(bob, text=words).items == ()
    assert house.life.list_archives(ada, text="100_").items == ()
    first = house.life.list_archives(ada, limit=3)
    second = house.life.list_archives(ada, limit=3, cursor=first.next_cursor)
    assert [view.archive.id for view in (*first.items, *second.items)] == [
        *(one.id for one in reversed(others)),
        archive.id,
    ]
    assert second.next_cursor is None


def test_events_are_seen_by_readers_only(house: House, ada: Actor, bob: Actor) -> None:
    archive = house.open(ada)
    house.told()
    assert "archive.opened" in [event.type for event in house.life.list_events(ada)]
    assert house.life.list_events(bob) == []
    with pytest.raises(ArchiveNotFoundError):
        house.life.list_events(bob, archive_id=archive.id)
    last = house.life.list_events(ada)[-1].number
    assert house.life.list_events(ada, after=last, wait_seconds=0.05) == []


def test_roles_are_told_to_those_who_manage_them(house: House, ada: Actor, bob: Actor) -> None:
    archive = house.open(ada)
    house.life.grant(ada, archive.id, Grantee(identity_id=bob.identity_id), Role.READER)
    house.told()
    own = [event.data for event in house.life.list_events(ada) if event.type == "grant.given"]
    assert [data["role"] for data in own] == ["owner", "reader"]
    seen = [event.data for event in house.life.list_events(bob) if event.type == "grant.given"]
    assert seen == [{}, {}]
    assert house.life.list_events(bob)[-1].number == house.life.list_events(ada)[-1].number


def test_a_closed_archive_is_not_discarded(house: House, ada: Actor) -> None:
    archive = house.close(house.open(ada))
    with pytest.raises(ArchiveClosedError):
        house.life.discard(ada, archive.id)


def _size_of(house: House) -> int:
    return sum(file.stat().st_size for file in (house.roots[0] / "root").rglob("*") if file.is_file())
