"""Content paths keep names where every system can, and never meet on any."""

from __future__ import annotations

import random
import re
import unicodedata
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.formats import content_paths
from perdure.formats.content_paths import hashed_content_path, natural_content_path, plan_content_paths

from .strategies import paths


@pytest.mark.parametrize(
    "name", ["a", "scan_001/frame.h5", "ä/ö.txt", "a b", "-x", ".hidden", "100%", "inventory.json", "数据/图"]
)
def test_a_portable_name_is_kept(name: str) -> None:
    assert natural_content_path(name.encode()) == name


@pytest.mark.parametrize(
    "path",
    [
        b"caf\xe9", "a\u0308".encode(), b"a\\b", b"a\nb", b"a\x7f", b"a:b", b"a*", b"a?", b'a"', b"a|b", b"<a>", b"a.",
        b"a ", b" a", b"_/a", b"_", "\uff3f/a".encode(), b"con", b"Aux.txt", b"d/LPT1.dat", "com\u00b9".encode(),
        "a\u200bb".encode(), "\ue000".encode(), "a\u2028".encode(), "\x85".encode(), b"x" * 201,
        b"/".join([b"x" * 99] * 8),
    ],
)  # fmt: skip
def test_a_name_that_some_system_refuses_is_not_kept(path: bytes) -> None:
    assert natural_content_path(path) is None
    assert plan_content_paths([path]) == {path: hashed_content_path(path)}


_pieces = st.sampled_from([*"aZ09_.+=@-/ ~%", "con", "AUX", "com1", "lpt", "nul.", "/..", "_/"])


@given(st.lists(_pieces, min_size=1, max_size=6).map("".join))
def test_a_name_judged_at_a_glance_is_judged_as_by_close_look(text: str) -> None:
    at_a_glance = natural_content_path(text.encode())
    with patch.object(content_paths, "_PLAIN_PATH", re.compile(rb"(?!)")):
        assert natural_content_path(text.encode()) == at_a_glance


@pytest.mark.parametrize(
    ("twins", "others"),
    [
        (["A", "a"], ["b"]),
        (["é", "É"], ["e"]),
        (["straße", "STRASSE"], ["strase"]),
        (["x/Data", "X/data"], ["x/date"]),
        (["a", "A/b"], ["c/a"]),
        (["ﬁle", "file"], ["fil"]),
        (["d/Raw/x", "d/raw"], ["d/row/x"]),
    ],
)
def test_twins_lose_their_names_and_others_keep_them(twins: list[str], others: list[str]) -> None:
    planned = plan_content_paths([name.encode() for name in twins + others])
    assert planned == {
        **{name.encode(): hashed_content_path(name.encode()) for name in twins},
        **{name.encode(): name for name in others},
    }


def test_folders_that_differ_in_case_only_may_stay() -> None:
    assert plan_content_paths([b"Raw/a", b"raw/b"]) == {b"Raw/a": "Raw/a", b"raw/b": "raw/b"}


@given(st.lists(paths, unique=True, max_size=12), st.randoms(use_true_random=False))
def test_no_two_files_meet_and_the_order_does_not_matter(listed: list[bytes], chance: random.Random) -> None:
    planned = plan_content_paths(listed)
    assert list(planned) == listed
    for fold in (str, lambda name: unicodedata.normalize("NFD", name).casefold(), str.lower, str.upper):
        folded = [fold(content) for content in planned.values()]
        folders = {name[:end] for name in folded for end, character in enumerate(name) if character == "/"}
        assert len(set(folded)) == len(listed)
        assert not folders & set(folded)
    chance.shuffle(listed)
    assert plan_content_paths(listed) == planned


def test_a_path_given_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        plan_content_paths([b"a", b"a"])
