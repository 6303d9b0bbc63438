"""Our objects are valid to another implementation, and every broken rule is named."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from hashlib import sha512
from pathlib import Path
from typing import Any  # JSON documents that are broken on purpose have any shape

import ocfl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ocfl.layout_0003_hash_and_id_n_tuple import (
    Layout_0003_Hash_And_Id_N_Tuple,
)
from ocfl.validator import Validator

from perdure.formats.errors import DamagedOcflError
from perdure.formats.ocfl import (
    OBJECT_DECLARATION,
    OBJECT_DECLARATION_NAME,
    ROOT_FILES,
    Inventory,
    User,
    check_sidecar,
    expected_files,
    inventory_bytes,
    iter_object_problems,
    next_version,
    object_path,
    parse_inventory,
    part_inventory,
    read_known_inventory,
    sidecar_bytes,
    sidecar_name,
    version_number,
)

CREATED = datetime(2026, 11, 20, 12, tzinfo=UTC)
USER = User("Ada", "mailto:ada@example.org")
PART_ID = "urn:uuid:01936f4e-8a7c-7def-8123-456789abcdef"


def digest(data: bytes) -> str:
    return sha512(data).hexdigest()


def write_part(folder: Path, files: Mapping[str, bytes]) -> Inventory:
    data = part_inventory(
        PART_ID,
        [(path, digest(content)) for path, content in files.items()],
        created=CREATED,
        message="Seal",
        user=USER,
    )
    for path, content in files.items():
        target = folder / "v1/content" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    write_inventories(folder, data, "v1")
    return parse_inventory(data)


def write_inventories(folder: Path, data: bytes, version: str) -> None:
    (folder / OBJECT_DECLARATION_NAME).write_bytes(OBJECT_DECLARATION)
    for place in (folder / version, folder):
        place.mkdir(parents=True, exist_ok=True)
        (place / "inventory.json").write_bytes(data)
        (place / sidecar_name("sha512")).write_bytes(sidecar_bytes(data))


def test_a_root_with_a_part_and_a_head_is_valid_without_warnings(tmp_path: Path) -> None:
    for name, content in ROOT_FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    write_part(tmp_path / object_path(PART_ID), {"data/a": b"1", "data/b/twin": b"1", "data/ü": b"2", "meta/m": b"3"})
    write_head(tmp_path / object_path("urn:uuid:1"), [{"a": b"1"}, {"a": b"2", "b": b"1"}, {"c": b"3"}])
    root = ocfl.StorageRoot(root=str(tmp_path))
    assert root.validate(validate_objects=True, check_digests=True)
    for identifier in (PART_ID, "urn:uuid:1"):
        validator = Validator(log_warnings=True)
        assert validator.validate_object(str(tmp_path / object_path(identifier)))
        assert validator.log.num_warnings == 0


def write_head(folder: Path, states: list[dict[str, bytes]]) -> Inventory:
    inventory: Inventory | None = None
    for number, state in enumerate(states):
        planned = next_version(
            inventory,
            {path: digest(content) for path, content in state.items()},
            object_id="urn:uuid:1",
            created=CREATED,
            message=f"Change {number}",
            user=USER,
        )
        for content_path, logical_path in planned.new_content.items():
            (folder / content_path).parent.mkdir(parents=True, exist_ok=True)
            (folder / content_path).write_bytes(state[logical_path])
        inventory = planned.inventory
        write_inventories(folder, inventory_bytes(inventory), inventory.head)
    assert inventory is not None
    return inventory


names = st.sampled_from(["a", "b", "c/d", "c/e", "f"])
states = st.lists(st.dictionaries(names, st.binary(max_size=1), max_size=4), min_size=1, max_size=5)


@given(states)
@settings(max_examples=60)
def test_every_version_keeps_its_state_and_content_is_stored_once(listed: list[dict[str, bytes]]) -> None:
    inventory: Inventory | None = None
    stored: dict[str, bytes] = {}
    for state in listed:
        wanted = {path: digest(content) for path, content in state.items()}
        planned = next_version(inventory, wanted, object_id="urn:x:1", created=CREATED, message="m", user=USER)
        assert not planned.new_content.keys() & stored.keys()
        stored |= {path: state[logical] for path, logical in planned.new_content.items()}
        data = inventory_bytes(planned.inventory)
        inventory = parse_inventory(data)
        assert inventory.head_state() == wanted
        assert inventory_bytes(read_known_inventory(data, "sha512")) == data
    assert inventory is not None
    assert {path: digest(content) for path, content in stored.items()} == inventory.content_paths()
    assert len(set(stored.values())) == len(stored)
    for number, state in enumerate(listed, start=1):
        found = inventory.versions[f"v{number}"].state
        assert {path: key for key, paths in found.items() for path in paths} == {p: digest(c) for p, c in state.items()}


def test_a_next_version_of_another_object_is_refused() -> None:
    first = next_version(
        None, {"a": digest(b"1")}, object_id="urn:x:1", created=CREATED, message="m", user=USER
    ).inventory
    for object_id, algorithm in (("urn:x:2", "sha512"), ("urn:x:1", "sha256")):
        with pytest.raises(ValueError, match="another"):
            next_version(first, {}, object_id=object_id, created=CREATED, message="m", user=USER, algorithm=algorithm)


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60))
def test_objects_lie_where_the_extension_says(identifier: str) -> None:
    other = Layout_0003_Hash_And_Id_N_Tuple()
    assert object_path(identifier) == other.identifier_to_path(identifier)


def test_the_example_of_the_extension() -> None:
    assert object_path("object-01") == "3c0/ff4/240/object-01"
    assert object_path("..hor/rib:le-$id").endswith("/%2e%2ehor%2frib%3ale-%24id")


@pytest.mark.slow
def test_a_part_of_50000_files_has_an_inventory_below_17_mb() -> None:
    entries = [(f"data/scan_{number:06d}.h5", f"{number:0128x}") for number in range(50_000)]
    data = part_inventory(PART_ID, entries, created=CREATED, message="m", user=USER)
    assert len(data) < 17_000_000
    assert parse_inventory(data).head_state() == dict(entries)


def test_a_path_given_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        part_inventory(PART_ID, [("a", "00"), ("a", "01")], created=CREATED, message="m", user=USER)


def test_entries_in_any_order_give_the_same_bytes() -> None:
    entries = [("data/b", digest(b"1")), ("data/a", digest(b"1")), ("data/c", digest(b"2"))]
    written = {
        part_inventory(PART_ID, order, created=CREATED, message="m", user=USER) for order in (entries, entries[::-1])
    }
    assert len(written) == 1


def sample() -> dict[str, Any]:
    state = {digest(b"1"): ["a", "b/c"]}
    return {
        "id": "urn:x:1",
        "type": "https://ocfl.io/1.1/spec/#inventory",
        "digestAlgorithm": "sha512",
        "head": "v2",
        "contentDirectory": "stuff",
        "manifest": {digest(b"1"): ["v1/stuff/a"]},
        "fixity": {"md5": {"c4ca4238a0b923820dcc509a6f75849b": ["v1/stuff/a"]}},
        "versions": {
            "v1": {"created": "2026-11-20T12:00:00Z", "state": state, "message": "m", "user": {"name": "A"}},
            "v2": {"created": "2026-11-20T12:00:00.5+01:00", "state": copy.deepcopy(state)},
        },
    }


def test_a_known_inventory_is_read_as_one_that_is_judged() -> None:
    data = json.dumps(sample()).encode()
    known, judged = read_known_inventory(data, "sha512"), parse_inventory(data)
    assert inventory_bytes(known) == inventory_bytes(judged)
    assert known.versions["v1"].user == judged.versions["v1"].user
    with pytest.raises(DamagedOcflError, match="E025"):
        read_known_inventory(data, "sha256")


def put(*path: str, value: object) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        for step in path[:-1]:
            document = document[step]
        document[path[-1]] = value

    return change


def drop(*path: str) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        for step in path[:-1]:
            document = document[step]
        del document[path[-1]]

    return change


ONE, TWO = digest(b"1"), digest(b"2")
BROKEN = [
    ("E036", drop("id")),
    ("E036", drop("head")),
    ("E041", drop("manifest")),
    ("E041", drop("versions")),
    ("E037", put("id", value="")),
    ("E037", put("id", value=7)),
    ("E038", put("type", value="https://ocfl.io/1.0/spec/#inventory")),
    ("E025", put("digestAlgorithm", value="md5")),
    ("E025", put("digestAlgorithm", value=["sha512"])),
    ("E025", put("manifest", value={"abc": ["v1/stuff/a"]})),
    ("E025", put("manifest", value={"z" * 128: ["v1/stuff/a"]})),
    ("E040", put("head", value="v1")),
    ("E040", put("head", value=2)),
    ("E017", put("contentDirectory", value="a/b")),
    ("E018", put("contentDirectory", value="..")),
    ("E102", put("extra", value=1)),
    ("E102", put("versions", "v1", "extra", value=1)),
    ("E102", put("versions", "v1", "user", value={"name": "A", "email": "x"})),
    ("E106", put("manifest", value=[])),
    ("E092", put("manifest", ONE, value="v1/stuff/a")),
    ("E092", put("manifest", ONE, value=[])),
    ("E092", put("manifest", ONE, value=["v1/stuff/a", 1])),
    ("E100", put("manifest", ONE, value=["/v1/stuff/a"])),
    ("E099", put("manifest", ONE, value=["v1/stuff/../a"])),
    ("E042", put("manifest", ONE, value=["v1/content/a"])),
    ("E042", put("manifest", ONE, value=["v3/stuff/a"])),
    ("E101", put("manifest", ONE, value=["v1/stuff/a", "v1/stuff/a/b"])),
    ("E101", put("manifest", ONE, value=["v1/stuff/a", "v1/stuff/a"])),
    ("E096", put("manifest", ONE.upper(), value=["v2/stuff/a"])),
    ("E107", put("manifest", TWO, value=["v2/stuff/x"])),
    ("E044", put("versions", value=[])),
    ("E008", put("versions", value={})),
    ("E009", drop("versions", "v1")),
    ("E010", put("versions", "v4", value={})),
    ("E046", put("versions", "v03", value={})),
    ("E047", put("versions", "v2", value=[])),
    ("E048", drop("versions", "v2", "created")),
    ("E048", drop("versions", "v2", "state")),
    ("E049", put("versions", "v2", "created", value="2026-11-20")),
    ("E049", put("versions", "v2", "created", value="2026-11-20T12:00:00")),
    ("E049", put("versions", "v2", "created", value="2026-11-31T12:00:00Z")),
    ("E050", put("versions", "v2", "state", value={TWO: ["a"]})),
    ("E050", put("versions", "v2", "state", value={ONE.upper(): ["a"]})),
    ("E050", put("versions", "v2", "state", value=[])),
    ("E052", put("versions", "v2", "state", ONE, value=["a//b"])),
    ("E052", put("versions", "v2", "state", ONE, value=["../b"])),
    ("E053", put("versions", "v2", "state", ONE, value=["/a"])),
    ("E095", put("versions", "v2", "state", ONE, value=["a", "a"])),
    ("E095", put("versions", "v2", "state", ONE, value=["a", "a/b"])),
    ("E054", put("versions", "v1", "user", value={})),
    ("E054", put("versions", "v1", "user", value="A")),
    ("E054", put("versions", "v1", "user", value={"name": "A", "address": 1})),
    ("E094", put("versions", "v1", "message", value=None)),
    ("E111", put("fixity", value=[])),
    ("E056", put("fixity", value={"adler32": {}})),
    ("E057", put("fixity", value={"md5": {"00": ["v1/stuff/b"]}})),
    ("E057", put("fixity", value={"md5": {"00": "v1/stuff/a"}})),
    ("E097", put("fixity", value={"md5": {"aa": ["v1/stuff/a"], "AA": ["v1/stuff/a"]}})),
]


@pytest.mark.parametrize(("rule", "change"), BROKEN)
def test_a_broken_rule_is_named(rule: str, change: Callable[[dict[str, Any]], None]) -> None:
    document = sample()
    inventory = parse_inventory(json.dumps(document).encode())
    assert parse_inventory(inventory_bytes(inventory)) == inventory
    change(document)
    with pytest.raises(DamagedOcflError) as caught:
        parse_inventory(json.dumps(document).encode())
    assert caught.value.rule == rule


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b'{"id":1,"id":2}', b"\xff"])
def test_what_is_not_an_inventory_is_refused(data: bytes) -> None:
    with pytest.raises(DamagedOcflError, match="E033"):
        parse_inventory(data)


def test_the_sidecar_must_fit() -> None:
    data = json.dumps(sample()).encode()
    assert parse_inventory(data, sidecar_bytes(data)).head == "v2"
    check_sidecar(
        data,
        sidecar_bytes(data).replace(b" ", b"\t").strip().upper().replace(b"INVENTORY.JSON", b"inventory.json"),
        "sha512",
    )
    with pytest.raises(DamagedOcflError, match="E060"):
        parse_inventory(data + b" ", sidecar_bytes(data))
    for sidecar in (b"", b"xyz inventory.json", sidecar_bytes(data).replace(b"inventory", b"other")):
        with pytest.raises(DamagedOcflError, match="E061"):
            parse_inventory(data, sidecar)


def test_missing_and_unknown_files_are_told(tmp_path: Path) -> None:
    inventory = write_part(tmp_path, {"data/a": b"1", "data/b": b"2", "meta/m": b"3"})
    present = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert present == expected_files(inventory)
    assert not list(iter_object_problems(inventory, present))
    told = {}
    for path in present:
        [problem] = iter_object_problems(inventory, present - {path})
        assert problem.path == path
        told[path] = problem.rule
    assert told == {
        "0=ocfl_object_1.1": "E003",
        "inventory.json": "E063",
        "inventory.json.sha512": "E058",
        "v1/inventory.json": "W010",
        "v1/inventory.json.sha512": "E058",
        "v1/content/data/a": "E092",
        "v1/content/data/b": "E092",
        "v1/content/meta/m": "E092",
    }
    for path, rule in (("x", "E001"), ("v1/x", "E015"), ("v1/content/data/x", "E023"), ("v2/content/x", "E001")):
        assert [problem.rule for problem in iter_object_problems(inventory, present | {path})] == [rule]


@pytest.mark.parametrize("name", ["v0", "v01", "1", "v", "v-1", "v1/"])
def test_a_padded_or_strange_version_is_refused(name: str) -> None:
    assert version_number("v12") == 12
    with pytest.raises(ValueError, match="version"):
        version_number(name)
