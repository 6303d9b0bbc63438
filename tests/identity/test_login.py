"""Logging in: by the right password only, as slow for nobody as for somebody, with a limit on guesses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager
from datetime import timedelta
from threading import Event, get_ident
from typing import Any

import psycopg
import pytest
from argon2 import extract_parameters

from perdure.db import Database, Question
from perdure.db.questions import AskingConnection
from perdure.identity import Action, Client, InstanceThing
from perdure.identity.errors import (
    BadCredentialsError,
    LastAdministratorError,
    LoginBusyError,
    LoginThrottledError,
    NameTakenError,
    TokenExpiredError,
    WeakPasswordError,
)
from perdure.identity.model import CLIENT_BACKOFF, LOGIN_BACKOFF
from perdure.identity.passwords import PasswordCost, Passwords
from perdure.kernel.actor import ANONYMOUS
from perdure.kernel.errors import BadInputError, NotAllowedError, NotFoundError

from .house import PASSWORD, House, own_id

WRONG = "quite another password"
NEW = "a fresh set of words"
HOME, CAFE = Client("192.0.2.1", "browser"), Client("198.51.100.7", "script")


def fail(house: House, login: str, client: Client, times: int) -> None:
    for _ in range(times):
        with pytest.raises(BadCredentialsError):
            house.identity.log_in(login, WRONG, client)


def test_a_session_opens_with_the_password_and_ends_with_the_logout(house: House) -> None:
    card, _ = house.add("Ana")
    secret, actor = house.identity.log_in(" ana ", PASSWORD, HOME)
    assert (actor.identity_id, actor.is_administrator, actor.scope.verbs) == (card.id, False, None)
    assert house.identity.authenticate(secret) == actor
    assert [session.client for session in house.identity.list_sessions(actor)] == [HOME]
    house.identity.log_out(secret)
    house.identity.log_out(secret)
    with pytest.raises(BadCredentialsError):
        house.identity.authenticate(secret)


def test_a_session_ends_with_its_time(house: House) -> None:
    secret, actor = house.identity.log_in("root", PASSWORD)
    house.clock.move(timedelta(days=7) - timedelta(seconds=1))
    house.identity.authenticate(secret)
    house.clock.move(timedelta(seconds=1))
    with pytest.raises(TokenExpiredError):
        house.identity.authenticate(secret)
    assert house.identity.list_sessions(actor) == []
    house.clock.move(timedelta(days=91))
    assert house.identity.forget_ended() == 3  # two sessions and the counter of the name


def test_ones_own_session_is_revoked_and_nobody_elses(house: House) -> None:
    house.add("ana")
    secret, ana = house.identity.log_in("ana", PASSWORD)
    (session,) = house.identity.list_sessions(ana)
    with pytest.raises(NotFoundError):
        house.identity.revoke_session(house.administrator, session.id)
    house.identity.revoke_session(ana, session.id)
    with pytest.raises(BadCredentialsError):
        house.identity.authenticate(secret)


@pytest.mark.parametrize("secret", ["", "pds_", "pds_unknown", "pdt_unknown", "xyz", "pds_\ud800", "pds_\0"])
def test_an_unknown_secret_is_refused(house: House, secret: str) -> None:
    with pytest.raises(BadCredentialsError):
        house.identity.authenticate(secret)


def test_a_wrong_password_an_unknown_name_and_a_disabled_identity_look_the_same(house: House) -> None:
    house.add("ana")
    gone, _ = house.add("gone")
    house.identity.disable_identity(house.administrator, gone.id)
    answers = []
    for login, password in (("ana", WRONG), ("nobody", WRONG), ("gone", PASSWORD), ("ana", ""), ("", "")):
        with pytest.raises(BadCredentialsError) as refused:
            house.identity.log_in(login, password)
        answers.append((refused.value.detail, refused.value.extra))
    assert len({str(answer) for answer in answers}) == 1


@contextmanager
def counted_statements() -> Iterator[list[str]]:
    """The statements of this thread: an application of another room may be at work in the same process."""
    seen: list[str] = []
    here = get_ident()

    execute, ask = psycopg.Cursor.execute, AskingConnection.ask

    def note(cursor: Any, query: Any, *given: Any, **named: Any) -> Any:  # Any: as the driver takes them
        if get_ident() == here:
            seen.append(str(query))
        return execute(cursor, query, *given, **named)

    def note_question(connection: AskingConnection, question: Question, parameters: Mapping[str, object]) -> Any:
        if get_ident() == here:
            seen.append(question.sql)
        return ask(connection, question, parameters)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(psycopg.Cursor, "execute", note)
        patch.setattr(AskingConnection, "ask", note_question)
        yield seen


def test_an_unknown_name_costs_the_same_queries_and_the_same_hash(house: House) -> None:
    house.add("ana")
    work = []
    for login in ("ana", "nobody"):
        with counted_statements() as seen:
            fail(house, login, HOME, 1)
        work.append(list(seen))
    assert work[0] == work[1]


def test_a_refusal_that_is_only_counted_costs_the_same_queries(house: House) -> None:
    house.add("ana")
    fail(house, "somebody", HOME, 1)
    work = []
    for login in ("ana", "nobody"):
        with counted_statements() as seen:
            fail(house, login, HOME, 1)
        work.append([statement for statement in seen if "SAVEPOINT" not in statement])
    assert work[0] == work[1]
    assert any("INSERT INTO events" in statement for statement in work[1])


def test_guessing_names_hardly_grows_the_log(house: House) -> None:
    card, _ = house.add("ana")

    def refusals() -> list[object]:
        return [event.data for event in house.told() if event.type == "session.refused"]

    for number in range(20):
        fail(house, f"nobody-{number}", Client(f"203.0.113.{number}"), 1)
    fail(house, "ana", CAFE, 3)
    assert refusals() == [{"identity": None, "times": 1}, {"identity": str(card.id), "times": 1}]
    house.clock.move(timedelta(minutes=1))
    fail(house, "nobody", CAFE, 1)
    fail(house, "ana", CAFE, 1)
    assert refusals()[2:] == [{"identity": None, "times": 20}, {"identity": str(card.id), "times": 3}]


def test_the_hash_for_nobody_has_the_cost_of_a_real_one() -> None:
    passwords = Passwords(PasswordCost(passes=2, memory_kib=128, lanes=1))
    real = passwords.hash_new(PASSWORD, "ana")
    compared = []

    class Watcher:
        def verify(self, stored: str, _password: str) -> bool:
            compared.append(extract_parameters(stored))
            return True

    watched = vars(passwords)
    watched["_hasher"] = Watcher()
    assert passwords.is_right(real, PASSWORD)
    assert not passwords.is_right(None, PASSWORD)  # whatever the comparison says
    assert compared[0] == compared[1]


def test_a_crowd_that_logs_in_is_turned_away_before_it_fills_every_thread() -> None:
    passwords = Passwords(PasswordCost(passes=1, memory_kib=64, lanes=1, at_once=1))
    release = Event()

    def take_a_turn() -> bool:
        try:
            with passwords.turn():
                return release.wait(60)
        except LoginBusyError:
            return False

    with ThreadPoolExecutor(4) as crowd:
        turns = [crowd.submit(take_a_turn) for _ in range(4)]
        done, _ = wait(turns, timeout=60, return_when=FIRST_COMPLETED)
        release.set()
    assert [turn.result() for turn in done] == [False]
    assert sum(turn.result() for turn in turns) == 3


def test_a_known_hash_at_an_old_cost_is_renewed_by_a_login(house: House) -> None:
    strong = Passwords(PasswordCost(passes=2, memory_kib=64, lanes=1))
    weak = Passwords(PasswordCost(passes=1, memory_kib=64, lanes=1))
    stored = weak.hash_new(PASSWORD, "ana")
    renewed = strong.find_rehash(stored, PASSWORD)
    assert renewed is not None
    assert strong.is_right(renewed, PASSWORD)
    assert strong.find_rehash(renewed, PASSWORD) is None


def test_many_failures_from_one_client_have_to_wait(house: House) -> None:
    house.add("ana")
    fail(house, "ana", CAFE, CLIENT_BACKOFF.free)
    house.clock.move(timedelta(microseconds=1))
    with pytest.raises(LoginThrottledError) as early:
        house.identity.log_in("ana", PASSWORD, CAFE)
    assert early.value.extra["retry_after"] == 1
    house.clock.move(timedelta(seconds=1))
    house.identity.log_in("ana", PASSWORD, CAFE)
    fail(house, "ana", CAFE, CLIENT_BACKOFF.free)  # a success forgives all


def test_names_that_do_not_exist_are_throttled_alike(house: House) -> None:
    fail(house, "nobody", CAFE, CLIENT_BACKOFF.free)
    house.clock.move(timedelta(microseconds=1))
    with pytest.raises(LoginThrottledError):
        house.identity.log_in("nobody", WRONG, CAFE)


def test_trying_while_throttled_does_not_make_the_wait_longer(house: House) -> None:
    house.add("ana")
    fail(house, "ana", CAFE, CLIENT_BACKOFF.free)
    for _ in range(20):
        with pytest.raises(LoginThrottledError):
            house.identity.log_in("ana", WRONG, CAFE)
    house.clock.move(timedelta(seconds=1))
    house.identity.log_in("ana", PASSWORD, CAFE)


def test_failures_from_elsewhere_do_not_lock_the_owner_out(house: House) -> None:
    house.add("ana")
    house.identity.log_in("ana", PASSWORD, HOME)
    for number in range(LOGIN_BACKOFF.free):
        fail(house, "ana", Client(f"203.0.113.{number}"), 1)
    house.clock.move(timedelta(microseconds=1))
    with pytest.raises(LoginThrottledError):
        house.identity.log_in("ana", PASSWORD, Client("203.0.113.250"))
    house.identity.log_in("ana", PASSWORD, HOME)


def test_guesses_sent_at_once_count_all(house: House) -> None:
    house.add("ana")

    def guess(_: int) -> type[Exception] | None:
        try:
            house.identity.log_in("ana", WRONG, CAFE)
        except (BadCredentialsError, LoginThrottledError) as refused:
            return type(refused)
        return None

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(guess, range(CLIENT_BACKOFF.free + 8)))
    assert answers.count(BadCredentialsError) == CLIENT_BACKOFF.free
    assert answers.count(LoginThrottledError) == 8


def test_old_failures_are_forgotten(house: House) -> None:
    fail(house, "root", CAFE, CLIENT_BACKOFF.free)
    house.clock.move(CLIENT_BACKOFF.forget + timedelta(seconds=1))
    fail(house, "root", CAFE, CLIENT_BACKOFF.free)
    house.clock.move(CLIENT_BACKOFF.forget + timedelta(seconds=1))
    assert house.identity.forget_ended() == 3  # the client's and the login's counter, and that of refusals


def test_a_new_password_ends_all_sessions_and_needs_the_old_one(house: House) -> None:
    house.add("ana")
    secret, ana = house.identity.log_in("ana", PASSWORD)
    with pytest.raises(BadCredentialsError):
        house.identity.set_password(ana, own_id(ana), NEW, current=WRONG)
    with pytest.raises(WeakPasswordError):
        house.identity.set_password(ana, own_id(ana), "short", current=PASSWORD)
    house.identity.set_password(ana, own_id(ana), NEW, current=PASSWORD)
    with pytest.raises(BadCredentialsError):
        house.identity.authenticate(secret)
    fail(house, "ana", HOME, 1)
    house.identity.log_in("ana", NEW)


def test_a_new_password_spares_the_present_session_and_on_request_no_token(house: House) -> None:
    house.add("ana")
    present, ana = house.identity.log_in("ana", PASSWORD)
    other, _ = house.identity.log_in("ana", PASSWORD, CAFE)
    token, shown = house.identity.create_token(ana, "script", verbs=["read"])
    foreign, _ = house.identity.create_token(house.administrator, "foreign", verbs=["read"])
    house.identity.set_password(ana, own_id(ana), NEW, current=PASSWORD, kept_session=present)
    assert house.identity.authenticate(present) == ana
    with pytest.raises(BadCredentialsError):
        house.identity.authenticate(other)
    house.identity.authenticate(token)
    house.identity.set_password(ana, own_id(ana), PASSWORD, current=NEW, kept_session=present, revoke_tokens=True)
    with pytest.raises(TokenExpiredError):
        house.identity.authenticate(token)
    house.identity.authenticate(foreign)
    assert [event.data for event in house.told() if event.type == "token.revoked"] == [{"token": str(shown.id)}]


def test_only_an_administrator_sets_the_password_of_another(house: House) -> None:
    ana, ben = house.join("ana"), house.join("ben")
    with pytest.raises(NotAllowedError):
        house.identity.set_password(ana, own_id(ben), NEW, current=PASSWORD)
    house.identity.set_password(house.administrator, own_id(ben), NEW)
    house.identity.log_in("ben", NEW)


def test_a_stolen_token_or_session_does_not_help_to_change_the_password(house: House) -> None:
    ana = house.join("ana")
    token, _ = house.identity.create_token(ana, "all", verbs=["read", "write", "manage"])
    with pytest.raises(NotAllowedError):
        house.identity.set_password(house.identity.authenticate(token), own_id(ana), NEW, current=PASSWORD)
    for _ in range(CLIENT_BACKOFF.free):
        with pytest.raises(BadCredentialsError):
            house.identity.set_password(ana, own_id(ana), NEW, current=WRONG)
    house.clock.move(timedelta(microseconds=1))
    with pytest.raises(LoginThrottledError):
        house.identity.set_password(ana, own_id(ana), NEW, current=PASSWORD)


def test_a_disabled_identity_is_refused_by_every_credential_until_enabled(house: House) -> None:
    house.add("ana")
    session, ana = house.identity.log_in("ana", PASSWORD)
    token, _ = house.identity.create_token(ana, "script", verbs=["read"])
    house.identity.disable_identity(house.administrator, own_id(ana))
    for secret in (session, token):
        with pytest.raises(BadCredentialsError):
            house.identity.authenticate(secret)
    house.identity.enable_identity(house.administrator, own_id(ana))
    assert house.identity.authenticate(token).identity_id == ana.identity_id
    with pytest.raises(BadCredentialsError):
        house.identity.authenticate(session)


def test_the_last_administrator_stays(house: House) -> None:
    root = own_id(house.administrator)
    with pytest.raises(LastAdministratorError):
        house.identity.disable_identity(house.administrator, root)
    with pytest.raises(LastAdministratorError):
        house.identity.set_administrator(house.administrator, root, is_administrator=False)
    ana = house.join("ana")
    house.identity.set_administrator(house.administrator, own_id(ana), is_administrator=True)
    house.identity.set_administrator(house.log_in("ana"), root, is_administrator=False)
    assert not house.log_in("root").is_administrator


def test_a_login_name_is_taken_whatever_its_case(house: House) -> None:
    house.add("Straße")
    with pytest.raises(NameTakenError):
        house.add("STRASSE")
    for bad in ("", "two words", "tab\there", "x" * 300):
        with pytest.raises(BadInputError):
            house.add(bad)


def test_only_administrators_make_identities(house: House) -> None:
    ana = house.join("ana")
    for actor in (ana, ANONYMOUS):
        with pytest.raises(NotAllowedError):
            house.identity.create_local_account(actor, login="x", password=PASSWORD, display_name="X")


def test_the_first_administrator_is_made_once(db: Database, house: House) -> None:
    assert house.identity.bootstrap_administrator("root", WRONG) == ("root", None)
    login, password = house.identity.bootstrap_administrator("second")
    assert password is not None
    _, second = house.identity.log_in(login, password)
    with db.begin() as tx:
        house.identity.require(tx, second, Action.ADMINISTER, InstanceThing())
    assert second.organisation_id == house.administrator.organisation_id
    assert house.personal(second).name == "second"


def test_authentication_is_one_query_and_notes_its_use_once_a_minute(house: House) -> None:
    secret, ana = house.identity.log_in("root", PASSWORD)
    token, _ = house.identity.create_token(ana, "t", verbs=["read"])
    house.identity.authenticate(token)
    for credential in (secret, token):
        with counted_statements() as seen:
            house.identity.authenticate(credential)
        assert len(seen) == 1
    house.clock.move(timedelta(seconds=61))
    with counted_statements() as seen:
        house.identity.authenticate(secret)
        house.identity.authenticate(secret)
    assert len(seen) == 3
    assert house.clock.now() in [session.last_used_at for session in house.identity.list_sessions(ana)]
