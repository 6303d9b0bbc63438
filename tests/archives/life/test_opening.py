"""Opening and appending: who may, what is there at once, what a repeated request does."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from perdure.archives.errors import (
    ArchiveNotFoundError,
    ArchiveOpenError,
    BadAccessError,
    BadDescriptionError,
    BadLifetimeError,
    IdempotencyKeyReusedError,
    ProfileNotFoundError,
)
from perdure.archives.model import Access, Creator, Description
from perdure.archives.opening import OpenRequest
from perdure.archives.rules import check_description
from perdure.identity import Action, Grantee, Role
from perdure.identity.errors import NotLoggedInError
from perdure.kernel.actor import ANONYMOUS, Actor
from perdure.kernel.errors import NotFoundError
from perdure.kernel.ids import new_id

from .house import CITABLE, House


def test_head_is_there_from_the_opening(house: House, ada: Actor) -> None:
    archive = house.open(ada)
    assert (archive.head_version, archive.revision, archive.state) == (1, 1, "open")
    record = json.loads(house.head_file(archive.id, "archive.json"))
    assert record["description"]["title"] == "Scan of a leaf"
    assert record["profile"]["name"] == "personal"
    assert [grant["role"] for grant in record["grants"]] == ["owner"]
    assert set(house.head_files(archive.id)) == {
        "archive.json", "datacite.json", "ro-crate-metadata.json", "history/record-000001.ndjson"
    }  # fmt: skip
    assert [event.type for event in house.told(archive.id)] == ["grant.given", "archive.opened"]


def test_opener_owns_and_others_do_not_see(house: House, ada: Actor, bob: Actor) -> None:
    archive = house.open(ada)
    assert house.life.get(ada, archive.id).actions >= {Action.FILL, Action.CLOSE, Action.MANAGE}
    with pytest.raises(ArchiveNotFoundError):
        house.life.get(bob, archive.id)
    assert house.life.list_archives(bob).items == ()


def test_opening_needs_a_role_on_the_account(house: House, ada: Actor, bob: Actor) -> None:
    theirs = house.ctx.identity.get_personal_account(ada)
    with pytest.raises(NotFoundError):
        house.life.open_archive(bob, OpenRequest(account_id=theirs.id))
    with pytest.raises(NotLoggedInError):
        house.life.open_archive(ANONYMOUS, OpenRequest())
    assert house.life.list_archives(ada).items == ()


def test_same_key_same_request_same_archive(house: House, ada: Actor) -> None:
    request = OpenRequest(description=CITABLE)
    first = house.life.open_archive(ada, request, idempotency_key="k1")
    assert house.life.open_archive(ada, request, idempotency_key="k1").id == first.id
    with pytest.raises(IdempotencyKeyReusedError):
        house.life.open_archive(ada, OpenRequest(), idempotency_key="k1")
    assert house.life.open_archive(ada, request, idempotency_key="k2").id != first.id


def test_opening_goes_on_where_it_was_stopped(house: House, ada: Actor, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(type(house.heads), "fold", lambda self, archive_id: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            house.life.open_archive(ada, OpenRequest(description=CITABLE), idempotency_key="k")
    again = house.life.open_archive(ada, OpenRequest(description=CITABLE), idempotency_key="k")
    assert again.head_version == 1
    assert len(house.life.list_archives(ada).items) == 1


@pytest.mark.parametrize(
    ("description", "field"),
    [
        (Description(title="a\0b"), "title"),
        (Description(title="x" * 1001), "title"),
        (Description(creators=(Creator(" "),)), "creators/0/name"),
        (Description(creators=(Creator("A", orcid="0000-0002-1825-0098"),)), "creators/0/orcid"),
        (
            Description(creators=(Creator("A", affiliation_ror="https://ror.org/nonsense"),)),
            "creators/0/affiliation_ror",
        ),
        (Description(tags=("",)), "tags/0"),
        (Description(subjects=("\ud800",)), "subjects/0"),
    ],
)
def test_bad_descriptions_name_the_field(description: Description, field: str) -> None:
    with pytest.raises(BadDescriptionError) as caught:
        check_description(description)
    assert caught.value.extra["field"] == field


def test_lifetime_access_and_profile_have_rules(house: House, ada: Actor) -> None:
    today = house.clock.now().date()
    with pytest.raises(BadLifetimeError):
        house.life.open_archive(ada, OpenRequest(keep_until=today + timedelta(days=40_000)))
    with pytest.raises(BadAccessError):
        house.life.open_archive(ada, OpenRequest(access=Access.EMBARGOED))
    with pytest.raises(BadAccessError):
        house.life.open_archive(ada, OpenRequest(access=Access.PUBLIC, embargo_until=today + timedelta(days=9)))
    with pytest.raises(ProfileNotFoundError):
        house.life.open_archive(ada, OpenRequest(profile="none such"))


@pytest.mark.parametrize("others", [0, 150])
def test_a_role_of_a_group_counts_however_many_groups_one_is_in(
    house: House, ada: Actor, bob: Actor, others: int
) -> None:
    identity, archive = house.ctx.identity, house.open(ada)
    team = identity.create_group(ada, "Team")
    home, members = str(ada.organisation_id), [{"identity_id": str(bob.identity_id), "is_manager": False}]
    with house.ctx.db.begin() as tx:
        rows = [{"id": str(new_id()), "organisation_id": home, "name": f"G{n}"} for n in range(others)]
        identity.restore_groups(tx, [{**row, "members": members} for row in rows])
    house.life.grant(ada, archive.id, Grantee(group_id=team.id), Role.READER)
    with pytest.raises(ArchiveNotFoundError):
        house.life.get(bob, archive.id)
    identity.add_member(ada, team.id, bob.identity_id or new_id())
    assert Action.READ in house.life.get_record(bob, archive.id).actions
    assert [view.archive.id for view in house.life.list_archives(bob).items] == [archive.id]


def test_child_inherits_by_value(house: House, ada: Actor, bob: Actor) -> None:
    parent = house.open(ada)
    with pytest.raises(ArchiveOpenError):
        house.life.append_to(ada, parent.id, {})
    house.life.grant(ada, parent.id, Grantee(identity_id=bob.identity_id), Role.CONTRIBUTOR)
    house.describing.patch_metadata(ada, parent.id, b"", b'{"beam":{"value":12.30,"unit":"keV"}}')
    parent = house.close(parent)
    child = house.life.append_to(bob, parent.id, {"title": "More of the leaf"}, idempotency_key="c")
    assert house.life.append_to(bob, parent.id, {"title": "More of the leaf"}, idempotency_key="c").id == child.id
    assert (child.parent_id, child.state, child.identifier) == (parent.id, "open", None)
    assert child.profile == parent.profile
    assert child.description.creators == parent.description.creators
    assert house.describing.read_metadata(bob, child.id).value == b'{"beam":{"value":12.30,"unit":"keV"}}'
    house.describing.patch_metadata(bob, child.id, b"", b'{"beam":null}')
    assert b"12.30" in house.describing.read_metadata(bob, parent.id).value
    roles = {grant.role for grant in house.life.list_grants(ada, child.id)}
    assert roles == {Role.OWNER, Role.CONTRIBUTOR}
    assert house.life.get(ada, parent.id).children == (child.id,)
