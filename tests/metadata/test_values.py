"""What a document may hold, exactly at the limits, and that numbers keep their spelling."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.metadata.errors import BadMetadataError
from perdure.metadata.model import (
    MAX_DEPTH,
    MAX_KEY_BYTES,
    MAX_NUMBER_CHARACTERS,
    MAX_UNIT_CHARACTERS,
    MAX_VALUE_BYTES,
    fold,
    list_leaves,
    parse_document,
    render_document,
    searchable,
)


def leaves(text: str) -> dict[str, str]:
    return list_leaves(parse_document(text.encode()))


def pointer_of_error(text: str | bytes) -> object:
    with pytest.raises(BadMetadataError) as caught:
        parse_document(text.encode() if isinstance(text, str) else text)
    return caught.value.extra["pointer"]


def nested(depth: int, inner: str = "1") -> str:
    """A document in which `inner` stands inside of `depth` containers."""
    return '{"a":' * depth + inner + "}" * depth


@pytest.mark.parametrize("text", ["1.50", "1e5", "1E+5", "-0", "-0.0", "12345678901234567890123", "1.0e-400"])
def test_numbers_keep_their_spelling(text: str) -> None:
    document = f'{{"n":{text},"q":{{"value":{text},"unit":"eV"}},"l":[{text}]}}'.encode()
    assert render_document(parse_document(document)) == document


def test_leaves_are_scalars_whole_lists_empty_objects_and_typed_objects() -> None:
    text = (
        '{"title":"x","deep":{"yes":true,"none":{}},"list":[1,[2],{"k":"v"}],'
        '"energy":{"unit":"eV","value":12.50},"when":{"date":"2026-11-20"},'
        '"thumb":{"binary":"AAEC","media_type":"image/png"},"other":{"value":1,"unit":"eV","note":"n"}}'
    )
    assert leaves(text) == {
        "/title": '"x"',
        "/deep/yes": "true",
        "/deep/none": "{}",
        "/list": '[1,[2],{"k":"v"}]',
        "/energy": '{"unit":"eV","value":12.50}',
        "/when": '{"date":"2026-11-20"}',
        "/thumb": '{"binary":"AAEC","media_type":"image/png"}',
        "/other/value": "1",
        "/other/unit": '"eV"',
        "/other/note": '"n"',
    }


def test_the_document_itself_is_never_a_typed_value() -> None:
    assert leaves('{"date":"yesterday"}') == {"/date": '"yesterday"'}
    assert leaves("{}") == {}


def test_names_are_escaped_in_pointers() -> None:
    assert leaves('{"a/b~c":{"~1":1}}') == {"/a~1b~0c/~01": "1"}


@pytest.mark.parametrize("name", ["k" * MAX_KEY_BYTES, "é" * (MAX_KEY_BYTES // 2), "/" * MAX_KEY_BYTES])
def test_names_at_the_limit_are_taken_and_one_byte_more_is_not(name: str) -> None:
    parse_document(json.dumps({name: 1}).encode())
    pointer_of_error(json.dumps({name + "k": 1}))
    pointer_of_error(json.dumps({"list": [{name + "k": 1}]}))


def test_an_empty_name_is_refused() -> None:
    assert pointer_of_error('{"a":{"":1}}') == "/a/"


@pytest.mark.parametrize("letter", ["x", "é", "😀"])
def test_texts_at_the_limit_are_taken_and_one_byte_more_is_not(letter: str) -> None:
    text = letter * (MAX_VALUE_BYTES // len(letter.encode()))
    assert len(text.encode()) == MAX_VALUE_BYTES
    parse_document(json.dumps({"t": text}).encode())
    assert pointer_of_error(json.dumps({"t": text + "x"})) == "/t"


def test_lists_at_the_limit_are_taken_and_one_byte_more_is_not() -> None:
    text = "x" * (MAX_VALUE_BYTES - len('["",1]'))
    parse_document(f'{{"l":["{text}",1]}}'.encode())
    assert pointer_of_error(f'{{"l":["{text}",12]}}') == "/l"


def test_bytes_at_the_limit_are_taken_and_one_more_is_not() -> None:
    def document(size: int) -> str:
        text = base64.b64encode(bytes(size)).decode()
        return json.dumps({"b": {"binary": text, "media_type": "application/octet-stream"}})

    parse_document(document(MAX_VALUE_BYTES).encode())
    assert pointer_of_error(document(MAX_VALUE_BYTES + 1)) == "/b/binary"


def test_numbers_at_the_limit_are_taken_and_one_character_more_is_not() -> None:
    parse_document(f'{{"n":{"1" * MAX_NUMBER_CHARACTERS}}}'.encode())
    assert pointer_of_error(f'{{"n":{"1" * (MAX_NUMBER_CHARACTERS + 1)}}}') == "/n"


@pytest.mark.parametrize("inner", ["1", '"x"', "true"])
def test_values_in_64_containers_are_taken_and_in_65_are_not(inner: str) -> None:
    parse_document(nested(MAX_DEPTH, inner).encode())
    pointer_of_error(nested(MAX_DEPTH + 1, inner))


@pytest.mark.parametrize("inner", ["[]", "{}", '{"value":1,"unit":"m"}', "[1]"])
def test_the_innermost_container_counts(inner: str) -> None:
    parse_document(nested(MAX_DEPTH - 1, inner).encode())
    pointer_of_error(nested(MAX_DEPTH, inner))


def test_nesting_that_would_break_an_interpreter_is_refused() -> None:
    pointer_of_error('{"a":' + "[" * 100_000 + "]" * 100_000 + "}")
    pointer_of_error(nested(100_000))


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"1",
        b"null",
        b"{",
        b"{'a':1}",
        b'\xef\xbb\xbf{"a":1}',
        b'{"a":"\xff"}',
        b'{"a":1} {}',
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":-Infinity}',
        b'{"a":01}',
        b'{"a":"\x01"}',
        b'{"a":1,"a":2}',
        b'{"b":{"a":1,"\\u0061":2}}',
        b'{"a":"\\u0000"}',
        b'{"\\u0000":1}',
        b'{"a":["\\u0000"]}',
        b'{"a":"\\ud800"}',
        b'{"a":"\\uDfff x"}',
        b'{"\\ud83d":1}',
        b'{"a":{"unit":"\\ud83d","value":1}}',
        b'{"a":null}',
        b'{"a":[null]}',
        b'{"a":[{"b":null}]}',
    ],
)
def test_what_is_no_document_is_refused(text: bytes) -> None:
    pointer_of_error(text)


def test_a_whole_surrogate_pair_is_a_character() -> None:
    assert leaves('{"a":"\\ud83d\\ude00"}') == {"/a": '"😀"'}


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-20",
        "2024-02-29",
        "2026-11-20T12:00:00Z",
        "2026-11-20t23:59:59.123456789z",
        "2026-11-20T12:00:00+05:30",
    ],
)
def test_dates_are_taken(text: str) -> None:
    parse_document(json.dumps({"d": {"date": text}}).encode())


@pytest.mark.parametrize(
    "value",
    [
        "yesterday",
        "20261120",
        "2026-02-30",
        "2025-02-29T00:00:00Z",
        "2026-11-20T12:00:00",
        "2026-11-20 12:00:00Z",
        "2026-11-20T24:00:00Z",
        "2026-11-20T12:00Z",
        "2026-11-20T12:00:00+25:00",
        "\uff12\uff10\uff12\uff16-11-20",
        "2026-W01-1",
        "",
        20261120,
    ],
)
def test_what_is_no_date_is_refused(value: object) -> None:
    assert pointer_of_error(json.dumps({"d": {"date": value}})) == "/d/date"


@pytest.mark.parametrize("unit", ["", " ", "x" * (MAX_UNIT_CHARACTERS + 1), 1, None, ["m"]])
def test_what_is_no_unit_is_refused(unit: object) -> None:
    assert pointer_of_error(json.dumps({"q": {"value": 1, "unit": unit}})) == "/q/unit"


def test_units_at_the_limit_and_of_any_script_are_taken() -> None:
    parse_document(json.dumps({"q": {"value": 1, "unit": "Å" * MAX_UNIT_CHARACTERS}}).encode())


@pytest.mark.parametrize("value", ["1", True, [1], {"a": 1}, None])
def test_a_quantity_is_a_number(value: object) -> None:
    assert pointer_of_error(json.dumps({"l": [{"value": value, "unit": "m"}]})) == "/l/0/value"


@pytest.mark.parametrize("text", ["A", "AAE", "AA==\n", "A-__", "ü", 1])
def test_what_is_no_base64_is_refused(text: object) -> None:
    assert pointer_of_error(json.dumps({"b": {"binary": text, "media_type": "image/png"}})) == "/b/binary"


@pytest.mark.parametrize("media_type", ["", "png", "image/", "image/png\n", 1, "a/" + "b" * 128])
def test_what_is_no_media_type_is_refused(media_type: object) -> None:
    assert pointer_of_error(json.dumps({"b": {"binary": "AA==", "media_type": media_type}})) == "/b/media_type"


def test_folding_forgets_case_and_composition() -> None:
    assert fold("STRASSE Ångström") == fold("straße Ångström")
    assert searchable("/a/Sample~1Name", "Großes Bild") == "sample/name\ngrosses bild"
    assert "AAEC".casefold() not in searchable("/t", {"binary": "AAEC", "media_type": "image/png"})


def test_of_a_long_row_of_marks_only_so_many_are_put_into_order_together() -> None:
    """Ordering takes time with the square of the length: minutes for a patch of what is allowed."""
    assert fold("x" + "\u0301" * 14 + "\u0327" * 14) == "x" + "\u0327" * 14 + "\u0301" * 14
    for row in ("\u0301" * 24_990 + "\u0327" * 24_990, "\u0f74" * 24_990 + "\u0f71" * 8_010):
        assert fold("x" + row) == "x" + row
    assert fold("x" + "\u0f73" * 900).count("\u0f72\u0f71") == 29


pieces = st.sampled_from(
    ["a", "\u00c4", "e\u0301", "\u0327", "\u0301", "\u0f73", "\u00df", "\u03a3", "\uac00", "\u11a8", "\u0345"]
)


@given(st.lists(pieces, max_size=20).map("".join), st.integers(0, 400))
def test_long_texts_are_folded_as_short_ones(text: str, before: int) -> None:
    """A row of marks is not that long in what is written by people."""
    start = "x" * before
    assert fold(start + text) == start + fold(text)


names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=8)
scalars = st.booleans() | names | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
trees = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4),
    max_leaves=20,
)
documents = st.dictionaries(names, trees, max_size=6)


@given(documents)
def test_any_document_survives_reading_and_rendering(document: dict[str, object]) -> None:
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    assert json.loads(render_document(parse_document(text))) == document
