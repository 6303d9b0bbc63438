"""Values, their limits and their JSON text: pure.

A document is an object of members; its *leaves* are strings, numbers, booleans, whole lists, empty objects and the
typed objects `{"value": n, "unit": "eV"}`, `{"date": "2026-11-20"}` and `{"binary": "base64", "media_type": "…"}`.
An object with exactly the members of a typed form is that typed value, except the document itself. Numbers keep the
spelling that they came in.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from json.encoder import encode_basestring as _quote
from typing import TypeAlias

from perdure.metadata.errors import BadMetadataError

MAX_KEY_BYTES = 1024
MAX_VALUE_BYTES = 100 * 1024
MAX_DEPTH = 64
MAX_UNIT_CHARACTERS = 100
MAX_NUMBER_CHARACTERS = 1000  # an interpreter refuses to read integers of some thousand digits
MAX_PATCH_BYTES = 64 * 1024 * 1024
_MOST_MARKS = 30
_SHORT = 300  # characters whose order takes no time, whatever they are
_LONG_ROW = re.compile(rb"[^\0]{%d}" % (_MOST_MARKS + 1))  # of classes of marks
_HIDDEN_MARKS = frozenset("\u0f73\u0f75\u0f81")  # they become two marks each, and are none themselves
_OPERATION_DEPTH = 2  # the list and the operation around a value in a JSON Patch
TYPED_FORMS: Mapping[frozenset[str], str] = {
    frozenset({"value", "unit"}): "quantity",
    frozenset({"date"}): "date",
    frozenset({"binary", "media_type"}): "binary",
}
TYPED_KEYS = frozenset().union(*TYPED_FORMS)

_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
_TIME = re.compile(
    r"(\d{4}-\d{2}-\d{2})[Tt]((?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d)(?:\.\d{1,30})?([Zz]|[+-](?:[01]\d|2[0-3]):[0-5]\d)"
)
_STRANGE = re.compile(rb"\\u(0000|[dD][89a-fA-F])")  # only escapes bring U+0000 and halves of surrogate pairs
_MEDIA_TYPE = re.compile(r"[A-Za-z0-9!#$&^_.+-]{1,127}/[A-Za-z0-9!#$&^_.+-]{1,127}(;[\x20-\x7e]{1,200})?")


@dataclass(frozen=True, slots=True)
class Number:
    """A JSON number as it was written."""

    text: str


class PartialObject(dict[str, "Value"]):
    """An object of which only some members are loaded; `hidden` counts the others."""

    __slots__ = ("hidden",)

    def __init__(self, members: Mapping[str, Value] | None = None, *, hidden: int = 0) -> None:
        super().__init__(members or {})
        self.hidden = hidden


Value: TypeAlias = "str | bool | Number | list[Value] | dict[str, Value] | None"
Document: TypeAlias = "dict[str, Value]"


def parse_json(text: bytes) -> Value:
    """Read JSON strictly: UTF-8, no duplicate members, no NaN; numbers keep their spelling. Raises BadMetadataError."""
    if len(text) > MAX_PATCH_BYTES:
        raise BadMetadataError(f"The text has {len(text)} bytes; at most {MAX_PATCH_BYTES} are taken at once.")
    try:
        value = _decode(text.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise BadMetadataError(f"The text is not UTF-8: byte {error.start} is wrong.") from None
    except json.JSONDecodeError as error:
        raise BadMetadataError(f"This is not JSON: {error.msg} (line {error.lineno}, column {error.colno}).") from None
    except RecursionError:
        raise BadMetadataError(f"The values are nested deeper than {MAX_DEPTH} levels.") from None
    _check_input(value, strange=_STRANGE.search(text) is not None)
    return value


def parse_document(text: bytes) -> Document:
    """Read a whole document and check every rule; raises BadMetadataError naming the place."""
    document = parse_json(text)
    if not isinstance(document, dict):
        raise BadMetadataError("The metadata must be an object of members.")
    list_leaves(document)
    return document


def parse_leaf(text: str) -> Value:
    """Read the text of a leaf that was checked before it was kept."""
    return _decode(text)


def render(value: Value) -> str:
    """Compact JSON text: members in their order, numbers in their spelling, only the escapes that JSON demands."""
    if isinstance(value, str):
        return _quote(value)
    if isinstance(value, Number):
        return value.text
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "{" + ",".join(f"{_quote(name)}:{render(member)}" for name, member in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(render, value)) + "]"
    return "null"


def render_document(document: Document) -> bytes:
    """The document as UTF-8 JSON text."""
    return render(document).encode()


def list_leaves(
    document: Document, known: Mapping[str, str] | None = None, *, room: int | None = None
) -> dict[str, str]:
    """The leaves of a document, pointer to text, in the document's order.

    Checks every rule and raises BadMetadataError; a leaf that stands unchanged in `known` was checked before. Hidden
    members of a PartialObject are passed over. `room` is how many characters pointers and texts may have in all: long
    names above many small members, or copies of a long text, are short in a patch and would fill any memory here.
    """
    known = known or {}
    found: dict[str, str] = {}
    used = 0
    waiting: list[tuple[str, int, Value]] = [("", 1, document)]
    while waiting:
        pointer, depth, value = waiting.pop()
        if isinstance(value, dict) and (depth == 1 or not is_leaf(value)):
            used += len(value) * len(pointer)
            _check_room(used, room, pointer)
            children = [(f"{pointer}/{escape(name)}", depth + 1, member) for name, member in value.items()]
            waiting.extend(reversed(children))
            continue
        text = render(value)
        used += len(text)
        _check_room(used, room, pointer)
        if known.get(pointer) != text:
            _check_leaf(value, text, pointer, depth)
        found[pointer] = text
    return found


def _check_room(used: int, room: int | None, pointer: str) -> None:
    if room is not None and used > room:
        raise BadMetadataError("The metadata would grow too much at once.", pointer=pointer[:MAX_KEY_BYTES])


def is_leaf(value: dict[str, Value]) -> bool:
    """Whether this object, below the document itself, is kept as one text: empty or typed."""
    if isinstance(value, PartialObject) and value.hidden:
        return False
    return not value or find_form(value) is not None


def find_form(value: Mapping[str, Value]) -> str | None:
    """The typed form that these members make, or None."""
    return TYPED_FORMS.get(frozenset(value)) if len(value) <= 2 else None


def kind_of(value: Value) -> str:
    """What kind of leaf this is, in one word."""
    if isinstance(value, dict):
        return find_form(value) or "empty"
    if isinstance(value, bool):
        return "boolean"
    return "text" if isinstance(value, str) else "number" if isinstance(value, Number) else "list"


def check_value(value: Value, pointer: str, depth: int) -> None:
    """Raise BadMetadataError unless this value may stand `depth` - 1 containers below the top of a document."""
    if value is None:
        raise BadMetadataError("null deletes a member in a merge patch and is no value.", pointer=pointer)
    if isinstance(value, str):
        _check_text(value, pointer)
    elif isinstance(value, Number) and len(value.text) > MAX_NUMBER_CHARACTERS:
        raise BadMetadataError(f"A number is written with at most {MAX_NUMBER_CHARACTERS} characters.", pointer=pointer)
    elif isinstance(value, (dict, list)):
        _check_container(value, pointer, depth)


def fold(text: str) -> str:
    """The text as it is searched: without case, composed (NFC).

    Of more than 30 combining marks in a row each 30 are composed by themselves, as in the stream-safe format of
    Unicode (UAX 15, section 13): putting a row into order takes time with the square of its length.
    """
    if text.isascii():
        return text.lower()
    return _compose(_compose(text).casefold())


def _compose(text: str) -> str:
    if len(text) <= _SHORT or (
        _HIDDEN_MARKS.isdisjoint(text) and not _LONG_ROW.search(bytes(map(unicodedata.combining, text)))
    ):
        return unicodedata.normalize("NFC", text)
    ends, row = [0], 0
    for place, letter in enumerate(text):
        row = row + 1 if letter in _HIDDEN_MARKS or unicodedata.combining(letter) else 0
        if row > _MOST_MARKS:
            ends.append(place)
            row = 1
    pieces = (text[start:end] for start, end in zip(ends, [*ends[1:], None], strict=True))
    return "".join(unicodedata.normalize("NFC", piece) for piece in pieces)


def searchable(pointer: str, value: Value) -> str:
    """What a search for text looks at: the member's name, a line break, the value without case; bytes are left out."""
    name = unescape(pointer.rpartition("/")[2])
    return fold(f"{name}\n{_plain(value)}")


def escape(name: str) -> str:
    """A member's name as a token of a pointer (RFC 6901 section 3)."""
    return name.replace("~", "~0").replace("/", "~1") if "~" in name or "/" in name else name


def unescape(token: str) -> str:
    return token.replace("~1", "/").replace("~0", "~") if "~" in token else token


def parse_pointer(pointer: str) -> list[str]:
    """The tokens of an RFC 6901 pointer, unescaped; raises BadMetadataError."""
    if pointer and not pointer.startswith("/"):
        raise BadMetadataError("A pointer is empty or begins with '/'.", pointer=pointer)
    if re.search(r"~(?![01])", pointer):
        raise BadMetadataError("In a pointer '~' is followed by 0 or 1.", pointer=pointer)
    _check_characters(pointer, pointer)
    return [unescape(token) for token in pointer.split("/")[1:]]


def format_pointer(tokens: Iterable[str]) -> str:
    return "".join(f"/{escape(token)}" for token in tokens)


def iter_parents(pointer: str) -> list[str]:
    """The pointers above this one, the document itself first: `/a/b` gives the empty pointer and `/a`."""
    return [pointer[:end] for end, letter in enumerate(pointer) if letter == "/"]


def _decode(text: str) -> Value:
    value: Value = _DECODER.decode(text)
    return value


def _unique(pairs: list[tuple[str, Value]]) -> dict[str, Value]:
    members = dict(pairs)
    if len(members) != len(pairs):
        names = [name for name, _ in pairs]
        twin = next(name for name in members if names.count(name) > 1)
        raise BadMetadataError(f"The member {twin[:100]!a} is given twice in one object.", pointer=f"/{escape(twin)}")
    return members


def _refuse_constant(name: str) -> Value:
    raise BadMetadataError(f"{name} is not a JSON number.")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique, parse_float=Number, parse_int=Number, parse_constant=_refuse_constant
)


def _check_input(value: Value, *, strange: bool) -> None:
    """Bound the nesting, so that recursion below is safe, and find characters that no name or text may have."""
    waiting: list[tuple[int, Value]] = [(1, value)]
    while waiting:
        depth, item = waiting.pop()
        if isinstance(item, (dict, list)):
            if depth > MAX_DEPTH + _OPERATION_DEPTH:
                raise BadMetadataError(f"The values are nested deeper than {MAX_DEPTH} levels.")
            waiting.extend((depth + 1, member) for member in (item.values() if isinstance(item, dict) else item))
            if strange and isinstance(item, dict):
                waiting.extend((depth, name) for name in item)
        elif strange and isinstance(item, str):
            _check_characters(item, "")


def _check_name(name: str, pointer: str) -> None:
    _check_characters(name, pointer)
    if not 1 <= len(name.encode()) <= MAX_KEY_BYTES:
        raise BadMetadataError(f"A member's name has 1 to {MAX_KEY_BYTES} bytes of UTF-8.", pointer=pointer)


def _check_text(text: str, pointer: str) -> None:
    _check_characters(text, pointer)
    if len(text.encode()) > MAX_VALUE_BYTES:
        raise BadMetadataError(f"A text has at most {MAX_VALUE_BYTES} bytes of UTF-8.", pointer=pointer)


def _check_characters(text: str, pointer: str) -> None:
    if "\0" in text:
        raise BadMetadataError("The character U+0000 cannot be kept.", pointer=pointer)
    if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
        raise BadMetadataError("Half of a surrogate pair is no character.", pointer=pointer)


def _check_container(value: dict[str, Value] | list[Value], pointer: str, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise BadMetadataError(f"The values are nested deeper than {MAX_DEPTH} levels.", pointer=pointer)
    if isinstance(value, list):
        for place, item in enumerate(value):
            check_value(item, f"{pointer}/{place}", depth + 1)
        return
    form = find_form(value)
    if form is not None:
        _TYPE_CHECKS[form](value, pointer)
        return
    for name, member in value.items():
        inner = f"{pointer}/{escape(name)}"
        _check_name(name, inner)
        check_value(member, inner, depth + 1)


def _check_leaf(value: Value, text: str, pointer: str, depth: int) -> None:
    for token in pointer.split("/")[1:]:
        _check_name(unescape(token), pointer)
    if depth > MAX_DEPTH + 1:
        raise BadMetadataError(f"The values are nested deeper than {MAX_DEPTH} levels.", pointer=pointer)
    check_value(value, pointer, depth)
    if isinstance(value, list) and len(text.encode()) > MAX_VALUE_BYTES:
        raise BadMetadataError(f"A list has at most {MAX_VALUE_BYTES} bytes of JSON text.", pointer=pointer)


def _check_quantity(value: Mapping[str, Value], pointer: str) -> None:
    number, unit = value["value"], value["unit"]
    if not isinstance(number, Number):
        raise BadMetadataError("A value with a unit is a number.", pointer=f"{pointer}/value")
    check_value(number, f"{pointer}/value", 1)
    if not isinstance(unit, str) or not unit.strip() or len(unit) > MAX_UNIT_CHARACTERS:
        detail = f"A unit is a text of 1 to {MAX_UNIT_CHARACTERS} characters, such as eV."
        raise BadMetadataError(detail, pointer=f"{pointer}/unit")
    _check_characters(unit, f"{pointer}/unit")


def _check_date(value: Mapping[str, Value], pointer: str) -> None:
    text = value["date"]
    if not isinstance(text, str) or not _is_date(text):
        detail = "A date is written 2026-11-20, or as RFC 3339 with the zone: 2026-11-20T12:00:00Z."
        raise BadMetadataError(detail, pointer=f"{pointer}/date")


def _is_date(text: str) -> bool:
    moment = _TIME.fullmatch(text) if text.isascii() else None
    try:
        if moment is not None:
            datetime.fromisoformat(f"{moment[1]}T{moment[2]}")
            return True
        return text.isascii() and _DAY.fullmatch(text) is not None and bool(date.fromisoformat(text))
    except ValueError:
        return False


def _check_binary(value: Mapping[str, Value], pointer: str) -> None:
    text, media_type = value["binary"], value["media_type"]
    if not isinstance(text, str):
        raise BadMetadataError("Bytes are given as text in base64.", pointer=f"{pointer}/binary")
    try:
        size = len(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError):
        raise BadMetadataError("The text is not base64 (RFC 4648 section 4).", pointer=f"{pointer}/binary") from None
    if size > MAX_VALUE_BYTES:
        raise BadMetadataError(f"A value has at most {MAX_VALUE_BYTES} bytes.", pointer=f"{pointer}/binary")
    if not isinstance(media_type, str) or _MEDIA_TYPE.fullmatch(media_type) is None:
        raise BadMetadataError("A media type is written as image/png.", pointer=f"{pointer}/media_type")


_TYPE_CHECKS = {"quantity": _check_quantity, "date": _check_date, "binary": _check_binary}


def _plain(value: Value) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return " ".join(_plain(member) for name, member in value.items() if name != "binary")
    if isinstance(value, list):
        return "\n".join(map(_plain, value))
    return render(value)
