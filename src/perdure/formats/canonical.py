"""JSON in one spelling only, so that equal documents have equal digests."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import NoReturn, cast

import orjson

from perdure.formats.errors import DamagedFormatError

_PLAIN = frozenset({str, int, bool, type(None)})
_TEXT = frozenset({str})


def canonical_json(value: object) -> bytes:
    """The one UTF-8 spelling of a JSON value: keys sorted by code point, no spaces, characters as themselves.

    Integers are written in full and floats in the shortest form that reads back equal, so a caller who must keep
    `1.10` or `1e400` as typed gives text. Raises ValueError for NaN, infinities and lone surrogates, TypeError for
    what JSON has no form for, keys that are not text included.
    """
    plain = _find_plain_json(value, 0)
    if plain is not None:
        return plain
    _require_text_keys(value)
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False, check_circular=False
    ).encode("utf-8")


def canonical_line(value: object) -> bytes:
    """`canonical_json` and a newline: one line of an NDJSON file."""
    plain = _find_plain_json(value, orjson.OPT_APPEND_NEWLINE)
    return plain if plain is not None else canonical_json(value) + b"\n"


def plain_json(value: object) -> bytes:
    """`canonical_json` of what the caller knows to be text, whole numbers, truth values and null, without a look at it.

    To look takes as long as to write. A float would get another spelling.
    """
    return _write_plain(value, 0) or canonical_json(value)


def plain_line(value: object) -> bytes:
    """`plain_json` and a newline."""
    return _write_plain(value, orjson.OPT_APPEND_NEWLINE) or canonical_line(value)


def parse_json(data: bytes) -> object:
    """Read UTF-8 JSON strictly; raises DamagedFormatError also for a key given twice, NaN and a byte order mark."""
    try:
        value: object = orjson.loads(data)
        # What comes out as it went in had no key twice, and no number that the fast reader rounds.
        if orjson.dumps(value, option=orjson.OPT_SORT_KEYS) == data.removesuffix(b"\n"):
            return value
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        pass  # the careful reader takes some of it, and says what is wrong with the rest
    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=_unique_members, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise DamagedFormatError(f"not JSON: {error}") from error


def parse_json_object(data: bytes) -> dict[str, object]:
    """Read a JSON object strictly; raises DamagedFormatError for anything else."""
    value = parse_json(data)
    if not isinstance(value, dict):
        raise DamagedFormatError("not a JSON object")
    return value


def _find_plain_json(value: object, option: int) -> bytes | None:
    """The same bytes from the fast writer, or None for what the two writers spell differently, or one refuses."""
    return _write_plain(value, option) if _is_plain(value) else None


def _write_plain(value: object, option: int) -> bytes | None:
    try:
        return orjson.dumps(value, option=option | orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError:  # an integer of more than 64 bits, a lone surrogate
        return None


def _is_plain(value: object) -> bool:
    """Whether it is made of text, integers, truth values and null only: floats have another spelling there."""
    kind = type(value)
    if kind in _PLAIN:
        return True
    if kind is dict:
        members = cast("dict[object, object]", value)
        return _TEXT.issuperset(map(type, members)) and _are_plain(members.values())
    return (kind is list or kind is tuple) and _are_plain(cast("Sequence[object]", value))


def _are_plain(members: Iterable[object]) -> bool:
    for member in members:  # noqa: SIM110 (`all` takes twice as long, and this runs for each line of a manifest)
        if type(member) not in _PLAIN and not _is_plain(member):
            return False
    return True


def _require_text_keys(value: object) -> None:
    # json.dumps would turn the keys 1, True and None into text: two different documents with one digest.
    if isinstance(value, dict):
        for key, member in value.items():
            if not isinstance(key, str):
                raise TypeError(f"the key {key!r} is not text")
            if isinstance(member, dict | list | tuple):
                _require_text_keys(member)
    elif isinstance(value, list | tuple):
        for member in value:
            if isinstance(member, dict | list | tuple):
                _require_text_keys(member)


def _unique_members(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a key is given twice in one object")
    return members


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
