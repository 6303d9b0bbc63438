"""The one path parser: what it keeps, what it refuses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.doors.http.paths import decode_logical_path, encode_logical_path, set_tail_aside
from perdure.kernel.paths import BadPathError

_component = st.binary(min_size=1, max_size=40).filter(lambda c: not {0, 0x2F} & set(c) and c not in (b".", b".."))
_paths = st.lists(_component, min_size=1, max_size=6).map(b"/".join)
_PREFIX = b"/api/v1/archives/01938c2f-7b3a-7c0e-9f1d-2b4a6c8e0f12/files/"


@given(_paths)
def test_every_logical_path_survives_a_url(path: bytes) -> None:
    assert decode_logical_path(encode_logical_path(path).encode()) == path


@given(st.binary(max_size=60))
def test_whatever_comes_is_a_logical_path_or_refused(raw: bytes) -> None:
    try:
        path = decode_logical_path(raw)
    except BadPathError:
        return
    assert decode_logical_path(encode_logical_path(path).encode()) == path


@pytest.mark.parametrize(
    "raw",
    [b"a%2Fb", b"a%2fb", b"%00", b"a/%2e%2e/b", b"../b", b"/etc/passwd", b"%2e", b"a//b", b"a/", b"", b"a%", b"a%zz"],
)
def test_what_could_mislead_is_refused(raw: bytes) -> None:
    with pytest.raises(BadPathError):
        decode_logical_path(raw)


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        (b"a%0Ab", b"a\nb"),
        (b"%FF%fe", b"\xff\xfe"),
        (b"e%CC%81", "e\u0301".encode()),
        (b"a\\b", b"a\\b"),
        (b"a+b", b"a+b"),
    ],
)
def test_strange_names_stay_as_they_are(raw: bytes, path: bytes) -> None:
    assert decode_logical_path(raw) == path


def test_the_router_never_sees_the_path_inside_an_archive() -> None:
    scope = {"type": "http", "path": "x", "raw_path": _PREFIX + b"a%2Fb%0A/c", "root_path": ""}
    set_tail_aside(scope)
    assert scope["path"] == _PREFIX.decode() + "-"
    assert scope["archive.tail"] == b"a%2Fb%0A/c"


def test_a_proxys_root_path_is_kept_apart() -> None:
    scope = {"type": "http", "path": "x", "raw_path": b"/base" + _PREFIX + b"c", "root_path": "/base"}
    set_tail_aside(scope)
    assert scope["path"] == "/base" + _PREFIX.decode() + "-"


def test_other_addresses_are_left_alone() -> None:
    scope = {"type": "http", "path": "/api/v1/archives", "raw_path": b"/api/v1/archives", "root_path": ""}
    set_tail_aside(scope)
    assert scope["path"] == "/api/v1/archives"
    assert "archive.tail" not in scope
