"""Ranges, entity tags, digests in headers, cursors, words: values in, values out."""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha512

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers

from perdure.doors.http.cursors import A_NUMBER, decode_cursor, encode_cursor
from perdure.doors.http.digest_fields import format_legacy_digest, format_repr_digest, stated_digests
from perdure.doors.http.errors import (
    BadCursorError,
    ConditionFailedError,
    MalformedRequestError,
    RangeNotSatisfiableError,
)
from perdure.doors.http.preconditions import expected_revision, find_span, is_not_modified, require_match
from perdure.doors.ui.words import say_copies, say_count, say_size


@given(st.integers(0, 1000), st.integers(0, 1200), st.integers(0, 1200))
def test_a_range_is_what_slicing_gives(size: int, first: int, last: int) -> None:
    content = bytes(index % 251 for index in range(size))
    headers = Headers({"range": f"bytes={first}-{last}"})
    if last < first:
        assert find_span(headers, size, None) is None
    elif first >= size:
        with pytest.raises(RangeNotSatisfiableError):
            find_span(headers, size, None)
    else:
        span = find_span(headers, size, None)
        assert span is not None
        assert content[span.start : span.stop] == content[first : last + 1]


@given(st.integers(1, 1000), st.integers(1, 2000))
def test_a_suffix_range_counts_from_the_end(size: int, length: int) -> None:
    span = find_span(Headers({"range": f"bytes=-{length}"}), size, None)
    assert span is not None
    assert (span.start, span.stop) == (max(0, size - length), size)


@pytest.mark.parametrize("field", ["bytes=0-1,3-4", "lines=0-1", "bytes=-", "bytes=a-b", "bytes 0-1", "bytes=0-1;x"])
def test_other_ranges_are_answered_with_the_whole(field: str) -> None:
    assert find_span(Headers({"range": field}), 10, None) is None


def test_a_range_holds_only_for_the_state_it_was_begun_with() -> None:
    wanted = {"range": "bytes=0-1"}
    assert find_span(Headers({**wanted, "if-range": '"x"'}), 10, '"x"') is not None
    assert find_span(Headers({**wanted, "if-range": '"y"'}), 10, '"x"') is None
    assert find_span(Headers({**wanted, "if-range": 'W/"x"'}), 10, '"x"') is None
    assert find_span(Headers({**wanted, "if-range": "Fri, 20 Nov 2026 12:00:00 GMT"}), 10, '"x"') is None


def test_conditions_compare_weakly_for_none_match_and_strongly_for_match() -> None:
    assert is_not_modified(Headers({"if-none-match": 'W/"x", "y"'}), '"x"')
    assert not is_not_modified(Headers({"if-none-match": '"y"'}), '"x"')
    require_match(Headers({"if-match": '"y", "x"'}), '"x"')
    with pytest.raises(ConditionFailedError):
        require_match(Headers({"if-match": 'W/"x"'}), '"x"')


def test_if_match_names_one_revision_of_the_right_kind() -> None:
    assert expected_revision(Headers({"if-match": '"r7"'}), "r") == 7
    assert expected_revision(Headers({"if-match": "*"}), "r") is None
    with pytest.raises(ConditionFailedError):
        expected_revision(Headers({"if-match": '"m7"'}), "r")
    with pytest.raises(MalformedRequestError):
        expected_revision(Headers({"if-match": "r7"}), "r")


def test_digests_go_out_and_come_back() -> None:
    digest = sha512(b"x").hexdigest()
    field = format_repr_digest({"sha512": digest, "crc32": "8cdc1683"})
    assert field == f"sha-512=:{b64encode(sha512(b'x').digest()).decode()}:"
    assert stated_digests(Headers({"repr-digest": field})) == {"sha512": digest}
    with pytest.raises(MalformedRequestError):
        stated_digests(Headers({"content-digest": "sha-512=:AAAA:"}))


def test_the_old_digest_header_gives_the_best_that_is_known() -> None:
    known = {"adler32": "033a366c", "md5": "d41d8cd98f00b204e9800998ecf8427e"}
    assert format_legacy_digest(known, "adler32;q=0.5, md5;q=1") == "md5=1B2M2Y8AsgTpgAmY7PhCfg=="
    assert format_legacy_digest(known, "sha-256, adler32") == "adler32=033a366c"
    assert format_legacy_digest(known, "adler32;q=0") is None
    assert format_legacy_digest(known, None) is None


def test_a_cursor_belongs_to_its_list() -> None:
    cursor = encode_cursor("archives", "17")
    assert decode_cursor("archives", cursor, A_NUMBER) == "17"
    with pytest.raises(BadCursorError):
        decode_cursor("events", cursor, A_NUMBER)
    with pytest.raises(BadCursorError):
        decode_cursor("archives", encode_cursor("archives", "17; DROP"), A_NUMBER)


@given(st.text(max_size=200))
def test_no_text_makes_a_cursor_by_chance(text: str) -> None:
    with pytest.raises(BadCursorError):
        decode_cursor("archives", text, A_NUMBER)


def test_sizes_counts_and_copies_in_words() -> None:
    assert [say_size(n) for n in (0, 1, 999, 1000, 999_499, 999_500, 1_838_000_000_000)] == [
        "0 bytes",
        "1 byte",
        "999 bytes",
        "1.00 kB",
        "999 kB",
        "1.00 MB",
        "1.84 TB",
    ]
    assert say_count(150_000, "file") == "150,000 files"
    assert say_copies(2, 3, wanted=3) == "Two of three copies are verified."
    assert say_copies(1, 1, wanted=2) == "One of two copies is verified."
    assert say_copies(2, 2, wanted=2) == "Both copies are verified."
