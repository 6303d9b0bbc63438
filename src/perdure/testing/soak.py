"""Hours of work under fire: `python -m perdure.testing.soak --minutes 120 [--seed N]`.

People upload, ingest, remove, describe, close and append in a real `perdure serve` while its processes are killed at
random moments and at every named crash point. After each death, and thoroughly in the end, what was acknowledged is
compared with what is there; at last the database is thrown away and rebuilt. The first breach stops it with a report.
"""

from __future__ import annotations

import argparse
import random
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import perdure
from perdure.db import Database
from perdure.db.embedded import EmbeddedServer
from perdure.db.migrations import migrate
from perdure.jobs.measures import measure_queue
from perdure.storage.crash_points import EXIT_STATUS
from perdure.testing.invariants import (
    Breach,
    Ledger,
    find_breaches,
    find_breaches_in_roots,
    find_differences,
)
from perdure.testing.processes import ROLES
from perdure.testing.soak_acts import Crowd, Person
from perdure.testing.soak_tree import Tree, TreeError, wait_until
from perdure_client import Client
from perdure_client.errors import ClientError
from perdure_client.settings import Session

# Where the file system can exchange two folders in one step, these are never come to
FALLBACKS = frozenset({"exchange.new_ready", "exchange.old_aside"})
_OF_REBUILD = "rebuild."  # crash points that no process of `perdure serve` comes to
_PAUSE = (0.2, 4.0)  # seconds between two deaths
KILLS: Mapping[str, int] = {  # each way to die, and how often it is chosen
    "trap": 5,
    "worker": 4,
    "data": 3,
    "web": 2,
    "one backend": 3,
    "database": 2,
    "everything": 2,
}
_TRIES = 12  # a death each, until an act must succeed
_ROUND = 900.0  # seconds between two rebuilds
_LAST_TRAPS = 20.0  # seconds
_JOBS_WITHIN = 180.0  # seconds: the wait before another attempt doubles

Outcome = TypeVar("Outcome")


class BreachError(Exception):
    """Something does not hold; the message is the whole report."""


@dataclass(slots=True)
class Soak:
    """One installation with what it has acknowledged, and a source of chance."""

    tree: Tree
    seed: int
    say: Callable[[str], object] = field(default=lambda line: None)
    ledger: Ledger = field(default_factory=Ledger)
    step: int = 0
    history: list[str] = field(default_factory=list)
    token: str = ""
    _riots: int = 0
    _people: list[Person] = field(default_factory=list)
    chance: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)  # noqa: S311  # what it chooses is no secret

    # The phases

    def begin(self) -> None:
        """Start the installation."""
        self.tree.start()
        with Client(Session(self.tree.url, None)) as visitor:
            secret = visitor.log_in("admin", self.tree.password())["secret"]
        with Client(Session(self.tree.url, secret)) as client:
            self.token = client.create_token("soak", verbs=["read", "write", "manage", "admin"])["secret"]

    def person(self, name: str) -> Person:
        """A further user."""
        # Each has a source of chance of his own: the order of threads must not change what a seed means
        chance = random.Random(f"{self.seed} {name}")  # noqa: S311
        self._people.append(Person(self.tree, self.token, self.ledger, name, chance))
        return self._people[-1]

    def tour(self) -> set[str]:
        """Die once at each crash point, in the order of an archive's life; the points that were never come to."""
        person = self.person("tourist")
        do = partial(self._do_among_traps, person)
        known = do("open", person.open, "open.", "publish.synced", "publish.folders_made")
        do("put a file", lambda: person.put_one(known), "staging.", "fill.")
        do("put another", lambda: person.put_one(known))
        do("seal", lambda: person.close(known), "seal.arranged", "seal.documents", "seal.fenced", "seal.moved")
        child = do("append", lambda: person.append(known), "publish.renamed", "head.shared")
        do("upload", lambda: person.put_large(child), "upload.")
        do("put a file there", lambda: person.put_one(child))
        do("replace it", lambda: person.replace(child), "remove.committed", "remove.noted")
        do("hide what is inherited", lambda: person.remove(child))
        do("go on sealing", lambda: person.close(child), "seal.published", "seal.rec", "seal.sealed", "seal.strays")
        third = do("open another", person.open, "head.written", "head.installed")
        do("ingest", lambda: person.ingest(third), "ingest.")
        do("copy", lambda: person.close(third), "place.")
        fourth = do("open a last one", person.open, "head.committed", "head.journal_reset")
        do("put a batch", lambda: person.put_batch(fourth))
        do("close", lambda: person.close(fourth), "close.", "receipt.")
        do("change it", lambda: person.patch_metadata(third), "change.", "journal.")
        do("describe", lambda: person.describe(third), "exchange.")
        do("withdraw", lambda: person.withdraw(fourth), "remove.marked", "remove.removed", "remove.renamed")
        return self._wait_for_traps()

    def riot(self, deaths: Iterable[str], *, people: int = 4, deaths_a_look: int = 1) -> None:
        """Let people work while processes die in these ways, in turn; look after so many deaths, and in the end."""
        self._riots += 1
        crowd = Crowd([self.person(f"person{number}of{self._riots}") for number in range(people)])
        crowd.start()
        number = 0
        try:
            for number, kind in enumerate(deaths, start=1):
                time.sleep(self.chance.uniform(*_PAUSE))
                self._kill(kind)
                if number % deaths_a_look:
                    continue
                crowd.rest()
                self.look(thorough=number % 10 == 0, also=crowd.take_breaches())
                crowd.go_on()
        finally:
            crowd.end()
        self.tree.wait_until_ready()
        for person in crowd.people:
            person.settle()
        self.look(also=crowd.take_breaches())
        lost, acts = sum(one.acts_lost for one in crowd.people), sum(one.acts_done for one in crowd.people)
        self._note(f"{acts} acts were acknowledged and {lost} were not, with {number} deaths")

    def deaths(self, seconds: float) -> Iterator[str]:
        """Ways to die at random, for so long."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            yield self.chance.choices(list(KILLS), list(KILLS.values()))[0]

    def look(self, *, thorough: bool = True, also: Sequence[Breach] = ()) -> None:
        """Compare what was acknowledged with what is there; raises BreachError."""
        self.tree.wait_until_ready()
        with Client(Session(self.tree.url, self.token)) as client:
            self._complain([*also, *find_breaches(client, self.ledger, thorough=thorough)])

    def finish(self) -> None:
        """Stop, judge the stores, throw the database away and rebuild it; raises BreachError."""
        self._wait_for_jobs()  # what one has begun stands in the stores before the database tells of it
        self.look()
        self.tree.stop()
        self._complain(find_breaches_in_roots(self.tree.roots(), self.ledger))
        self._complain(self._rebuild())

    def end(self) -> None:
        """Kill what runs, and close what people had open."""
        self.tree.kill()
        for person in self._people:
            person.client.close_connections()

    # Inside

    def _do_among_traps(self, person: Person, what: str, act: Callable[[], Outcome], *points: str) -> Outcome:
        """Do an act with traps at these points, again after each death, until it is done; then look."""
        self.step += 1
        self._note(what)
        for point in find_crash_points():
            if point.startswith(points or "nowhere"):
                self.tree.set_trap(point)
        outcomes: list[Outcome] = []
        for _ in range(_TRIES):
            if person.attempt(lambda: outcomes.append(act())):
                self.look(thorough=False, also=person.take_breaches())
                return outcomes[-1]
            self.tree.wait_until_ready()
        problem = Breach("I7", f"asked {_TRIES} times, it did not succeed: {what}")
        raise BreachError(self.report([*person.take_breaches(), problem]))

    def _wait_for_jobs(self) -> None:
        """Let everything that was asked for come to its end; raises TreeError."""
        db = Database(self.tree.database_url)

        def is_idle() -> bool:
            with db.begin() as tx:
                return not measure_queue(tx)

        try:
            wait_until(is_idle, "no job waits", seconds=_JOBS_WITHIN)
        finally:
            db.dispose()

    def _wait_for_traps(self) -> set[str]:
        """The traps that nobody comes to, also after what still goes on behind has had its time."""
        until = time.monotonic() + _LAST_TRAPS
        while (left := self.tree.traps() - FALLBACKS) and time.monotonic() < until:
            time.sleep(0.1)
        self.tree.clear_traps()
        return left

    def _kill(self, kind: str) -> None:
        self.step += 1
        if kind == "trap":
            point = self.chance.choice([one for one in find_crash_points() if not one.startswith(_OF_REBUILD)])
            self._note(f"a trap at {point}")
            self.tree.set_trap(point)
            time.sleep(self.chance.uniform(*_PAUSE))
            self.tree.clear_traps()
        elif kind == "everything":
            self._note("all processes are killed")
            self.tree.kill()
            self.tree.start()
        elif kind in ROLES:
            self._note(f"{kind} is killed, process {self.tree.kill_child(kind)}")
        else:
            pid = self.tree.kill_database(all_of_it=kind == "database", chance=self.chance)
            self._note(f"{kind} is killed, process {pid}")

    def _rebuild(self) -> list[Breach]:
        lost = EmbeddedServer(self.tree.data / "postgres")
        with tempfile.TemporaryDirectory(prefix="rebuilt-") as folder:
            fresh = EmbeddedServer(Path(folder), durable=False)
            try:
                url = fresh.start()
                migrate(url)
                return self._rebuild_among_traps(url) or find_differences(lost.start(), url)
            finally:
                lost.stop()
                fresh.stop()

    def _rebuild_among_traps(self, url: str) -> list[Breach]:
        """Rebuild into a new database; killed at each crash point of that, it is asked for again."""
        points = [point for point in find_crash_points() if point.startswith(_OF_REBUILD)]
        for point in points:
            self.tree.set_trap(point)
        ran = [
            self.tree.run("admin", "rebuild", environment={"PERDURE_DATABASE_URL": url}) for _ in range(len(points) + 1)
        ]
        self.tree.clear_traps()
        codes = [one.returncode for one in ran]
        if codes == [EXIT_STATUS] * len(points) + [0]:
            return []
        return [Breach("I9", f"the rebuilds among traps ended with {codes}: {ran[-1].stdout}{ran[-1].stderr}")]

    def _note(self, line: str) -> None:
        told = f"step {self.step}: {line}"
        self.history.append(told)
        self.say(told)

    def _complain(self, breaches: Sequence[Breach]) -> None:
        if breaches:
            raise BreachError(self.report(breaches))

    def report(self, breaches: Sequence[Breach | str]) -> str:
        """What was broken, when, and how to see it again."""
        lines = [f"seed {self.seed}, step {self.step}, folder {self.tree.folder} (kept)"]
        lines += [f"  {breach}" for breach in breaches[:20]]
        lines += ["the last steps:", *(f"  {line}" for line in self.history[-10:])]
        return "\n".join(lines)


def find_crash_points() -> list[str]:
    """The names of all crash points of the product, as its source has them."""
    [package] = perdure.__path__
    sources = (path.read_text() for path in Path(package).rglob("*.py") if path.parent.name != "testing")
    return sorted({name for source in sources for name in re.findall(r'\bcrash_point\("([a-z_.]+)"\)', source)})


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; 0 when everything held, 1 when something did not."""
    options = _parse(words)
    folder = options.folder or Path(tempfile.mkdtemp(prefix="soak-"))  # short: a socket lies in it
    soak = Soak(Tree(folder), options.seed, say=_say)
    _say(f"seed {soak.seed}, {options.minutes:g} minutes, folder {folder}, log {soak.tree.log}")
    try:
        _run(soak, options.minutes)
    except (BreachError, ClientError, TreeError, TimeoutError) as error:
        told = str(error) if isinstance(error, BreachError) else soak.report([f"{type(error).__name__}: {error}"])
        _say(f"BROKEN\n{told}")
        return 1
    finally:
        soak.end()
    if options.folder is None:
        shutil.rmtree(folder)
    _say("Everything held.")
    return 0


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _run(soak: Soak, minutes: float) -> None:
    until = time.monotonic() + minutes * 60
    soak.begin()
    never = soak.tour()
    if never:
        raise BreachError(soak.report([Breach("crash points", f"never come to: {sorted(never)}")]))
    while (left := until - time.monotonic()) > 0:
        soak.riot(soak.deaths(min(left, _ROUND)))
        soak.finish()
        soak.tree.start()
    soak.finish()


def _parse(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m perdure.testing.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0, help="how long to kill at random; 60 if not given")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32), help="of an earlier run")
    parser.add_argument("--folder", type=Path, help="a new folder with a short path; kept")
    return parser.parse_args(words)


if __name__ == "__main__":
    sys.exit(main())
