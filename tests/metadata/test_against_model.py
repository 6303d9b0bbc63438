"""Random patches against a simple model in memory: plain dictionaries, whole documents."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from functools import partial
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection

from perdure.db import Database
from perdure.kernel.ids import new_id
from perdure.metadata import BadMetadataError, PatchDoesNotFitError, PatchForm, PatchTestFailedError
from perdure.metadata.model import parse_document
from perdure.testing.merging import merge

from .steps import ADA, METADATA, at, get, lines_of, put, rows_of
from .test_values import documents

SHARED_DATABASE = [HealthCheck.function_scoped_fixture]
FEW = settings(max_examples=30, deadline=None, suppress_health_check=SHARED_DATABASE)

names = st.sampled_from(["a", "b", "a/b", "a-", "~0", "value", "unit", "date", "é"])
scalars = st.sampled_from([0, 1, -2.5, True, "x", "eV", "2026-11-20", "Ü"])
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3), max_leaves=6
)
merge_patches = st.dictionaries(
    names,
    st.recursive(
        st.none() | scalars | st.lists(scalars, max_size=2),
        lambda inner: st.dictionaries(names, inner, max_size=3),
        max_leaves=6,
    ),
    max_size=3,
)


# Any in the model: JSON of any shape.
def pointers_of(value: object, pointer: str = "") -> list[str]:
    children: list[tuple[str, object]] = []
    if isinstance(value, dict):
        children = [(name.replace("~", "~0").replace("/", "~1"), member) for name, member in value.items()]
    elif isinstance(value, list):
        children = [(str(place), item) for place, item in enumerate(value)]
    return [pointer, *(p for token, child in children for p in pointers_of(child, f"{pointer}/{token}"))]


def draw_operation(data: st.DataObject, document: object) -> dict[str, Any]:
    present = st.sampled_from(pointers_of(document))
    fresh = st.builds("{}/{}".format, present, st.sampled_from(["a", "value", "unit", "-", "0", "new"]))
    op = data.draw(st.sampled_from(["add", "add", "replace", "remove", "move", "copy", "test"]))
    operation: dict[str, Any] = {"op": op, "path": data.draw(present | fresh)}
    if op in ("add", "replace", "test"):
        operation["value"] = data.draw(values)
    if op in ("move", "copy"):
        operation["from"] = data.draw(present)
    return operation


class Refused(Exception):  # noqa: N818  # a signal inside of the model, not an error of a library
    pass


def resolve(document: Any, pointer: str) -> Any:
    for token in (t.replace("~1", "/").replace("~0", "~") for t in pointer.split("/")[1:]):
        if isinstance(document, dict) and token in document:
            document = document[token]
        elif isinstance(document, list) and token in map(str, range(len(document))):
            document = document[int(token)]
        else:
            raise Refused
    return document


def add(document: Any, pointer: str, value: Any, *, replacing: bool = False) -> Any:
    if pointer == "":
        return value
    above, _, last = pointer.rpartition("/")
    parent, name = resolve(document, above), last.replace("~1", "/").replace("~0", "~")
    if isinstance(parent, dict):
        parent[name] = value
    elif isinstance(parent, list) and last in ["-", *map(str, range(len(parent) + 1))]:
        place = len(parent) if last == "-" else int(last)
        parent[place : place + replacing] = [value]
    else:
        raise Refused
    return document


def remove(document: Any, pointer: str) -> Any:
    resolve(document, pointer)
    above, slash, token = pointer.rpartition("/")
    parent = resolve(document, above)
    if not slash:
        return None
    del parent[int(token) if isinstance(parent, list) else token.replace("~1", "/").replace("~0", "~")]
    return document


def operate(document: Any, operations: list[dict[str, Any]]) -> Any:
    for operation in operations:
        document = operate_once(document, operation)
    return document


def operate_once(document: Any, operation: dict[str, Any]) -> Any:
    op, path = operation["op"], operation["path"]
    if op in ("move", "copy"):
        source = operation["from"]
        value = copy.deepcopy(resolve(document, source))
        if op == "copy":
            return add(document, path, value)
        if path.startswith(f"{source}/"):
            raise Refused
        return document if path == source else add(remove(document, source), path, value)
    if op == "remove":
        return remove(document, path)
    value = copy.deepcopy(operation["value"])
    if op == "add":
        return add(document, path, value)
    present = resolve(document, path)
    if op == "replace":
        return add(document, path, value, replacing=True)
    if not same_value(present, value):
        raise Refused
    return document


def same_value(one: object, other: object) -> bool:
    """Python takes 1 for True; JSON does not."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def expect(make: Callable[[], object]) -> dict[str, Any] | None:
    """The model's next document, or None where the patch must be refused."""
    try:
        result = make()
        parse_document(json.dumps(result).encode())
    except (BadMetadataError, Refused):
        return None
    return result if isinstance(result, dict) else None


def try_patch(tx: Connection, thing: Any, path: bytes, patch: object, form: PatchForm, second: int) -> bool:
    try:
        text = json.dumps(patch).encode()
        METADATA.patch(tx, thing, path, text, form=form, actor=ADA, now=at(second))
    except (BadMetadataError, PatchDoesNotFitError, PatchTestFailedError):
        return False
    return True


def same(one: object, other: object) -> bool:
    """Equality that tells 1 from true and from 1.0, and keeps the order of members."""
    return json.dumps(one) == json.dumps(other)


@FEW
@given(documents)
def test_any_document_survives_writing_and_reading(module_db: Database, document: dict[str, object]) -> None:
    thing = new_id()
    with module_db.begin() as tx:
        put(tx, thing, document)
        assert same(get(tx, thing), document)


@settings(FEW, max_examples=40)
@given(st.data())
def test_patches_and_the_past_equal_the_model(module_db: Database, data: st.DataObject) -> None:
    thing = new_id()
    model: dict[bytes, dict[str, object]] = {b"": {}, b"f": {}}
    past: list[dict[bytes, dict[str, object]]] = [copy.deepcopy(model)]
    with module_db.begin() as tx:
        for second in range(1, data.draw(st.integers(2, 10)) + 1):
            path = data.draw(st.sampled_from([b"", b"", b"f"]))
            form: PatchForm = data.draw(st.sampled_from(["merge", "json-patch"]))
            if form == "merge":
                patch: Any = data.draw(merge_patches)
                expected = expect(partial(merge, model[path], patch))
            else:
                patch = [draw_operation(data, model[path]) for _ in range(data.draw(st.integers(1, 3)))]
                expected = expect(partial(operate, copy.deepcopy(model[path]), patch))
            assert try_patch(tx, thing, path, patch, form, second) is (expected is not None), (model, patch)
            model[path] = model[path] if expected is None else expected
            assert get(tx, thing, path) == model[path]
            past.append(copy.deepcopy(model))
        for second, documents_then in enumerate(past):
            for path, document in documents_then.items():
                assert get(tx, thing, path, as_of=at(second)) == document
        rows, lines = rows_of(tx, thing), lines_of(tx, thing)
        METADATA.remove(tx, thing)
        METADATA.restore(tx, thing, lines)
        if lines:
            assert rows_of(tx, thing) == rows
