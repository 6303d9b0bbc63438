"""Helpers copy many files with calls of one kind after the other, and each as if it had been copied by itself."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perdure.adapters.posix.helper import HelperProcess
from perdure.adapters.posix.store import PosixStore
from perdure.formats.content_paths import hashed_content_path, natural_content_path
from perdure.kernel.ids import new_id
from perdure.storage.helpers import SourceFile
from perdure.storage.model import DATA_PREFIX, PartRef, Received
from perdure.storage.source_files import SMALL
from perdure.storage.staging import Staging, tree_of
from perdure.testing.stores import INSTANCE

DIGESTS = frozenset({"sha512", "crc32", "md5"})
ODD = ("missing", "link", "fifo", "folder", "large", "taken", "twice", "below a file", "unportable")


@pytest.fixture(scope="module")
def staging(tmp_path_factory: pytest.TempPathFactory) -> Staging:
    store = PosixStore("first", tmp_path_factory.mktemp("store") / "first")
    store.prepare(INSTANCE)
    return Staging(store)


@pytest.fixture(scope="module")
def helper(staging: Staging) -> Iterator[HelperProcess]:
    assert isinstance(staging.store, PosixStore)
    helper = staging.store.start_helper()
    if not isinstance(helper, HelperProcess):
        pytest.skip("this file system has no helpers")
    yield helper
    helper.close()


def make_source(folder: Path, staging: Staging, parts: list[PartRef], number: int, kind: str) -> tuple[bytes, bytes]:
    """Make something of this kind; returns its name in the folder and the path that it shall get."""
    name = b"%03d" % number
    place, path = folder / f"{number:03d}", b"in %d/" % (number % 3) + name
    match kind:
        case "missing":
            pass
        case "link":
            place.symlink_to(".")
        case "fifo":
            os.mkfifo(place)
        case "folder":
            place.mkdir()
        case "large":
            place.write_bytes(os.urandom(SMALL + 1))
        case _:
            place.write_bytes(os.urandom(number * 70))
            place.chmod(0o600 + number % 8)
    if kind in ("taken", "below a file"):
        for part in parts:
            staging.write_small(part, path, b"other", DIGESTS)
    match kind:
        case "twice":
            return b"twice", b"twice"
        case "below a file":
            return name, path + b"/below"
        case "unportable":
            return name, path + b"\xe9"
    return name, path


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    ordinary=st.integers(0, 140),
    odd=st.lists(st.tuples(st.integers(0, 140), st.sampled_from(ODD)), max_size=6),
    folders=st.integers(1, 2),
)
def test_files_are_copied_as_if_each_were_alone(
    staging: Staging,
    helper: HelperProcess,
    tmp_path: Path,
    ordinary: int,
    odd: list[tuple[int, str]],
    folders: int,
) -> None:
    folder = tmp_path / str(new_id())
    folder.mkdir()
    (folder / "twice").write_bytes(b"twice")
    parts = [PartRef(new_id(), new_id()) for _ in range(2)]
    kinds = ["file"] * ordinary
    for place, kind in odd:
        kinds.insert(place, kind)
    wanted = [make_source(folder, staging, parts, number, kind) for number, kind in enumerate(kinds)]
    descriptors = [os.open(folder, os.O_RDONLY) for _ in range(folders)]
    try:
        sources = [SourceFile(name, descriptors[number % folders], path) for number, (name, path) in enumerate(wanted)]
        before = dict(staging.store.walk_tree(tree_of(parts[0])))
        beside = helper.copy(tree_of(parts[0]), sources, DIGESTS)
        alone = [copy_alone(staging, parts[1], source) for source in sources]
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    require_alike(sources, beside, alone)
    copied = {DATA_PREFIX + one.content: one.size for one in beside if one is not None}
    assert dict(staging.store.walk_tree(tree_of(parts[0]))) == before | copied
    for source, one in zip(sources, beside, strict=True):
        if one is not None:
            read = staging.store.read_file(tree_of(parts[0]), DATA_PREFIX + one.content)
            assert b"".join(read) == (folder / os.fsdecode(source.name)).read_bytes()


def copy_alone(staging: Staging, part: PartRef, source: SourceFile) -> Received | Exception:
    try:
        return staging.copy_in(part, source.name, source.path, DIGESTS, source.dir_fd)
    except Exception as error:
        return error


def require_alike(sources: list[SourceFile], beside: list[Received | None], alone: list[Received | Exception]) -> None:
    """What was copied is the same in both ways; what was declined is what the other way refuses, or finds odd."""
    for source, many, one in zip(sources, beside, alone, strict=True):
        natural = natural_content_path(source.path)
        if isinstance(one, Exception) or one.size > SMALL or (natural is not None and one.content != natural):
            assert many is None
            continue
        assert many is not None
        if natural is None:
            assert many.content.startswith(hashed_content_path(source.path) + ".")
            one = one._replace(content=many.content)
        assert many == one
