"""Equal documents have one spelling, and nothing but JSON is read."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.formats.canonical import canonical_json, canonical_line, parse_json, parse_json_object
from perdure.formats.errors import DamagedFormatError

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4))


@given(values)
def test_a_value_reads_back_and_is_spelled_once(value: object) -> None:
    spelled = canonical_json(value)
    assert parse_json(spelled) == value
    assert canonical_json(parse_json(spelled)) == spelled
    assert b"\n" not in spelled


@given(values | st.text(st.characters(max_codepoint=0x9F)))
def test_the_spelling_is_that_of_the_standard_library(value: object) -> None:
    spelled = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    assert canonical_json(value) == spelled.encode()
    assert canonical_line(value) == spelled.encode() + b"\n"


@given(st.dictionaries(texts, scalars, max_size=6))
def test_the_order_of_keys_does_not_matter(members: dict[str, object]) -> None:
    assert canonical_json(dict(reversed(members.items()))) == canonical_json(members)


def test_the_spelling() -> None:
    value = {"é": [1, 2.5, 1e300, True, None], "a": '\u2028\x7f\n"\\', "Z": {}, "\U0001f600": -0.0}
    assert canonical_line(value).decode() == (
        '{"Z":{},"a":"\u2028\x7f\\n\\"\\\\","é":[1,2.5,1e+300,true,null],"\U0001f600":-0.0}\n'
    )


@pytest.mark.parametrize("value", [math.nan, math.inf, {"a": [-math.inf]}, "\ud800", {"\udcff": 1}])
def test_values_without_a_spelling_are_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"JSON|surrogates"):
        canonical_json(value)


@pytest.mark.parametrize("value", [{1: "a"}, {"a": [{None: 1}]}, ({True: 1},), {"a": {1, 2}}, b"a"])
def test_what_is_not_json_is_refused(value: object) -> None:
    with pytest.raises(TypeError):
        canonical_json(value)


@pytest.mark.parametrize(
    "data", [b"", b"{", b'{"a":1,"a":2}', b"NaN", b"[Infinity]", b"\xef\xbb\xbf{}", b'"\xff"', b"{} {}", b"[" * 100_000]
)
def test_damaged_json_is_refused(data: bytes) -> None:
    with pytest.raises(DamagedFormatError):
        parse_json(data)


@pytest.mark.parametrize("number", ["18446744073709551616", "-9223372036854775809", "1.0", "1e2", "-0", "0.1e1"])
def test_numbers_are_read_as_they_stand(number: str) -> None:
    found = parse_json(f'{{"a":{number}}}'.encode())
    assert repr(found) == repr({"a": json.loads(number)})


def test_an_object_is_told_from_other_values() -> None:
    assert parse_json_object(b'{"a":1}') == {"a": 1}
    with pytest.raises(DamagedFormatError):
        parse_json_object(b"[]")
    assert json.loads(canonical_json((1, 2))) == [1, 2]
