"""Scopes of tokens of the grid: what they reach, and what is refused because two programs could read it in two ways."""

from __future__ import annotations

from datetime import date
from uuid import UUID

import pytest

from perdure.identity.errors import GridTokenRefusedError
from perdure.identity.grid_scopes import GridPlaces, GridProfile, read_scopes
from perdure.identity.model import (
    AccessClass,
    Action,
    ArchiveThing,
    Held,
    OrganisationThing,
    Role,
    allowed_actions,
    as_prober,
)
from perdure.kernel.actor import Actor, ActorKind, PathAct, PathScope
from perdure.kernel.ids import new_id, short_form

A, B = UUID("01a22cea-4088-7225-8c26-0e761844a26c"), UUID("01a22cea-4088-7225-8c26-0e761844a26d")
WLCG, SCITOKENS = GridProfile.WLCG, GridProfile.SCITOKENS


@pytest.mark.parametrize(
    ("scope", "reached"),
    [
        ("storage.read:/", [PathScope(PathAct.READ)]),
        (f"storage.read:/{A}", [PathScope(PathAct.READ, A)]),
        (f"storage.read:/{short_form(A)}/run1/", [PathScope(PathAct.READ, A, b"run1")]),
        (
            f"storage.modify:/{A}/a storage.create:/{A}/b",
            [PathScope(PathAct.CHANGE, A, b"a"), PathScope(PathAct.ADD, A, b"b")],
        ),
        (f"openid storage.stage:/{A}/a compute.read offline_access", [PathScope(PathAct.STAT, A, b"a")]),
        ("storage.read:/cms/store", []),
        ("storage.write:/ read:/ storage.readx:/ Storage.read:/", []),
        ("", []),
    ],
)
def test_a_scope_of_the_wlcg_profile_reaches_its_path(scope: str, reached: list[PathScope]) -> None:
    assert list(read_scopes(WLCG, scope, GridPlaces())) == reached


def test_a_scitoken_reads_and_writes() -> None:
    found = read_scopes(SCITOKENS, f"read:/ write:/{A}/out storage.read:/", GridPlaces())
    assert found == (PathScope(PathAct.READ), PathScope(PathAct.CHANGE, A, b"out"))


def test_archives_stand_below_a_base_path_and_in_folders_that_are_one() -> None:
    places = GridPlaces("/store/perdure", {"/store/beam/2026": B})

    def reach(path: str) -> set[tuple[object, bytes]]:
        return {(one.archive_id, one.below) for one in read_scopes(WLCG, f"storage.read:{path}", places)}

    assert reach("/store") == {(None, b""), (B, b"")}
    assert reach(f"/store/perdure/{A}/x") == {(A, b"x")}
    assert reach("/store/beam/2026/run/1") == {(B, b"run/1")}
    assert reach("/store/beam") == {(B, b"")}
    for outside in ("/store/beam/20261", f"/{A}", f"/store/perdure2/{A}", "/other"):
        assert reach(outside) == set(), outside


@pytest.mark.parametrize(
    "path",
    [
        "",
        "relative",
        "//",
        f"//{A}",
        f"/{A}//x",
        f"/{A}/x//",
        f"/{A}/..",
        f"/{A}/a/../b",
        f"/../{A}",
        "/.",
        f"/{A}/./x",
        f"/{A}/%2e%2e/x",
        f"/{A}%2Fx",
        f"/{A}/%41",
        f"/{A}/x\n",
        f"/{A}/x\0",
        f"/{A}/\ud800",
        f"/{A}/" + "x" * 300,
        "/" + "x/" * 3000,
    ],
)
@pytest.mark.parametrize("verb", ["storage.read:", "storage.modify:"])
def test_a_path_that_could_be_read_in_two_ways_refuses_the_token(verb: str, path: str) -> None:
    with pytest.raises(GridTokenRefusedError):
        read_scopes(WLCG, f"storage.read:/{B} {verb}{path}", GridPlaces())


def test_a_scope_without_a_path_and_too_many_of_them_refuse_the_token() -> None:
    for scope in ("storage.read", " ".join([f"storage.read:/{A}"] * 1001)):
        with pytest.raises(GridTokenRefusedError):
            read_scopes(WLCG, scope, GridPlaces())


OWNER = [Held("archive", Role.OWNER)]


def may(scope: str, path: bytes | None, *, replace: bool = False, held: list[Held] = OWNER) -> set[Action]:
    actor = Actor(ActorKind.PERSON, new_id(), paths=read_scopes(WLCG, scope, GridPlaces()))
    thing = ArchiveThing(A, B, B, AccessClass.PUBLIC, None, is_closed=False, path=path, may_replace=replace)
    return set(allowed_actions(actor, thing, held, today=date(2026, 1, 1)))


def test_scopes_narrow_rights_and_give_none() -> None:
    read = f"storage.read:/{A}/ab"
    assert may(read, b"ab") == may(read, b"ab/x") == {Action.READ}
    for outside in (b"abc", b"a", b"", b"abc/x", None):
        assert may(read, outside) == set(), outside
    assert may(read, b"ab/x", held=[]) == set()
    assert may(f"storage.read:/{B}/ab", b"ab") == set()
    assert may("storage.read:/", None) == may(f"storage.read:/{A}", b"") == {Action.READ}


def test_to_create_is_not_to_replace() -> None:
    create, modify = f"storage.create:/{A}/in", f"storage.modify:/{A}/in"
    assert may(create, b"in/x") == may(modify, b"in/x") == may(modify, b"in/x", replace=True) == {Action.FILL}
    assert may(create, b"in/x", replace=True) == set()
    assert may(f"storage.stage:/{A}/in", b"in/x") == set()


def test_any_scope_lets_ask_for_a_size() -> None:
    for verb in ("create", "modify", "stage", "poll", "read"):
        actor = as_prober(
            Actor(ActorKind.PERSON, new_id(), paths=read_scopes(WLCG, f"storage.{verb}:/{A}/in", GridPlaces()))
        )
        inside, outside = (
            ArchiveThing(A, B, B, AccessClass.PRIVATE, None, is_closed=False, path=path) for path in (b"in/x", b"inx")
        )
        assert allowed_actions(actor, inside, OWNER, today=date(2026, 1, 1)) == {Action.READ}
        assert allowed_actions(actor, outside, OWNER, today=date(2026, 1, 1)) == frozenset()


def test_nothing_but_archives_is_reached() -> None:
    actor = Actor(ActorKind.PERSON, new_id(), paths=read_scopes(WLCG, "storage.modify:/", GridPlaces()))
    manager = [Held("organisation", Role.MANAGER)]
    assert allowed_actions(actor, OrganisationThing(B), manager, today=date(2026, 1, 1)) == frozenset()
