"""EIO, no room, short writes and lost answers, at every call of the stores and of the system below them.

The caller is told by a sentence, asks again, and everything is as if nothing had happened. Of each place that calls, a
run takes a few calls by chance; `PERDURE_FAULTS=all` takes the first, the last and one between of every place, and
`PERDURE_FAULTS=every` takes every call there is. `PERDURE_FAULTS_SEED` repeats a choice, and with one
`PERDURE_FAULTS_SHARE=3/8` takes the third of eight equal shares of it: for several evenings, or several machines.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import pytest

from perdure.db import Database
from perdure.storage.ports import Store
from perdure.testing.failing import FailingStore
from perdure.testing.faults import Fault, FaultPlan, call_site
from perdure.testing.system import GROWS, WRITES, failing_system

from .life import House, Life, live, two_folders

MODE = os.environ.get("PERDURE_FAULTS", "some")
SEED = int(os.environ.get("PERDURE_FAULTS_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 31)
SHARE, SHARES = map(int, os.environ.get("PERDURE_FAULTS_SHARE", "1/1").split("/"))
SOME = 12  # lives of each level in an ordinary run
LIVES_OF_A_HOUSE = 40
TAKES_BYTES = frozenset({"put_file", "sink.write", "upload.write"})
WRITES_OF_STORES = TAKES_BYTES | {
    "adopt_file",
    "append_log",
    "create_file",
    "create_upload",
    "exchange",
    "publish",
    "replace_log",
    "sink.close",
    "sync_tree",
    "upload.checkpoint",
    "upload.keep_note",
}
Place = tuple[bool, str, str, str]  # whether of a child's life, step, name and site of a call
READS_OF_STORES = frozenset(
    {"read_medium", "walk_object", "read_object", "has_object", "walk_tree", "read_log", "room", "iter_trees"}
)


@dataclass(frozen=True)
class Case:
    """One call that fails, in one life."""

    level: str
    fault: Fault
    loses_answer: bool
    is_of_child: bool
    step: str
    call: str
    site: str
    number: int


class Bench:
    """Houses on databases of their own, each for some lives; the calls of stores or of the system go through a plan."""

    def __init__(self, level: str, make_database: Callable[[], Database], folder: Path) -> None:
        self.level = level
        self._make_database = make_database
        self._folder = folder
        self._houses = 0
        self._lives = LIVES_OF_A_HOUSE
        self._house: House | None = None
        self._parent: UUID | None = None  # closed, for those lives that are about a child
        self.plan = FaultPlan()
        self.loses_answer = False
        self.roots: list[Path] = []

    def house(self) -> House:
        """The present house, or a new one when it has seen many lives."""
        if self._house is None or self._lives >= LIVES_OF_A_HOUSE:
            self.judge()
            self._lives, self._houses = 0, self._houses + 1
            place = self._folder / f"house-{self._houses}"
            self.plan = FaultPlan()
            self._house = House(self._make_database(), place, self._make_stores)
            self.roots = [place / "one", place / "two"]
            first = Life(self._house)
            live(first, steps=[*first.own_steps(), first.keep_up])  # what is done once for a house is done
            self._parent = first.archive
        self._lives += 1
        return self._house

    def _make_stores(self, house: House) -> Sequence[Store]:
        stores = two_folders(house)
        return [_Planned(store, self) for store in stores] if self.level == "stores" else stores

    def under(self, plan: FaultPlan) -> AbstractContextManager[None]:
        """Let a plan decide while the block runs."""
        self.plan = plan
        return failing_system(plan) if self.level == "system" else nullcontext()

    def judge(self) -> None:
        """What holds for a whole house at its end."""
        if self._house is None:
            return
        self.plan = FaultPlan()
        self._house.require_chain()
        self._house.require_usage()
        self._house.require_receipts()
        self._house.sweep()
        self._house = None

    def count(self) -> Counter[Place]:
        """The calls of undisturbed lives, one of each kind that `run` lets somebody live."""
        seen: Counter[Place] = Counter()
        for is_of_child in (False, True):
            life, steps = self._begin(is_of_child=is_of_child)

            def note(call: str, life: Life = life, *, is_of_child: bool = is_of_child) -> bool:
                seen[is_of_child, life.step, call, call_site()] += 1
                return True

            with self.under(FaultPlan(counts=note)):
                live(life, steps=steps)
        return seen

    def _begin(self, *, is_of_child: bool) -> tuple[Life, Iterator[Callable[[], None]]]:
        """A life and its steps: of an archive, or of a child of the closed one."""
        house = self.house()
        life = Life(house, archive=self._parent) if is_of_child else Life(house)
        return life, life.child_steps() if is_of_child else life.own_steps()

    def run(self, case: Case) -> tuple[bool, list[str]]:
        """One life with one fault; whether it came to it, and what callers were told."""
        told: list[str] = []
        life, steps = self._begin(is_of_child=case.is_of_child)
        is_here = lambda call: call == case.call and life.step == case.step and call_site() == case.site  # noqa: E731
        plan = FaultPlan(at=case.number, fault=case.fault, counts=is_here)
        self.loses_answer = case.loses_answer
        with self.under(plan):
            live(life, told, steps)
        return bool(plan.injected), told


class _Planned(FailingStore):
    """A store under the bench's plan of the moment."""

    def __init__(self, inner: Store, bench: Bench) -> None:
        self._bench = bench
        super().__init__(inner, bench.plan)

    @property
    def plan(self) -> FaultPlan:
        return self._bench.plan

    @plan.setter
    def plan(self, plan: FaultPlan) -> None:
        pass

    @property
    def _acts_first(self) -> bool:
        return self._bench.loses_answer

    @_acts_first.setter
    def _acts_first(self, value: bool) -> None:
        pass


def iter_faults(level: str, call: str) -> Iterator[tuple[Fault, bool]]:
    """What can befall a call, and whether it did its work before."""
    yield Fault.FAILED, False
    if level == "system":
        if call in GROWS:
            yield Fault.FULL, False
        if call in WRITES:
            yield Fault.SHORT, False
        return
    if call in WRITES_OF_STORES:
        yield Fault.FULL, False
    if call in TAKES_BYTES:
        yield Fault.SHORT, False
    if call not in READS_OF_STORES:
        yield Fault.FAILED, True


def plan_cases(level: str, seen: Counter[Place], chance: random.Random) -> list[Case]:
    """The cases of this run, in a random order."""
    cases = []
    for (is_of_child, step, call, site), count in seen.items():
        if step == "end":  # where nobody asks again
            continue
        numbers = range(1, count + 1) if MODE == "every" else {1, count, chance.randint(1, count)}
        for fault, loses_answer in iter_faults(level, call):
            cases += [Case(level, fault, loses_answer, is_of_child, step, call, site, one) for one in sorted(numbers)]
    chance.shuffle(cases)
    return cases[:SOME] if MODE == "some" else cases[SHARE - 1 :: SHARES]


@pytest.mark.slow
@pytest.mark.timeout(0 if MODE != "some" else 300)
@pytest.mark.parametrize("level", ["stores", "system"])
def test_whatever_call_fails(
    level: str,
    make_database: Callable[[], Database],
    fast_folder: Path,
    require_valid: Callable[[Path], None],
    subtests: pytest.Subtests,
) -> None:
    bench = Bench(level, make_database, fast_folder)
    chance = random.Random(SEED)
    cases = plan_cases(level, bench.count(), chance)
    missed = 0
    for case in cases:
        with subtests.test(seed=SEED, case=str(case)):
            was_hit, _ = bench.run(case)
            missed += not was_hit
    bench.judge()
    for root in fast_folder.glob("house-*/*/root"):
        require_valid(root)
    assert missed <= len(cases) // 12, f"{missed} of {len(cases)} faults found no call (seed {SEED})"
