"""Discarding and withdrawing: who, how many, what stays, what leaves."""

from __future__ import annotations

import json

import pytest
from sqlalchemy import text

from perdure.archives.errors import (
    AlreadyApprovedError,
    ArchiveOpenError,
    ArchiveWithdrawnError,
    ChildrenRemainError,
    ConfirmationMismatchError,
    ProfileDoesNotFitError,
)
from perdure.archives.model import Access, Archive, ArchiveState
from perdure.archives.working import Work
from perdure.identity import Grantee, Role
from perdure.jobs import JobNotFoundError
from perdure.jobs.worker import run_pending
from perdure.kernel.actor import ANONYMOUS, Actor
from perdure.kernel.errors import NotAllowedError

from .house import House


@pytest.fixture
def closed(house: House, ada: Actor) -> Archive:
    archive = house.open(ada)
    house.fill(archive, {b"a.dat": b"0123456789"})
    return house.close(archive)


def _bytes_of(house: House, needle: bytes) -> int:
    return sum(needle in file.read_bytes() for root in house.roots for file in root.rglob("*") if file.is_file())


def test_withdrawal_empties_the_quarantine(house: House, ada: Actor, closed: Archive) -> None:
    """A copy that was set aside as damaged, and a stray of sealing, are copies of the bytes as well."""
    with house.ctx.db.begin() as tx:
        part = next(one for one in house.ctx.storage.objects_of(tx, closed.id) if one.object_id != closed.id.urn)
    stray = house.roots[0] / "quarantine" / str(closed.id) / "part" / "a.dat.123"
    stray.parent.mkdir(parents=True)
    stray.write_bytes(b"0123456789")
    stored = next(path for path in (house.roots[1] / "root").rglob("a.dat"))
    aside = house.roots[1] / "quarantine" / "objects" / f"{part.object_id.replace(':', '%3a')}.0123456789ab"
    aside.mkdir(parents=True)
    (aside / "a.dat").write_bytes(stored.read_bytes())
    assert _bytes_of(house, b"0123456789") == 4
    house.life.request_withdrawal(ada, closed.id, "The sample was mislabelled.")
    run_pending(house.ctx.jobs)
    assert _bytes_of(house, b"0123456789") == 0


def test_withdrawal_removes_every_copy_and_leaves_a_tombstone(house: House, ada: Actor, closed: Archive) -> None:
    assert _bytes_of(house, b"0123456789") == 2
    assert house.life.use_of(ada, closed.account_id).bytes == 10
    asked = house.life.request_withdrawal(ada, closed.id, "The sample was mislabelled.")
    assert asked.job_id is not None
    run_pending(house.ctx.jobs)
    assert _bytes_of(house, b"0123456789") == 0
    usage = house.life.use_of(ada, closed.account_id)
    assert (usage.bytes, usage.files) == (0, 0)
    archive = house.look(closed.id)
    assert archive.state is ArchiveState.WITHDRAWN
    removed = (archive.tombstone or {})["removed"]
    assert isinstance(removed, list)
    assert {(one["store"], one["files"], one["bytes"]) for one in removed} == {("one", 1, 10), ("two", 1, 10)}
    assert json.loads(house.head_file(closed.id, "tombstone.json"))["removed"] == removed
    assert house.registrar.get(closed.identifier or "").state == "tombstone"
    page = house.life.public_page(ANONYMOUS, closed.identifier or "")
    assert (page.tombstone or {})["reasons"] == ["The sample was mislabelled."]
    assert "approved_by" not in (page.tombstone or {})
    assert [event.type for event in house.told(closed.id)][-2:] == ["archive.withdrawn", "archive.cleared"]
    with pytest.raises(ArchiveWithdrawnError):
        house.life.describe(ada, closed.id, {"title": "Back"})


def test_strangers_learn_when_and_why_but_not_by_whom(house: House, ada: Actor, bob: Actor, closed: Archive) -> None:
    house.life.set_access(ada, closed.id, Access.PUBLIC)
    house.life.request_withdrawal(ada, closed.id, "The sample was mislabelled.")
    run_pending(house.ctx.jobs)
    house.told()
    assert "approved_by" in (house.life.get(ada, closed.id).archive.tombstone or {})
    (listed,) = house.life.list_archives(bob).items
    for seen in (house.life.get(bob, closed.id), listed):
        tombstone = seen.archive.tombstone or {}
        assert tombstone["reasons"] == ["The sample was mislabelled."]
        assert not tombstone.keys() & {"approved_by", "kept_for"}
    (told,) = [event for event in house.life.list_events(bob) if event.type == "archive.withdrawn"]
    assert told.data == {}


def test_two_persons_when_the_profile_says_so(house: House, ada: Actor, bob: Actor) -> None:
    archive = house.close(house.open(ada, profile="beamline"))
    house.life.grant(ada, archive.id, Grantee(identity_id=bob.identity_id), Role.MANAGER)
    first = house.life.request_withdrawal(ada, archive.id, "Wrong.")
    assert (len(first.approvals), first.needed, first.job_id) == (1, 2, None)
    with pytest.raises(AlreadyApprovedError):
        house.life.request_withdrawal(ada, archive.id, "Wrong, really.")
    with pytest.raises(NotAllowedError):
        house.life.request_withdrawal(bob, archive.id, "I agree.")
    assert run_pending(house.ctx.jobs) == 0
    house.life.grant(ada, archive.id, Grantee(identity_id=bob.identity_id), Role.OWNER)
    assert house.life.request_withdrawal(bob, archive.id, "I agree.").job_id is not None
    run_pending(house.ctx.jobs)
    tombstone = house.look(archive.id).tombstone or {}
    assert tombstone["approved_by"] == [str(ada.identity_id), str(bob.identity_id)]


def test_approvals_count_while_their_persons_may_withdraw(house: House, ada: Actor, bob: Actor) -> None:
    archive = house.close(house.open(ada, profile="beamline"))
    granted = house.life.grant(ada, archive.id, Grantee(identity_id=bob.identity_id), Role.OWNER)
    house.life.request_withdrawal(bob, archive.id, "Wrong.")
    asked = house.life.request_withdrawal(ada, archive.id, "I agree.")
    assert asked.job_id is not None
    house.life.revoke(ada, archive.id, granted.id)
    run_pending(house.ctx.jobs)
    assert house.look(archive.id).state is ArchiveState.CLOSED
    with house.ctx.db.begin() as tx:
        assert (house.ctx.jobs.get(tx, asked.job_id).error or {})["code"] == "not_allowed"
    assert [one.identity_id for one in house.life.get_withdrawal(ada, archive.id).approvals] == [ada.identity_id]
    with pytest.raises(AlreadyApprovedError):
        house.life.request_withdrawal(ada, archive.id, "Again.")
    house.life.grant(ada, archive.id, Grantee(identity_id=bob.identity_id), Role.OWNER)
    house.life.request_withdrawal(bob, archive.id, "Again.")
    house.ctx.identity.disable_identity(house.administrator, bob.identity_id or archive.id)
    run_pending(house.ctx.jobs)
    assert house.look(archive.id).state is ArchiveState.CLOSED
    house.ctx.identity.enable_identity(house.administrator, bob.identity_id or archive.id)
    assert house.life.request_withdrawal(bob, archive.id, "Again.").job_id is not None
    run_pending(house.ctx.jobs)
    assert house.look(archive.id).state is ArchiveState.WITHDRAWN
    assert len(house.life.get_withdrawal(ada, archive.id).approvals) == 2


def test_jobs_are_seen_by_those_who_work_on_the_archive(house: House, ada: Actor, bob: Actor, closed: Archive) -> None:
    with house.ctx.db.begin() as tx:
        tx.execute(text("UPDATE archives SET profile = jsonb_set(profile, '{children_block_withdrawal}', 'false')"))
    house.life.set_access(ada, closed.id, Access.PUBLIC)
    house.life.append_to(ada, closed.id, {})
    mate = house.join("mate")
    house.life.grant(ada, closed.id, Grantee(identity_id=mate.identity_id), Role.CONTRIBUTOR)
    job_id = house.life.request_withdrawal(ada, closed.id, "Wrong.").job_id
    assert job_id is not None
    run_pending(house.ctx.jobs)
    work = Work(house.ctx)
    for stranger in (bob, ANONYMOUS):
        assert work.list_jobs(stranger, closed.id) == []
        with pytest.raises(JobNotFoundError):
            work.get_job(stranger, job_id)
    secret, _ = house.ctx.identity.create_token(ada, "watch", verbs=["read"], archives=[closed.id])
    for actor in (ada, mate, house.administrator, house.ctx.identity.authenticate(secret)):
        assert job_id in [job.id for job in work.list_jobs(actor, closed.id)]
        assert dict(work.get_job(actor, job_id).result or {}) == {"removed": [], "kept_for": 1}


def test_another_profile_does_not_spare_the_second_person(house: House, ada: Actor) -> None:
    archive = house.close(house.open(ada, profile="beamline"))
    with pytest.raises(ProfileDoesNotFitError, match="fewer persons"):
        house.life.change_profile(ada, archive.id, "personal")
    assert house.life.request_withdrawal(ada, archive.id, "Wrong.").needed == 2
    still_open = house.open(ada, profile="beamline")
    assert house.life.change_profile(ada, still_open.id, "personal").profile.withdraw_approvals == 1


def test_children_block_by_their_names(house: House, ada: Actor, closed: Archive) -> None:
    child = house.life.append_to(ada, closed.id, {"title": "The child"})
    with pytest.raises(ChildrenRemainError) as caught:
        house.life.request_withdrawal(ada, closed.id, "Wrong.")
    assert "The child" in caught.value.detail
    house.life.discard(ada, child.id)
    assert house.life.request_withdrawal(ada, closed.id, "Wrong.").job_id is not None


def test_children_keep_what_they_inherited(house: House, ada: Actor, closed: Archive) -> None:
    with house.ctx.db.begin() as tx:
        tx.execute(text("UPDATE archives SET profile = jsonb_set(profile, '{children_block_withdrawal}', 'false')"))
    child = house.life.append_to(ada, closed.id, {})
    house.life.request_withdrawal(ada, closed.id, "Wrong.")
    run_pending(house.ctx.jobs)
    assert house.look(closed.id).state is ArchiveState.WITHDRAWN
    assert (house.look(closed.id).tombstone or {})["kept_for"] == [str(child.id)]
    assert _bytes_of(house, b"0123456789") == 2
    house.describing.patch_metadata(ada, child.id, b"a.dat", b'{"still":"here"}')
    house.life.discard(ada, child.id)
    run_pending(house.ctx.jobs)
    assert _bytes_of(house, b"0123456789") == 0
    assert (house.look(closed.id).tombstone or {})["kept_for"] == []


def test_a_child_appended_meanwhile_stops_the_withdrawal(house: House, ada: Actor, closed: Archive) -> None:
    asked = house.life.request_withdrawal(ada, closed.id, "Wrong.")
    house.life.append_to(ada, closed.id, {})
    run_pending(house.ctx.jobs)
    assert house.look(closed.id).state is ArchiveState.CLOSED
    with house.ctx.db.begin() as tx:
        job = house.ctx.jobs.get(tx, asked.job_id or closed.id)
    assert (job.error or {})["code"] == "children_remain"


def test_withdrawal_goes_on_where_it_was_stopped(
    house: House, ada: Actor, closed: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.life.request_withdrawal(ada, closed.id, "Wrong.")
    with monkeypatch.context() as patched:
        patched.setattr(house.ctx.storage, "forget_objects", lambda tx, ids: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run_pending(house.ctx.jobs)
    assert house.look(closed.id).state is ArchiveState.WITHDRAWN
    assert house.life.use_of(ada, closed.account_id).bytes == 10
    run_pending(house.ctx.jobs, include_scheduled=True)
    assert house.life.use_of(ada, closed.account_id).bytes == 0
    removed = (house.look(closed.id).tombstone or {})["removed"]
    assert isinstance(removed, list)
    assert [one["bytes"] for one in removed] == [10, 10]


def test_discarding_removes_content_and_returns_the_quota(house: House, ada: Actor) -> None:
    archive = house.open(ada)
    house.fill(archive, {b"a.dat": b"0123456789"})
    with pytest.raises(ConfirmationMismatchError):
        house.life.discard(ada, archive.id, "Another title")
    house.life.discard(ada, archive.id, "Scan of a leaf")
    house.life.discard(ada, archive.id)
    run_pending(house.ctx.jobs)
    assert _bytes_of(house, b"0123456789") == 0
    assert house.life.use_of(ada, archive.account_id).bytes == 0
    assert house.life.list_archives(ada).items == ()
    assert len(house.life.list_archives(ada, state="discarded").items) == 1
    assert json.loads(house.head_file(archive.id, "archive.json"))["state"] == "discarded"


def test_an_open_archive_is_not_withdrawn(house: House, ada: Actor) -> None:
    with pytest.raises(ArchiveOpenError):
        house.life.request_withdrawal(ada, house.open(ada).id, "Wrong.")
