"""Logical paths are kept as they are, and what could leave an archive is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.kernel.paths import BadPathError, check_path, display_path, find_path_problem, is_text_path, iter_ancestors

components = st.binary(min_size=1, max_size=20).filter(
    lambda c: b"/" not in c and b"\0" not in c and c not in (b".", b"..")
)
paths = st.lists(components, min_size=1, max_size=5).map(b"/".join)


@given(paths)
def test_a_path_is_returned_unchanged(path: bytes) -> None:
    assert check_path(path) == path


@pytest.mark.parametrize(
    "path",
    [b"", b"/a", b"a/", b"a//b", b".", b"..", b"a/../b", b"./a", b"a\0b", b"x" * 256, b"/".join([b"x" * 200] * 21)],
)
def test_what_is_no_path_inside_an_archive_is_refused(path: bytes) -> None:
    assert find_path_problem(path)
    with pytest.raises(BadPathError):
        check_path(path)


@pytest.mark.parametrize("path", [b"...", b".hidden", b"a..b", b"x" * 255, b"\xff", b"-rf", b" ", b"a\nb", b"~"])
def test_odd_names_are_allowed(path: bytes) -> None:
    assert find_path_problem(path) is None


@given(paths)
def test_ancestors_are_every_folder_above(path: bytes) -> None:
    parts = path.split(b"/")
    assert iter_ancestors(path) == [b"/".join(parts[:count]) for count in range(1, len(parts))]


@given(paths)
def test_every_path_can_be_shown(path: bytes) -> None:
    shown = display_path(path)
    assert shown.encode("utf-8") == path if is_text_path(path) else shown.isascii()


def test_bytes_that_are_no_text_are_shown_percent_encoded() -> None:
    assert display_path(b"caf\xe9/x y") == "caf%E9/x y"
    assert display_path("café".encode()) == "café"


def test_a_path_fits_a_key_of_the_database() -> None:
    """The limit is that of what can be sorted and found; there is no second one."""
    assert find_path_problem(b"/".join([b"x" * 249] * 10)) is None
    assert find_path_problem(b"/".join([b"x" * 249] * 10) + b"yy") is not None
