"""What a link reaches, from values alone."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.identity.model import (
    AccessClass,
    AccountThing,
    Action,
    ArchiveThing,
    InstanceThing,
    Thing,
    allowed_actions,
)
from perdure.kernel.actor import Actor, ActorKind, LinkScope
from perdure.kernel.ids import new_id
from perdure.kernel.paths import common_folder
from perdure.sharing.model import KIND_ACTIONS, Link, LinkKind, find_kind_problem

NOW = datetime(2026, 3, 1, tzinfo=UTC)
ARCHIVE, ACCOUNT, HOME = new_id(), new_id(), new_id()
paths = st.lists(st.sampled_from([b"a", b"b", b"a-b", b"a0", b"aa"]), min_size=1, max_size=4).map(b"/".join)


def thing(path: bytes | None, access: AccessClass = AccessClass.PRIVATE) -> ArchiveThing:
    return ArchiveThing(ARCHIVE, ACCOUNT, HOME, access, None, True, path)


def a_link(kind: LinkKind, path: bytes = b"", **fields: datetime | int | None) -> Link:
    values: dict[str, object] = {
        "expires_at": None,
        "download_limit": None,
        "revoked_at": None,
        "downloads": 0,
        **fields,
    }
    return Link(
        id=new_id(),
        archive_id=ARCHIVE,
        path=path,
        kind=kind,
        name="x",
        made_by=None,
        created_at=NOW,
        has_password=False,
        only_when_closed=False,
        pinned_revision=None,
        **values,  # type: ignore[arg-type]  # each field has its own type
    )


def may(kind: LinkKind, below: bytes, on: Thing) -> frozenset[Action]:
    actor = Actor(ActorKind.LINK, link=a_link(kind, below).scope())
    return allowed_actions(actor, on, (), today=date(2026, 3, 1))


@pytest.mark.parametrize("kind", LinkKind)
def test_a_link_is_for_its_archive_alone(kind: LinkKind) -> None:
    other = ArchiveThing(new_id(), ACCOUNT, HOME, AccessClass.PUBLIC, None, True, b"a")
    for on in (other, AccountThing(ACCOUNT, HOME), InstanceThing()):
        assert may(kind, b"", on) == frozenset()
    assert may(kind, b"", thing(b"a")) == KIND_ACTIONS[kind]


@pytest.mark.parametrize("kind", LinkKind)
def test_what_no_path_narrows_is_for_links_to_the_whole_alone(kind: LinkKind) -> None:
    is_told = kind in (LinkKind.READ, LinkKind.METADATA)
    assert may(kind, b"", thing(None)) == (KIND_ACTIONS[kind] if is_told else frozenset())
    assert may(kind, b"a", thing(None)) == may(kind, b"a", thing(b"")) == frozenset()


@given(paths, paths)
def test_a_link_to_a_folder_reaches_what_lies_in_it(below: bytes, path: bytes) -> None:
    is_inside = path.split(b"/")[: below.count(b"/") + 1] == below.split(b"/")
    assert bool(may(LinkKind.READ, below, thing(path))) is is_inside


@given(paths)
def test_a_public_archive_is_no_wider_to_a_link(path: bytes) -> None:
    assert may(LinkKind.READ, b"b", thing(b"a/" + path, AccessClass.PUBLIC)) == frozenset()


@given(st.lists(paths, max_size=6), paths)
def test_all_paths_lie_in_their_common_folder_and_in_no_deeper_one(many: list[bytes], below: bytes) -> None:
    scope = LinkScope(new_id(), ARCHIVE, frozenset(), below)
    together = scope.reaches(common_folder(many))
    assert together is (bool(many) and all(scope.reaches(path) for path in many))


def test_a_link_is_over_when_it_was_revoked_or_has_ended() -> None:
    assert not a_link(LinkKind.READ).is_over(NOW)
    assert not a_link(LinkKind.READ, expires_at=NOW + timedelta(seconds=1)).is_over(NOW)
    assert a_link(LinkKind.READ, expires_at=NOW).is_over(NOW)
    assert a_link(LinkKind.READ, revoked_at=NOW).is_over(NOW)
    assert a_link(LinkKind.READ, download_limit=2, downloads=2).is_used_up
    assert not a_link(LinkKind.READ, download_limit=2, downloads=1).is_used_up


@pytest.mark.parametrize(
    ("kind", "path", "limit", "when_closed"),
    [
        (LinkKind.METADATA, b"a", None, False),
        (LinkKind.METADATA, b"", 1, False),
        (LinkKind.DROP, b"", 1, False),
        (LinkKind.DROP, b"", None, True),
    ],
)
def test_what_a_kind_cannot_have(kind: LinkKind, path: bytes, limit: int | None, when_closed: bool) -> None:
    assert find_kind_problem(kind, path, limit, only_when_closed=when_closed, is_pinned=False) is not None
    assert find_kind_problem(LinkKind.READ, path, limit, only_when_closed=when_closed, is_pinned=False) is None


def test_what_is_kept_as_it_is_is_shown_and_is_there() -> None:
    assert find_kind_problem(LinkKind.DROP, b"", None, only_when_closed=False, is_pinned=True) is not None
    assert find_kind_problem(LinkKind.READ, b"", None, only_when_closed=True, is_pinned=True) is not None
    assert find_kind_problem(LinkKind.REVIEW, b"a", 3, only_when_closed=False, is_pinned=True) is None
