"""The examples that the RFCs publish, and what a patch may not do."""

from __future__ import annotations

import json
from typing import Any

import pytest

from perdure.metadata.errors import BadMetadataError, PatchDoesNotFitError, PatchTestFailedError
from perdure.metadata.model import list_leaves, parse_document, parse_json, render
from perdure.metadata.nodes import LeafChange, Nodes, apply_changes, assemble
from perdure.metadata.patches import PatchForm, merge, needs_of_changes, parse_patch, plan_changes, plan_needs


def nodes_of(document: object) -> Nodes:
    nodes: Nodes = {}
    leaves = list_leaves(parse_document(json.dumps(document).encode()))
    apply_changes(nodes, [LeafChange(pointer, None, text) for pointer, text in leaves.items()])
    return nodes


def needed_of(nodes: Nodes, patch: bytes, form: PatchForm) -> Nodes:
    """Only what `plan_needs` asks for, as the database would give it."""
    needs = plan_needs(parse_patch(patch, form))

    def is_needed(pointer: str) -> bool:
        return pointer in needs.single or any(pointer == w or pointer.startswith(f"{w}/") for w in needs.whole)

    return {pointer: node for pointer, node in nodes.items() if is_needed(pointer)}


def patched(document: object, patch: object, form: PatchForm) -> Any:  # JSON of any shape
    nodes, text = nodes_of(document), json.dumps(patch).encode()
    apply_changes(nodes, plan_changes(needed_of(nodes, text, form), parse_patch(text, form)))
    return json.loads(render(assemble(nodes)))


def merged(document: object, patch: object) -> Any:  # JSON of any shape
    return patched(document, patch, "merge")


def operated(document: object, *operations: object) -> Any:  # JSON of any shape
    return patched(document, list(operations), "json-patch")


RFC_7396_APPENDIX_A = [
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b"}, {"a": None}, {}),
    ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
    (["a", "b"], ["c", "d"], ["c", "d"]),
    ({"a": "b"}, ["c"], ["c"]),
    ({"a": "foo"}, None, None),
    ({"a": "foo"}, "bar", "bar"),
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
]


@pytest.mark.parametrize(("target", "patch", "result"), RFC_7396_APPENDIX_A)
def test_merge_patch_as_published(target: object, patch: object, result: object) -> None:
    made = merge(parse_json(json.dumps(target).encode()), parse_json(json.dumps(patch).encode()))
    assert json.loads(render(made)) == result


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [c for c in RFC_7396_APPENDIX_A if isinstance(c[0], dict) and isinstance(c[1], dict) and "e" not in c[0]],
)
def test_merge_patch_as_published_on_a_part_of_the_document(target: object, patch: object, result: object) -> None:
    assert merged(target, patch) == result


@pytest.mark.parametrize(
    ("document", "operation", "result"),
    [
        ({"foo": "bar"}, {"op": "add", "path": "/baz", "value": "qux"}, {"baz": "qux", "foo": "bar"}),
        ({"foo": ["bar", "baz"]}, {"op": "add", "path": "/foo/1", "value": "qux"}, {"foo": ["bar", "qux", "baz"]}),
        ({"baz": "qux", "foo": "bar"}, {"op": "remove", "path": "/baz"}, {"foo": "bar"}),
        ({"foo": ["bar", "qux", "baz"]}, {"op": "remove", "path": "/foo/1"}, {"foo": ["bar", "baz"]}),
        ({"baz": "qux", "foo": "bar"}, {"op": "replace", "path": "/baz", "value": "boo"}, {"baz": "boo", "foo": "bar"}),
        (
            {"foo": {"bar": "baz", "waldo": "fred"}, "qux": {"corge": "grault"}},
            {"op": "move", "from": "/foo/waldo", "path": "/qux/thud"},
            {"foo": {"bar": "baz"}, "qux": {"corge": "grault", "thud": "fred"}},
        ),
        (
            {"foo": ["all", "grass", "cows", "eat"]},
            {"op": "move", "from": "/foo/1", "path": "/foo/3"},
            {"foo": ["all", "cows", "eat", "grass"]},
        ),
        (
            {"baz": "qux", "foo": ["a", 2, "c"]},
            {"op": "test", "path": "/foo/1", "value": 2},
            {"baz": "qux", "foo": ["a", 2, "c"]},
        ),
        (
            {"foo": "bar"},
            {"op": "add", "path": "/child", "value": {"grandchild": {}}},
            {"foo": "bar", "child": {"grandchild": {}}},
        ),
        (
            {"foo": "bar"},
            {"op": "add", "path": "/baz", "value": "qux", "xyz": 123},
            {"foo": "bar", "baz": "qux"},
        ),
        ({"/": 9, "~1": 10}, {"op": "test", "path": "/~01", "value": 10}, {"/": 9, "~1": 10}),
        ({"foo": ["bar"]}, {"op": "add", "path": "/foo/-", "value": ["abc"]}, {"foo": ["bar", ["abc"]]}),
    ],
)
def test_json_patch_as_published(document: object, operation: object, result: object) -> None:
    assert operated(document, operation) == result


@pytest.mark.parametrize(
    ("document", "operation", "error"),
    [
        ({"baz": "qux"}, {"op": "test", "path": "/baz", "value": "bar"}, PatchTestFailedError),
        ({"foo": "bar"}, {"op": "add", "path": "/baz/bat", "value": "qux"}, PatchDoesNotFitError),
        ({"/": 9, "~1": 10}, {"op": "test", "path": "/~01", "value": "10"}, PatchTestFailedError),
        ({"foo": ["a"]}, {"op": "add", "path": "/foo/2", "value": 1}, PatchDoesNotFitError),
        ({"foo": ["a"]}, {"op": "add", "path": "/foo/00", "value": 1}, PatchDoesNotFitError),
        ({"foo": ["a"]}, {"op": "replace", "path": "/foo/1", "value": 1}, PatchDoesNotFitError),
        ({"foo": ["a"]}, {"op": "remove", "path": "/foo/-"}, PatchDoesNotFitError),
        ({"foo": "a"}, {"op": "remove", "path": "/bar"}, PatchDoesNotFitError),
        ({"foo": "a"}, {"op": "move", "from": "/bar", "path": "/foo"}, PatchDoesNotFitError),
        ({"foo": {"a": 1}}, {"op": "move", "from": "/foo", "path": "/foo/b"}, BadMetadataError),
        ({"foo": {"a": 1}}, {"op": "remove", "path": ""}, BadMetadataError),
        ({"foo": {"a": 1}}, {"op": "copy", "from": "/foo/a", "path": ""}, BadMetadataError),
        ({"foo": 1}, {"op": "add", "path": "/foo", "value": None}, BadMetadataError),
        ({"foo": 1}, {"op": "add", "path": "foo", "value": 1}, BadMetadataError),
        ({"foo": 1}, {"op": "add", "path": "/~2", "value": 1}, BadMetadataError),
        ({"foo": 1}, {"op": "add", "path": "/foo"}, BadMetadataError),
        ({"foo": 1}, {"op": "copy", "path": "/foo"}, BadMetadataError),
        ({"foo": 1}, {"op": "spam", "path": "/foo"}, BadMetadataError),
        ({"foo": 1}, {"path": "/foo"}, BadMetadataError),
        ({"foo": 1}, {"op": ["add"], "path": "/foo"}, BadMetadataError),
        ({"foo": 1}, {"op": "remove", "path": 1}, BadMetadataError),
        ({"foo": 1}, "remove", BadMetadataError),
    ],
)
def test_operations_that_do_not_apply(document: object, operation: object, error: type[Exception]) -> None:
    with pytest.raises(error):
        operated(document, operation)


def test_the_published_error_of_a_doubled_member_is_refused() -> None:
    with pytest.raises(BadMetadataError):
        parse_patch(b'[{"op":"add","path":"/baz","value":"qux","op":"remove"}]', "json-patch")


def test_a_json_patch_applies_whole_or_not_at_all() -> None:
    with pytest.raises(PatchTestFailedError):
        operated({"a": 1}, {"op": "add", "path": "/b", "value": 2}, {"op": "test", "path": "/a", "value": 2})


@pytest.mark.parametrize(
    ("present", "tested", "equal"),
    [
        ("1", "1.0", True),
        ("100", "1e2", True),
        ("0.001", "1E-3", True),
        ("-0", "0.0", True),
        ("1e400", "10e399", True),
        ("1", "-1", False),
        ("1", "true", False),
        ("12", "120", False),
        ("10000000000000000000000001", "1e25", False),
        ('{"a":[1],"b":"x"}', '{"b":"x","a":[1.0]}', True),
        ("[1,2]", "[2,1]", False),
        ('"é"', '"e\\u0301"', False),
    ],
)
def test_numbers_are_tested_by_value(present: str, tested: str, equal: bool) -> None:
    nodes: Nodes = {}
    leaves = list_leaves(parse_document(f'{{"k":{present}}}'.encode()))
    apply_changes(nodes, [LeafChange(pointer, None, text) for pointer, text in leaves.items()])
    patch = parse_patch(f'[{{"op":"test","path":"/k","value":{tested}}}]'.encode(), "json-patch")
    if equal:
        assert plan_changes(nodes, patch) == []
    else:
        with pytest.raises(PatchTestFailedError):
            plan_changes(nodes, patch)


def test_copies_of_copies_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perdure.metadata.patches.MAX_COPIED_VALUES", 10_000)
    doubling = [{"op": "copy", "from": "", "path": f"/{step}"} for step in range(40)]
    with pytest.raises(BadMetadataError):
        operated({"a": 1}, *doubling)
    inside_a_list = [{"op": "copy", "from": "/l", "path": "/l/-"} for _ in range(40)]
    with pytest.raises(BadMetadataError):
        operated({"l": [1]}, *inside_a_list)


def test_one_patch_adds_only_so_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perdure.metadata.patches.MAX_GROWTH_CHARACTERS", 100_000)
    copies = [{"op": "copy", "from": "/text", "path": f"/{number}"} for number in range(200)]
    with pytest.raises(BadMetadataError, match="too much"):
        operated({"text": "x" * 1000}, *copies)
    under_a_long_name = {"n" * 1000: {str(number): 1 for number in range(200)}}
    with pytest.raises(BadMetadataError, match="too much"):
        merged({}, under_a_long_name)
    large = {"text": "x" * 60_000, "more": "x" * 60_000}
    assert merged(large, {"a": "y" * 10_000}) == {**large, "a": "y" * 10_000}


def test_neighbours_that_are_not_loaded_decide_whether_an_object_is_typed() -> None:
    assert merged({"e": {"value": 1, "unit": "eV", "x": 2}}, {"e": {"x": None}}) == {"e": {"value": 1, "unit": "eV"}}
    with pytest.raises(BadMetadataError):
        merged({"e": {"value": "no number", "unit": "eV", "x": 2}}, {"e": {"x": None}})
    with pytest.raises(BadMetadataError):
        merged({"e": {"date": {"deep": 1}, "x": 2}}, {"e": {"x": None}})
    mixed = {"e": {"value": "text", "x": 2, "y": 3}}
    assert merged(mixed, {"e": {"unit": "eV"}}) == {"e": {"value": "text", "x": 2, "y": 3, "unit": "eV"}}


def test_a_typed_value_is_merged_like_the_object_that_it_is() -> None:
    energy = {"e": {"value": 1, "unit": "eV"}}
    assert merged(energy, {"e": {"unit": "keV"}}) == {"e": {"value": 1, "unit": "keV"}}
    assert merged(energy, {"e": {"unit": None}}) == {"e": {"value": 1}}
    assert merged(energy, {"e": {"note": "x"}}) == {"e": {"value": 1, "unit": "eV", "note": "x"}}
    assert operated(energy, {"op": "replace", "path": "/e/value", "value": 2}) == {"e": {"value": 2, "unit": "eV"}}


def test_an_object_without_its_last_member_stays_as_an_empty_one() -> None:
    assert merged({"a": {"b": {"c": 1}}}, {"a": {"b": {"c": None}}}) == {"a": {"b": {}}}
    assert merged({"a": {"b": {}}}, {"a": {"b": {"c": 1}}}) == {"a": {"b": {"c": 1}}}


def test_members_keep_their_place() -> None:
    document = {"z": 1, "y": {"b": 1, "a": 2}, "x": 3}
    assert list(merged(document, {"y": 5, "w": 1})) == ["z", "y", "x", "w"]
    assert list(merged(document, {"z": {"deep": 1}})) == ["z", "y", "x"]
    assert list(merged(document, {"y": {"b": None}})) == ["z", "y", "x"]


def test_only_the_touched_part_is_needed() -> None:
    big = {"left": {str(n): n for n in range(100)}, "right": {"deep": {"leaf": 1, "other": 2}}}
    for patch, form in (
        (b'{"right":{"deep":{"leaf":2}}}', "merge"),
        (b'[{"op":"replace","path":"/right/deep/leaf","value":2}]', "json-patch"),
    ):
        needed = needed_of(nodes_of(big), patch, form)  # type: ignore[arg-type]  # a tuple of literals widens to str
        assert set(needed) == {"", "/right", "/right/deep", "/right/deep/leaf"}


def test_replaying_changes_needs_what_is_above_them() -> None:
    needs = needs_of_changes(iter([LeafChange("/a/b/c", None, "1")]))
    assert needs.single == {"", "/a", "/a/b", "/a/b/c"}
    assert not needs.whole
