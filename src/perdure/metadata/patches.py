"""JSON Merge Patch (RFC 7396) and JSON Patch (RFC 6902), planned on the needed part of a document. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from perdure.metadata.errors import BadMetadataError, PatchDoesNotFitError, PatchTestFailedError
from perdure.metadata.model import (
    MAX_DEPTH,
    TYPED_KEYS,
    Document,
    Number,
    Value,
    escape,
    format_pointer,
    iter_parents,
    list_leaves,
    parse_json,
    parse_pointer,
)
from perdure.metadata.nodes import LeafChange, Node, assemble

PatchForm: TypeAlias = Literal["merge", "json-patch"]
MAX_COPIED_VALUES = 1_000_000  # a few copies of copies would otherwise fill any memory
MAX_GROWTH_CHARACTERS = 128 * 1024 * 1024  # of pointers and texts together, by one patch

_INDEX = re.compile(r"0|[1-9][0-9]{0,8}")
_MEMBERS_OF = {
    "add": {"path", "value"},
    "replace": {"path", "value"},
    "test": {"path", "value"},
    "remove": {"path"},
    "move": {"path", "from"},
    "copy": {"path", "from"},
}


@dataclass(frozen=True, slots=True)
class MergePatch:
    document: Document


@dataclass(frozen=True, slots=True)
class Operation:
    """One step of a JSON Patch; `value` stands for add, replace and test, `source` for move and copy."""

    op: str
    path: tuple[str, ...]
    source: tuple[str, ...] = ()
    value: Value = None


@dataclass(frozen=True, slots=True)
class JsonPatch:
    operations: tuple[Operation, ...]


Patch: TypeAlias = MergePatch | JsonPatch


@dataclass(frozen=True, slots=True)
class Needs:
    """What must be known of a document: the nodes at `single`, and everything at and below `whole`."""

    single: frozenset[str]
    whole: frozenset[str]


WHOLE = Needs(frozenset(), frozenset({""}))


def parse_patch(text: bytes, form: PatchForm) -> Patch:
    """Read a patch; raises BadMetadataError when it is malformed."""
    value = parse_json(text)
    if form == "merge":
        if not isinstance(value, dict):
            raise BadMetadataError("A merge patch of metadata is an object of members.")
        return MergePatch(value)
    if not isinstance(value, list):
        raise BadMetadataError("A JSON Patch is a list of operations.")
    return JsonPatch(tuple(_parse_operation(item, place) for place, item in enumerate(value)))


def plan_needs(patch: Patch) -> Needs:
    """What of the document must be loaded to plan this patch.

    Of an object that is only passed through, the members with the names of typed values are needed too: removing a
    neighbour may turn it into a typed value.
    """
    passed, whole = _merge_places(patch.document) if isinstance(patch, MergePatch) else _operation_places(patch)
    whole = {place for place in whole if whole.isdisjoint(iter_parents(place))}
    passed |= {parent for place in whole for parent in iter_parents(place)}
    typed = {f"{place}/{name}" for place in passed if place for name in TYPED_KEYS}
    return Needs(frozenset(passed | typed), frozenset(whole))


def needs_of_changes(changes: Iterator[LeafChange]) -> Needs:
    """What must be known to apply changes of leaves that were planned before."""
    pointers = {change.pointer for change in changes}
    return Needs(frozenset(pointers.union(*map(iter_parents, pointers))), frozenset())


def plan_changes(nodes: Mapping[str, Node], patch: Patch) -> list[LeafChange]:
    """The changes of leaves that the patch makes, removals first; empty when it changes nothing.

    `nodes` hold what `plan_needs` asked for. Raises BadMetadataError when the result breaks a rule, and
    PatchTestFailedError or PatchDoesNotFitError when an operation does not apply.
    """
    known = {pointer: node.value for pointer, node in nodes.items() if node.value is not None}
    document = assemble(nodes)
    result = merge(document, patch.document) if isinstance(patch, MergePatch) else _operate(document, patch)
    if not isinstance(result, dict):
        raise BadMetadataError("The metadata must remain an object of members.")
    present = sum(len(pointer) + len(text) for pointer, text in known.items())
    after = list_leaves(result, known, room=present + MAX_GROWTH_CHARACTERS)
    removed = [LeafChange(pointer, text, None) for pointer, text in known.items() if pointer not in after]
    return removed + [LeafChange(p, known.get(p), text) for p, text in after.items() if known.get(p) != text]


def merge(target: Value, patch: Value) -> Value:
    """RFC 7396 section 2; the target may be changed."""
    if not isinstance(patch, dict):
        return patch
    result = target if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merge(result.get(name), value)
    return result


def _merge_places(document: Document) -> tuple[set[str], set[str]]:
    passed, whole = set[str](), set[str]()
    waiting: list[tuple[str, Value]] = [("", document)]
    while waiting:
        place, value = waiting.pop()
        if isinstance(value, dict):
            passed.add(place)
            waiting.extend((f"{place}/{escape(name)}", member) for name, member in value.items())
        else:
            whole.add(place)
    return passed, whole


def _operation_places(patch: JsonPatch) -> tuple[set[str], set[str]]:
    places = {operation.path for operation in patch.operations}
    places |= {operation.source for operation in patch.operations if operation.op in ("move", "copy")}
    return set(), set(map(format_pointer, places))


def _parse_operation(item: Value, place: int) -> Operation:
    pointer = f"/{place}"
    if not isinstance(item, dict):
        raise BadMetadataError("An operation of a JSON Patch is an object.", pointer=pointer)
    op = item.get("op")
    if not isinstance(op, str) or op not in _MEMBERS_OF:
        raise BadMetadataError(f"An operation is one of {', '.join(_MEMBERS_OF)}.", pointer=f"{pointer}/op")
    missing = sorted(_MEMBERS_OF[op] - item.keys())
    if missing:
        raise BadMetadataError(f"The operation {op} needs the member {missing[0]}.", pointer=pointer)
    source = _tokens(item["from"], f"{pointer}/from") if op in ("move", "copy") else ()
    return Operation(op, _tokens(item["path"], f"{pointer}/path"), source, item.get("value"))


def _tokens(value: Value, pointer: str) -> tuple[str, ...]:
    if not isinstance(value, str):
        raise BadMetadataError("A place is a text, an RFC 6901 pointer.", pointer=pointer)
    tokens = tuple(parse_pointer(value))
    if len(tokens) > MAX_DEPTH + 1:
        raise BadMetadataError(f"The values are nested deeper than {MAX_DEPTH} levels.", pointer=pointer)
    return tokens


def _operate(document: Value, patch: JsonPatch) -> Value:
    budget = [MAX_COPIED_VALUES]
    for operation in patch.operations:
        document = _apply(document, operation, budget)
    return document


def _apply(document: Value, operation: Operation, budget: list[int]) -> Value:
    path, source = operation.path, operation.source
    match operation.op:
        case "test":
            _test(_get(document, path), operation)
            return document
        case "remove":
            return _remove(document, path)
        case "replace":
            _get(document, path)
            return _put(document, path, _clone(operation.value, path, budget), replacing=True)
        case "add":
            return _put(document, path, _clone(operation.value, path, budget))
        case "copy":
            return _put(document, path, _clone(_get(document, source), path, budget))
        case _:
            return _move(document, path, source, budget)


def _move(document: Value, path: tuple[str, ...], source: tuple[str, ...], budget: list[int]) -> Value:
    moved = _get(document, source)
    if path == source:
        return document
    if path[: len(source)] == source:
        raise BadMetadataError("A value cannot be moved into itself.", pointer=format_pointer(path))
    value = _clone(moved, path, budget)
    return _put(_remove(document, source), path, value)


def _test(present: Value, operation: Operation) -> None:
    if not _is_equal(present, operation.value):
        pointer = format_pointer(operation.path)
        raise PatchTestFailedError(f"The value at {pointer!r} is not the one tested for.", pointer=pointer)


def _get(document: Value, path: tuple[str, ...]) -> Value:
    value = document
    for depth, token in enumerate(path):
        if isinstance(value, dict) and token in value:
            value = value[token]
        elif isinstance(value, list) and _INDEX.fullmatch(token) and int(token) < len(value):
            value = value[int(token)]
        else:
            raise _does_not_fit(path[: depth + 1])
    return value


def _put(document: Value, path: tuple[str, ...], value: Value, *, replacing: bool = False) -> Value:
    if not path:
        return value
    parent, place = _get(document, path[:-1]), path[-1]
    if isinstance(parent, dict):
        parent[place] = value
    elif isinstance(parent, list) and replacing:
        parent[int(place)] = value
    elif isinstance(parent, list) and place == "-":
        parent.append(value)
    elif isinstance(parent, list) and _INDEX.fullmatch(place) and int(place) <= len(parent):
        parent.insert(int(place), value)
    else:
        raise _does_not_fit(path)
    return document


def _remove(document: Value, path: tuple[str, ...]) -> Value:
    _get(document, path)
    if not path:
        return None
    parent = _get(document, path[:-1])
    if isinstance(parent, dict):
        del parent[path[-1]]
    elif isinstance(parent, list):
        del parent[int(path[-1])]
    return document


def _does_not_fit(path: tuple[str, ...]) -> PatchDoesNotFitError:
    pointer = format_pointer(path)
    return PatchDoesNotFitError(f"There is nothing at {pointer!r}.", pointer=pointer)


def _clone(value: Value, path: tuple[str, ...], budget: list[int]) -> Value:
    """A copy that shares nothing; refuses what would nest too deep at `path` or copies too much in all."""
    return _clone_at(value, len(path) + 1, path, budget)


def _clone_at(value: Value, depth: int, path: tuple[str, ...], budget: list[int]) -> Value:
    budget[0] -= 1
    if budget[0] < 0:
        raise BadMetadataError(f"A patch copies at most {MAX_COPIED_VALUES} values.", pointer=format_pointer(path))
    if not isinstance(value, (dict, list)):
        return value
    if depth > MAX_DEPTH:
        raise BadMetadataError(f"The values are nested deeper than {MAX_DEPTH} levels.", pointer=format_pointer(path))
    if isinstance(value, list):
        return [_clone_at(item, depth + 1, path, budget) for item in value]
    return {name: _clone_at(member, depth + 1, path, budget) for name, member in value.items()}


def _is_equal(one: Value, other: Value) -> bool:
    """Equality as RFC 6902 section 4.6 tells it: numbers by their value, objects without regard to order."""
    if isinstance(one, Number) and isinstance(other, Number):
        return _magnitude(one) == _magnitude(other)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_is_equal(one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_is_equal, one, other))
    return type(one) is type(other) and one == other


def _magnitude(number: Number) -> tuple[bool, str, int]:
    """Sign, digits without zeros at either end, and the exponent of the last digit."""
    mantissa, _, exponent = number.text.lower().partition("e")
    whole, _, fraction = mantissa.lstrip("-").partition(".")
    digits = (whole + fraction).lstrip("0")
    shown = digits.rstrip("0")
    if not shown:
        return (False, "", 0)
    return (mantissa.startswith("-"), shown, int(exponent or "0") - len(fraction) + len(digits) - len(shown))
