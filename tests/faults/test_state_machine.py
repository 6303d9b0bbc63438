"""Archives driven at random, with deaths at every step, against a model in memory (I1, I2, I6 to I9, I11)."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any, ClassVar
from uuid import UUID

import pytest
from hypothesis import HealthCheck, event, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from . import acts
from .acts import Given
from .doing import found
from .victim import Victims
from .world import World

pytestmark = pytest.mark.slow
Judge = Callable[[Path], None]
_LARGE = bytes(range(256)) * 4500  # more than is written in one step

NAMES = st.lists(st.sampled_from([b"a", b"A", b"b", b"a-b", b"\xff"]), min_size=1, max_size=3).map(b"/".join)
CONTENTS = st.sampled_from([0, 1, 2, 5000, len(_LARGE)]).map(lambda size: _LARGE[-size:] if size else b"")
FILES = st.builds(Given, NAMES, st.just("file"), CONTENTS)
GIVEN = (
    FILES
    | FILES
    | FILES
    | st.builds(Given, NAMES, st.just("directory"))
    | st.builds(Given, NAMES, st.just("symlink"), st.just(b"t"))
)
LEAVES = st.sampled_from([1, 2.5, "text", True, {"value": 12.4, "unit": "keV"}, None, [1, 2]])
PATCHES = st.dictionaries(
    st.sampled_from(["beam", "b/c", "n"]), LEAVES | st.dictionaries(st.sampled_from(["x", "y"]), LEAVES), min_size=1
).map(json.dumps)
# After so many crash points it dies; None: it lives. Most acts meet a handful of them, what jobs do up to a hundred.
CRASHES = st.none() | st.integers(0, 4)
CRASHES_OF_JOBS = st.none() | st.integers(0, 20) | st.integers(0, 100)
NUMBERS = st.integers(0, 1000)
TITLES = st.sampled_from(["One", "Two", "Drei"])
BEHIND = st.none() | st.sampled_from([0, 1])


class Archives(RuleBasedStateMachine):
    """Every rule is one act of the world; which archive or upload it is about is a number modulo those there are."""

    make_world: ClassVar[Callable[[], World]]
    require_valid: ClassVar[Judge]
    met: ClassVar[Counter[str]]

    def __init__(self) -> None:
        super().__init__()
        self.world = type(self).make_world()
        self._keys = count()

    @initialize(given=FILES)
    def begin(self, given: Given) -> None:
        self.world.act(acts.Open("first", "One"))
        self.world.act(acts.Put(self._archive(0), given))

    def _archive(self, number: int) -> UUID:
        """The newest archives are asked for most, so that chains grow."""
        present = list(self.world.model.layers)
        return present[-1 - number % len(present)]

    def _upload(self, number: int) -> UUID:
        present = list(self.world.model.uploads)
        return present[number % len(present)]

    def _has_uploads(self) -> bool:
        return bool(self.world.model.uploads)

    def _act(self, act: acts.Act, crash: int | None, *, again: bool = False) -> None:
        known = len(self.world.met)
        self.world.act(act, crash, again=again)
        for point in self.world.met[known:]:
            event(f"died at {point}")
            self.met[point] += 1

    @precondition(lambda self: len(self.world.model.layers) < 5)
    @rule(title=TITLES, crash=CRASHES_OF_JOBS, again=st.booleans())
    def open(self, title: str, crash: int | None, again: bool) -> None:
        self._act(acts.Open(f"open {next(self._keys)}", title), crash, again=again)

    @precondition(lambda self: len(self.world.model.layers) < 6)
    @rule(number=NUMBERS, title=TITLES, crash=CRASHES_OF_JOBS, again=st.booleans())
    def append(self, number: int, title: str, crash: int | None, again: bool) -> None:
        self._act(acts.Append(f"append {next(self._keys)}", self._archive(number), title), crash, again=again)

    @rule(number=NUMBERS, given=GIVEN, replace=st.booleans(), crash=CRASHES, again=st.booleans())
    def put(self, number: int, given: Given, replace: bool, crash: int | None, again: bool) -> None:
        if given.kind == "file":
            self._act(acts.Put(self._archive(number), given, replace), crash, again=again and replace)
        else:
            self._act(acts.Batch(self._archive(number), (given,)), crash, again=again)

    @rule(number=NUMBERS, items=st.lists(GIVEN, max_size=6), crash=CRASHES, again=st.booleans())
    def batch(self, number: int, items: list[Given], crash: int | None, again: bool) -> None:
        self._act(acts.Batch(self._archive(number), tuple(items)), crash, again=again)

    @rule(number=NUMBERS, path=NAMES, size=st.sampled_from([1, 5000, len(_LARGE)]), crash=CRASHES)
    def begin_upload(self, number: int, path: bytes, size: int, crash: int | None) -> None:
        self._act(acts.BeginUpload(self._archive(number), path, size), crash)

    @precondition(_has_uploads)
    @rule(number=NUMBERS, share=st.sampled_from([0.0, 0.5, 1.0, 1.0]), crash=CRASHES, again=st.booleans())
    def send(self, number: int, share: float, crash: int | None, again: bool) -> None:
        key = self._upload(number)
        upload = self.world.model.uploads[key]
        offset = len(upload.sent)
        data = _LARGE[offset : offset + int((upload.size - offset) * share)]
        self._act(acts.Send(key, offset, data), crash, again=again)

    @precondition(_has_uploads)
    @rule(number=NUMBERS)
    def send_elsewhere(self, number: int) -> None:
        key = self._upload(number)
        self._act(acts.Send(key, len(self.world.model.uploads[key].sent) + 1, b"x"), None)

    @precondition(_has_uploads)
    @rule(number=NUMBERS, crash=CRASHES, again=st.booleans())
    def abort(self, number: int, crash: int | None, again: bool) -> None:
        self._act(acts.Abort(self._upload(number)), crash, again=again)

    @precondition(_has_uploads)
    @rule()
    def expire(self) -> None:
        self.world.let_uploads_expire()

    @rule(number=NUMBERS, path=NAMES, recursive=st.booleans(), crash=CRASHES, again=st.booleans())
    def remove(self, number: int, path: bytes, recursive: bool, crash: int | None, again: bool) -> None:
        self._act(acts.Remove(self._archive(number), path, recursive), crash, again=again)

    @rule(number=NUMBERS, path=NAMES, crash=CRASHES, again=st.booleans())
    def hide(self, number: int, path: bytes, crash: int | None, again: bool) -> None:
        self._act(acts.Hide(self._archive(number), path), crash, again=again)

    @rule(number=NUMBERS, path=st.just(b"") | NAMES, patch=PATCHES, behind=BEHIND, crash=CRASHES, again=st.booleans())
    def patch(self, number: int, path: bytes, patch: str, behind: int | None, crash: int | None, again: bool) -> None:
        self._act(acts.Patch(self._archive(number), path, patch, behind), crash, again=again)

    @rule(number=NUMBERS, title=TITLES, behind=BEHIND, crash=CRASHES, again=st.booleans())
    def describe(self, number: int, title: str, behind: int | None, crash: int | None, again: bool) -> None:
        self._act(acts.Describe(self._archive(number), title, behind), crash, again=again)

    @rule(number=NUMBERS, days=st.integers(-1, 3), crash=CRASHES)
    def extend(self, number: int, days: int, crash: int | None) -> None:
        self._act(acts.Extend(self._archive(number), days), crash)

    @rule(number=NUMBERS, discard_uploads=st.booleans(), crash=CRASHES, again=st.booleans())
    def close(self, number: int, discard_uploads: bool, crash: int | None, again: bool) -> None:
        self._act(acts.Close(self._archive(number), discard_uploads), crash, again=again)

    @rule(number=NUMBERS, crash=CRASHES_OF_JOBS, again=st.booleans())
    def close_and_wait(self, number: int, crash: int | None, again: bool) -> None:
        self._act(acts.Close(self._archive(number), True), None)
        self._act(acts.Work(), crash, again=again)

    @rule(number=NUMBERS)
    def reopen(self, number: int) -> None:
        self._act(acts.Reopen(self._archive(number)), None)

    @rule(number=NUMBERS, crash=CRASHES, again=st.booleans())
    def discard(self, number: int, crash: int | None, again: bool) -> None:
        self._act(acts.Discard(self._archive(number)), crash, again=again)

    @rule(number=NUMBERS, crash=CRASHES, again=st.booleans())
    def withdraw(self, number: int, crash: int | None, again: bool) -> None:
        self._act(acts.Withdraw(self._archive(number)), crash, again=again)

    @rule(crash=CRASHES_OF_JOBS, again=st.booleans())
    def work(self, crash: int | None, again: bool) -> None:
        self._act(acts.Work(), crash, again=again)

    @rule(number=NUMBERS, crash=CRASHES_OF_JOBS)
    def verify(self, number: int, crash: int | None) -> None:
        self._act(acts.Verify(self._archive(number)), crash)

    @rule(number=NUMBERS, which=NUMBERS)
    def damage(self, number: int, which: int) -> None:
        archive = self._archive(number)
        if self.world.model.layers[archive].state == "closed":
            self.world.damage(archive, which)

    @rule(number=NUMBERS, crash=CRASHES_OF_JOBS)
    def repair(self, number: int, crash: int | None) -> None:
        archive = self._archive(number)
        if self.world.model.layers[archive].state == "closed":
            self._act(acts.Repair(archive), crash)

    @rule(crash=CRASHES_OF_JOBS)
    def upkeep(self, crash: int | None) -> None:
        self._act(acts.Upkeep(), crash)

    @rule()
    def restart(self) -> None:
        self.world.restart()
        self.world.check()

    @rule()
    def rebuild(self) -> None:
        self.world.rebuild()

    @rule()
    def read_all(self) -> None:
        self.world.check_contents()

    def teardown(self) -> None:
        try:
            self.world.finish(type(self).require_valid)
        finally:
            self.world.close()


@pytest.fixture(scope="module")
def victims() -> Iterator[Victims]:
    made = Victims()
    yield made
    made.close()


@pytest.fixture
def make_world(postgres: Any, fast_folder: Path, victims: Victims, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Makes worlds one after the other, each on a folder and on databases of its own."""
    monkeypatch.setattr("perdure.archives.model.MAX_PART_FILES", 3)  # restored at the end
    numbers, urls, worlds = count(), list[str](), list[World]()
    first = found(fast_folder / "first", postgres.make_ready())

    def make_database() -> str:
        urls.append(str(postgres.make_ready()))
        return urls[-1]

    def make() -> World:
        while urls:
            postgres.drop(urls.pop())
        urls.append(postgres.make_copy(first.database_url))
        folder = fast_folder / str(next(numbers))
        shutil.copytree(first.folder, folder)
        worlds.append(World(replace(first, folder=folder, database_url=urls[-1]), make_database, victims))
        return worlds[-1]

    yield make
    for world in worlds[-1:]:
        world.close()
    for url in (*urls, first.database_url):
        postgres.drop(url)


@pytest.mark.timeout(0)  # the profile says how long it takes
def test_archives_are_what_was_acknowledged(make_world: Callable[[], World], require_valid: Judge) -> None:
    class Machine(Archives):
        pass

    Machine.make_world, Machine.require_valid, Machine.met = make_world, require_valid, Counter()
    steps = settings(
        max_examples=max(settings().max_examples // 12, 2),
        stateful_step_count=25,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(Machine, settings=steps)
    print("died at", dict(sorted(Machine.met.items())))


def test_an_upload_that_dies_at_any_step_of_its_end_goes_on(make_world: Callable[[], World]) -> None:
    """Once it is moved to where it stays, nothing of it is sent again, and its holder is told so."""
    world = make_world()
    world.act(acts.Open("first", "One"))
    (archive,) = world.model.layers
    for steps in range(20):
        data = _LARGE[: 9000 + steps]
        world.act(acts.BeginUpload(archive, b"f", len(data)))
        (upload,) = world.model.uploads
        known = len(world.met)
        world.act(acts.Send(upload, 0, data), steps, again=True)
        if len(world.met) == known:
            break
    world.check_contents()
    assert {"upload.flushed", "upload.noted", "upload.moved", "fill.committed"} <= set(world.met)


@pytest.mark.parametrize("point", ["seal.moved", "seal.documents_written", "publish.renamed", "seal.sealed"])
def test_a_closing_that_died_and_is_taken_back_is_read_again(make_world: Callable[[], World], point: str) -> None:
    """A part on its way into the root is brought there, although nobody closes the archive any more."""
    world = make_world()
    world.act(acts.Open("first", "One"))
    (archive,) = world.model.layers
    world.act(acts.Batch(archive, (Given(b"a", "file", b"1"), Given(b"A", "file", b"2"), Given(b"\xff", "file", b"3"))))
    world.act(acts.Close(archive))
    world.act(acts.Work(), point)
    assert world.met == [point]
    world.act(acts.Reopen(archive))
    world.act(acts.Work())
    world.check_contents()
    world.act(acts.Put(archive, Given(b"a", "file", b"after")))
    world.check_contents()


def test_what_is_withdrawn_before_it_is_verified_has_no_copy_to_read(make_world: Callable[[], World]) -> None:
    world = make_world()
    world.act(acts.Open("first", "One"))
    (archive,) = world.model.layers
    world.act(acts.Put(archive, Given(b"a", "file", b"1")))
    world.act(acts.Close(archive))
    world.act(acts.Work())
    world.act(acts.Verify(archive))
    world.act(acts.Withdraw(archive))
    world.act(acts.Verify(archive))
    assert world.model.layers[archive].state == "withdrawn"


@pytest.mark.parametrize("again", [False, True])
def test_the_same_content_put_again_by_a_process_that_dies_is_there_once(
    make_world: Callable[[], World], again: bool
) -> None:
    """Until the path is put again, a rebuild may take the one staged file or the other: the bytes are the same."""
    world = make_world()
    world.act(acts.Open("first", "One"))
    (archive,) = world.model.layers
    put = acts.Put(archive, Given(b"a", "file", _LARGE))
    world.act(put)
    world.act(put, "fill.synced", again=again)
    assert world.met == ["fill.synced"]
    world.rebuild()
    world.check_contents()


def test_one_in_place_of_true_is_a_change(make_world: Callable[[], World]) -> None:
    world = make_world()
    world.act(acts.Open("first", "One"))
    (archive,) = world.model.layers
    for patch in ('{"beam": true}', '{"beam": 1}', '{"beam": 1}'):
        world.act(acts.Patch(archive, b"", patch))
    assert world.model.layers[archive].history == [b"", b""]


def test_a_contradiction_that_a_rebuild_brought_is_told_by_the_next(make_world: Callable[[], World]) -> None:
    """What would have been refused was noted when its process died, and no log says which of the two is wrong."""
    world = make_world()
    world.act(acts.Open("first", "One"))
    (archive,) = world.model.layers
    world.act(acts.Batch(archive, (Given(b"a", "symlink", b"t"),)))
    world.act(acts.Put(archive, Given(b"a/b", "file", b"1")), "fill.synced")
    assert world.met == ["fill.synced"]
    for _ in range(2):
        world.rebuild()
        assert world.model.layers[archive].entries.keys() == {b"a", b"a/b"}
    world.act(acts.Remove(archive, b"a/b"))
    world.rebuild()
    assert world.model.layers[archive].entries.keys() == {b"a"}


@pytest.mark.parametrize(
    "never",
    [
        Given(b"a", "file", b"never"),
        Given(b"a", "symlink", b"t"),
        Given(b"a", "directory"),
        Given(b"a/b", "file", b"never"),
        Given(b"b", "file", b"never"),
    ],
)
def test_what_an_interrupted_act_noted_is_forgotten_by_the_next_upkeep(
    make_world: Callable[[], World], never: Given
) -> None:
    world = make_world()
    world.act(acts.Open("first", "One"))
    (archive,) = world.model.layers
    world.act(acts.Put(archive, Given(b"a", "file", b"acknowledged")))
    world.act(acts.Batch(archive, (never,)), "fill.synced")
    assert world.met == ["fill.synced"]
    world.act(acts.Upkeep(), "renote.counted")
    world.act(acts.Upkeep(), "renote.noted")
    assert world.met == ["fill.synced", "renote.counted", "renote.noted"]
    world.act(acts.Upkeep())
    world.rebuild()
    assert world.model.layers[archive].entries.keys() == {b"a"}
    world.check_contents()


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_a_removal_that_dies_never_shows_what_an_ancestor_has(make_world: Callable[[], World], steps: int) -> None:
    world = make_world()
    world.act(acts.Open("first", "One"))
    (parent,) = world.model.layers
    world.act(acts.Put(parent, Given(b"a", "file", b"inherited")))
    world.act(acts.Close(parent))
    world.act(acts.Work())
    world.act(acts.Append("second", parent, "Two"))
    (child,) = world.model.layers.keys() - {parent}
    world.act(acts.Put(child, Given(b"a", "file", b"own")))
    world.act(acts.Remove(child, b"a"), steps, again=True)
    assert world.met
