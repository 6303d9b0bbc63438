"""What somebody does in the very moment in which he is erased leaves nothing of him behind."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Thread

import pytest
from sqlalchemy import text

from perdure.identity.errors import BadCredentialsError, IdentityEndedError
from perdure.kernel.actor import Actor

from .house import PASSWORD, House, own_id

NAME = "Zsuzsanna Quillfeather"
Act = Callable[[House, Actor], object]


def _rename(house: House, who: Actor) -> object:
    return house.identity.rename_identity(who, own_id(who), NAME)


def _be_renamed(house: House, who: Actor) -> object:
    return house.identity.rename_identity(house.administrator, own_id(who), NAME)


def _make_token(house: House, who: Actor) -> object:
    return house.identity.create_token(who, NAME, verbs=["read"])


def _begin_second_factor(house: House, who: Actor) -> object:
    return house.identity.begin_second_factor(who, issuer="here")


def _ask_for_room(house: House, who: Actor) -> object:
    return house.identity.request_quota(who, house.personal(who).id, asked_bytes=7, reason=NAME)


def _log_in(house: House, _who: Actor) -> object:
    return house.identity.log_in("quill", PASSWORD)


ACTS: dict[str, Act] = {
    "rename": _rename,
    "be_renamed": _be_renamed,
    "make_token": _make_token,
    "begin_second_factor": _begin_second_factor,
    "ask_for_room": _ask_for_room,
    "log_in": _log_in,
}


@pytest.mark.parametrize("name", list(ACTS))
def test_nothing_is_written_of_who_is_erased_meanwhile(house: House, name: str) -> None:
    who = house.join("quill")
    raised: list[Exception] = []

    def act() -> None:
        try:
            ACTS[name](house, who)
        except Exception as error:
            raised.append(error)

    acting = Thread(target=act)
    with house.db.begin() as tx:
        house.identity.lock_identities_in(tx, [own_id(who)])
        acting.start()
        _wait_until_somebody_waits(house, acting)
        house.identity.erase_in(tx, house.administrator, own_id(who), "")
    acting.join()
    refused = BadCredentialsError if name == "log_in" else IdentityEndedError
    assert [type(error) for error in raised] == [refused]
    assert house.identity.get_identity(house.administrator, own_id(who)).display_name.startswith("erased person ")
    assert not _find_traces(house, NAME, str(own_id(who)))


def _wait_until_somebody_waits(house: House, acting: Thread) -> None:
    query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    until = time.monotonic() + 20
    while acting.is_alive() and time.monotonic() < until:
        with house.db.begin() as tx:
            if tx.execute(text(query)).scalar():
                return
        time.sleep(0.02)


def _find_traces(house: House, name: str, identity_id: str) -> list[str]:
    """Where he is named, and what there is of him in tables of which nothing stays."""
    kept, emptied = "identities accounts quota_requests", "credentials sessions tokens passkeys"
    found = []
    with house.db.begin() as tx:
        for table in f"{kept} {emptied}".split():
            rows = tx.execute(text(f"SELECT to_jsonb(t)::text FROM {table} t")).scalars()  # noqa: S608  # our own
            found += [table for row in rows if name in row or (table in emptied and identity_id in row)]
    return found
