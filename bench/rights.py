"""What rights cost: `python bench/rights.py [result.json]`.

`listing`: 1,000 archives, which a person reaches in every way (his account, roles on archives for himself and for
groups, some for a while, a group's role on an account, what is public), in pages of 200. Against the listing of the
same ones by an administrator, who needs no grant, through the service; and against the same call without any check, by
the system, in this process: the checks add under 10 ms in all. `grants`: an archive with 10,000 grants against one with
a single grant. `groups`: a person in 10,000 groups against one in a single group. `require`, the record by the API and
the listing take at most twice as long.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, LiteralString
from uuid import UUID

import httpx
import psycopg
from harness import Finding, Options, against, alone, main, percentile
from serving import Bench, serving

from perdure.app.composition import Application, opened
from perdure.identity import Action
from perdure.kernel.actor import SYSTEM, Actor
from perdure.settings import load_settings

_ARCHIVES, _MANY, _PAGE = 1000, 10_000, 200
_ADDED_MS = 10.0
_SAME_ORDER = 2.0
_ASKED = 200  # requests of each kind in a turn
_LISTED = 10  # whole listings in a turn

_COPY_ARCHIVE: LiteralString = """
INSERT INTO archives SELECT (jsonb_populate_record(one, jsonb_build_object('id', gen_random_uuid()))).*
FROM archives AS one, generate_series(2, %s) WHERE one.id = %s
"""
_MAKE_PEOPLE: LiteralString = """
INSERT INTO identities (id, organisation_id, kind, display_name)
SELECT gen_random_uuid(), one.organisation_id, 'person', 'Measured ' || n
FROM identities AS one, generate_series(1, %s) AS n WHERE one.id = %s
"""
_MAKE_GROUPS: LiteralString = """
INSERT INTO groups (id, organisation_id, name, name_folded)
SELECT gen_random_uuid(), one.organisation_id, prefix || n, prefix || n
FROM (SELECT %s::text AS prefix) AS named, identities AS one, generate_series(1, %s) AS n WHERE one.id = %s
"""
_JOIN_GROUPS: LiteralString = """
INSERT INTO group_members (group_id, identity_id) SELECT id, %s FROM groups WHERE starts_with(name, %s)
"""
_GRANT: LiteralString = """
INSERT INTO grants (id, on_kind, on_id, identity_id, group_id, named, role, granted_at, expires_at)
VALUES (gen_random_uuid(), %s, %s, %s, %s, %s, %s, now(), %s)
"""
_GRANT_TO_MANY: LiteralString = """
INSERT INTO grants (id, on_kind, on_id, identity_id, role, granted_at)
SELECT gen_random_uuid(), 'archive', %s, id, 'reader', now() FROM identities WHERE starts_with(display_name, 'Measured')
"""
_GRANT_TO_GROUPS: LiteralString = """
INSERT INTO grants (id, on_kind, on_id, group_id, role, granted_at)
SELECT gen_random_uuid(), 'archive', %s, id, 'reader', now() FROM groups WHERE starts_with(name, %s)
"""


@dataclass(frozen=True)
class Person:
    """Somebody who is logged in."""

    id: str
    token: str
    account: str


class Scene:
    """A server with people and archives, most of them made as rows."""

    def __init__(self, bench: Bench, application: Application, database: psycopg.Connection) -> None:
        self._bench = bench
        self.application = application
        self._database = database

    def person(self, login: str, organisation: str | None = None) -> Person:
        form = {"login": login, "display_name": login.title(), "organisation_id": organisation}
        made = self._bench.request("POST", "/identities", body={k: v for k, v in form.items() if v is not None})
        session = self._bench.request("POST", "/login", body={"login": login, "password": made["password"]})
        person = Person(str(made["id"]), str(session["secret"]), "")
        return Person(person.id, person.token, str(self.get(person, "/me").json()["personal_account_id"]))

    def archives(self, owner: Person, count: int) -> list[UUID]:
        """Open archives of the person's own."""
        form = {"title": "Measured", "profile": "one-copy"}
        answer = self._bench.http.post(
            f"{self._bench.server.url}/api/v1/archives", json=form, headers={"Authorization": f"Bearer {owner.token}"}
        )
        answer.raise_for_status()
        one = answer.json()["id"]
        if count > 1:
            self.run(_COPY_ARCHIVE, count, one)
        return [row[0] for row in self.run("SELECT id FROM archives WHERE account_id = %s ORDER BY id", owner.account)]

    def run(self, statement: LiteralString, *given: object) -> list[tuple[Any, ...]]:  # Any: a row
        cursor = self._database.execute(statement, given)
        return cursor.fetchall() if cursor.description else []

    def grant(self, on_kind: str, on: object, role: str, *, identity: str | None = None, **more: object) -> None:
        to = (identity, more.get("group"), more.get("named"))
        self.run(_GRANT, on_kind, on, *to, role, more.get("until"))

    def get(self, person: Person, place: str) -> httpx.Response:
        headers = {"Authorization": f"Bearer {person.token}"}
        answer = self._bench.http.get(f"{self._bench.server.url}/api/v1{place}", headers=headers)
        answer.raise_for_status()
        return answer

    def list_all(self, person: Person) -> int:
        """Go through the whole listing; how many archives it has."""
        count, cursor = 0, ""
        while True:
            page = self.get(person, f"/archives?limit={_PAGE}{cursor}").json()
            count += len(page["items"])
            if page["next_cursor"] is None:
                return count
            cursor = f"&cursor={page['next_cursor']}"

    def list_here(self, actor: Actor) -> int:
        """The same without HTTP."""
        count, cursor = 0, None
        while True:
            page = self.application.archives.life.list_archives(actor, cursor=cursor, limit=_PAGE)
            count += len(page.items)
            cursor = page.next_cursor
            if cursor is None:
                return count

    def actor(self, person: Person) -> Actor:
        return self.application.identity.authenticate(person.token)


@contextmanager
def _scene(options: Options) -> Iterator[Scene]:
    with serving(options.folder) as bench:
        server = bench.server
        with (
            opened(load_settings(server.environment), server.database_url, process="benchmark") as application,
            closing(psycopg.connect(server.database_url, autocommit=True)) as database,
        ):
            yield Scene(bench, application, database)


def _listing(options: Options) -> Iterator[Finding]:
    count = options.count(_ARCHIVES, least=16)
    with _scene(options) as scene:
        person, administrator = _mix(scene, count)
        actor = scene.actor(person)
        served = {
            "person": lambda: scene.list_all(person),
            "administrator": lambda: scene.list_all(administrator),
        }
        here = {"person": lambda: scene.list_here(actor), "nobody asks": lambda: scene.list_here(SYSTEM)}
        by_http, in_process = (_turns(works, options, count) for works in (served, here))
    described = f"listing of {count:,} archives"
    yield against(f"{described} by HTTP", by_http["person"], "administrator", by_http["administrator"], unit="ms")
    yield alone(f"{described} by HTTP, added", _added(by_http, "administrator"), unit="ms", at_most=_ADDED_MS)
    yield against(
        f"{described}, the call", in_process["person"], "without checks", in_process["nobody asks"], unit="ms"
    )
    yield alone(f"{described}, the call, checks add", _added(in_process, "nobody asks"), unit="ms", at_most=_ADDED_MS)


def _added(found: dict[str, list[float]], less: str) -> list[float]:
    return [mine - other for mine, other in zip(found["person"], found[less], strict=True)]


def _mix(scene: Scene, count: int) -> tuple[Person, Person]:
    """A person who reaches that many archives by all ways there are, and an administrator; nobody else has any."""
    person, owner, other = scene.person("measured"), scene.person("owner"), scene.person("other")
    guest = scene.person("guest")
    each = count // 4
    scene.archives(person, each)
    shared = scene.archives(owner, each)
    scene.archives(other, each)
    public = scene.archives(guest, count - 3 * each)
    scene.run(_MAKE_GROUPS, "mixed ", 20, person.id)
    scene.run(_JOIN_GROUPS, person.id, "mixed ")
    groups = [row[0] for row in scene.run("SELECT id FROM groups WHERE starts_with(name, 'mixed ') ORDER BY id")]
    roles = ("reader", "contributor", "manager")
    for number, archive in enumerate(shared):
        to: dict[str, object] = {"identity": person.id} if number % 2 else {"group": groups[number % len(groups)]}
        until = "2100-01-01" if number % 3 else None
        scene.grant("archive", archive, roles[number % 3], until=until, **to)  # type: ignore[arg-type]  # one of two
    scene.grant("account", other.account, "reader", group=groups[0])
    scene.run(
        "UPDATE archives SET state = 'closed', closed_at = now(), access = 'public' WHERE id = ANY(%s)", list(public)
    )
    scene.run("ANALYZE")
    administrator = scene.person("second-administrator")
    scene.run("UPDATE identities SET is_administrator = true WHERE id = %s", administrator.id)
    return person, administrator


def _turns(works: dict[str, Callable[[], int]], options: Options, expected: int) -> dict[str, list[float]]:
    """Milliseconds of each work by turns; each turn's is the median of several."""
    found: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(options.rounds + 1):  # the first one warms up
        delays: dict[str, list[float]] = {name: [] for name in works}
        for _ in range(_LISTED):
            for name, work in works.items():
                started = time.perf_counter()
                seen = work()
                delays[name].append((time.perf_counter() - started) * 1000)
                if seen != expected:
                    raise RuntimeError(f"{name} sees {seen} of {expected} archives")
        if turn:
            for name in works:
                found[name].append(percentile(delays[name], 0.5))
    return found


def _grants(options: Options) -> Iterator[Finding]:
    many = options.count(_MANY, least=20)
    with _scene(options) as scene:
        owner, person, reader = scene.person("owner"), scene.person("person"), scene.person("reader")
        few_id, many_id = scene.archives(owner, 2)
        scene.grant("archive", few_id, "reader", identity=person.id)
        scene.grant("archive", many_id, "reader", identity=reader.id)
        scene.run(_MAKE_PEOPLE, many // 2, owner.id)
        scene.run(_GRANT_TO_MANY, many_id)
        scene.run(_MAKE_GROUPS, "crowd ", many - many // 2, owner.id)
        scene.run(_GRANT_TO_GROUPS, many_id, "crowd ")
        scene.run("ANALYZE")
        yield from _compare(scene, (reader, many_id), (person, few_id), f"{many:,} grants on the archive", options)


def _groups(options: Options) -> Iterator[Finding]:
    many = options.count(_MANY, least=20)
    with _scene(options) as scene:
        owner, person, joiner = scene.person("owner"), scene.person("person"), scene.person("joiner")
        first, second = scene.archives(owner, 2)
        scene.run(_MAKE_GROUPS, "crowd ", many, owner.id)
        scene.run(_MAKE_GROUPS, "single ", 1, owner.id)
        scene.run(_JOIN_GROUPS, joiner.id, "crowd ")
        scene.run(_JOIN_GROUPS, person.id, "single ")
        last = scene.run("SELECT id FROM groups WHERE name = %s", f"crowd {many}")[0][0]
        only = scene.run("SELECT id FROM groups WHERE name = 'single 1'")[0][0]
        scene.grant("archive", first, "reader", group=last)
        scene.grant("archive", second, "reader", group=only)
        scene.run("ANALYZE")
        yield from _compare(scene, (joiner, first), (person, second), f"{many:,} groups of the person", options)


def _compare(
    scene: Scene, many: tuple[Person, UUID], one: tuple[Person, UUID], described: str, options: Options
) -> Iterator[Finding]:
    """What is asked most, of the archive with many and of the one with a single one."""
    sides = {"many": many, "one": one}
    actors = {name: scene.actor(person) for name, (person, _) in sides.items()}
    things = {
        name: scene.application.archives.life.get_record(actors[name], place).archive.thing()
        for name, (_, place) in sides.items()
    }
    asked: dict[str, Callable[[str], object]] = {
        "require": lambda name: _require(scene, actors[name], things[name]),
        "record by HTTP": lambda name: scene.get(sides[name][0], f"/archives/{sides[name][1]}"),
        "listing by HTTP": lambda name: scene.get(sides[name][0], "/archives?limit=200"),
    }
    for what, ask in asked.items():
        found = _by_turns(ask, options)
        yield against(f"{what}, {described}", found["many"], "with one", found["one"], unit="ms", at_most=_SAME_ORDER)


def _require(scene: Scene, actor: Actor, thing: object) -> None:
    with scene.application.db.begin() as tx:
        scene.application.identity.require(tx, actor, Action.READ, thing)  # type: ignore[arg-type]  # of an archive


def _by_turns(ask: Callable[[str], object], options: Options) -> dict[str, Sequence[float]]:
    found: dict[str, list[float]] = {"many": [], "one": []}
    for turn in range(options.rounds + 1):  # the first one warms up
        delays: dict[str, list[float]] = {"many": [], "one": []}
        for _ in range(_ASKED):
            for name, taken in delays.items():
                started = time.perf_counter()
                ask(name)
                taken.append((time.perf_counter() - started) * 1000)
        if turn:
            for name, taken in delays.items():
                found[name].append(percentile(taken, 0.5))
    return dict(found)


SECTIONS = {"listing": _listing, "grants": _grants, "groups": _groups}

if __name__ == "__main__":
    main(__doc__, SECTIONS)
