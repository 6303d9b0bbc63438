"""OCFL 1.1: inventories, sidecars, declarations and the storage layout (https://ocfl.io/1.1/spec/).

Writers give the same bytes for the same content. The reader is strict and names the rule that is broken by its
validation code (E060).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from hashlib import sha256
from itertools import chain
from typing import TypeGuard, cast

import orjson

from perdure.formats.canonical import canonical_json, parse_json, plain_json
from perdure.formats.errors import DamagedFormatError, DamagedOcflError
from perdure.kernel.clock import format_time, parse_time
from perdure.kernel.digests import CONTENT_DIGESTS, DIGEST_LENGTHS, digest_bytes

INVENTORY_TYPE = "https://ocfl.io/1.1/spec/#inventory"
INVENTORY_NAME = "inventory.json"
CONTENT_DIRECTORY = "content"
ROOT_DECLARATION_NAME = "0=ocfl_1.1"
ROOT_DECLARATION = b"ocfl_1.1\n"
OBJECT_DECLARATION_NAME = "0=ocfl_object_1.1"
OBJECT_DECLARATION = b"ocfl_object_1.1\n"
LAYOUT_NAME = "ocfl_layout.json"
LAYOUT_EXTENSION = "0003-hash-and-id-n-tuple-storage-layout"
LAYOUT = canonical_json(
    {
        "extension": LAYOUT_EXTENSION,
        "description": "Three folders of three digits of the SHA-256 of the object's identifier, "
        "then the identifier with every character outside A-Z a-z 0-9 - _ percent-encoded.",
    }
)
LAYOUT_CONFIG_NAME = f"extensions/{LAYOUT_EXTENSION}/config.json"
_TUPLE_SIZE, _TUPLE_COUNT, _MAX_ENCODED = 3, 3, 100
LAYOUT_CONFIG = canonical_json(
    {
        "extensionName": LAYOUT_EXTENSION,
        "digestAlgorithm": "sha256",
        "tupleSize": _TUPLE_SIZE,
        "numberOfTuples": _TUPLE_COUNT,
    }
)
ROOT_FILES: Mapping[str, bytes] = {
    ROOT_DECLARATION_NAME: ROOT_DECLARATION,
    LAYOUT_NAME: LAYOUT,
    LAYOUT_CONFIG_NAME: LAYOUT_CONFIG,
}  # the declaration is written last where the order can be chosen

_REQUIRED = ("id", "type", "digestAlgorithm", "head", "manifest", "versions")
_OPTIONAL = ("contentDirectory", "fixity")
_FIXITY_DIGESTS = frozenset({
    "md5", "sha1", "sha256", "sha512", "blake2b-512", "blake2b-160", "blake2b-256", "blake2b-384", "sha512/256", "size"
})  # fmt: skip
_ARRAY = frozenset({list})
_TEXT = frozenset({str})
_DIGITS = re.compile(r"[0-9A-Fa-f]*")
_VERSION_NAME = re.compile(r"v([1-9][0-9]*)")
_RFC3339 = re.compile(r"\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}:\d{2}(\.\d+)?([Zz]|[+-]\d{2}:\d{2})")
_SAFE_IN_ID = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")

PathsByDigest = Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class User:
    """Who made a version; the address is a URI (`mailto:`, `https://orcid.org/…`, `urn:uuid:…`)."""

    name: str
    address: str | None = None


@dataclass(frozen=True, slots=True)
class Version:
    """The state of an object after one version: for each digest the logical paths that have it."""

    created: str
    state: PathsByDigest
    message: str | None = None
    user: User | None = None


@dataclass(frozen=True, slots=True)
class Inventory:
    """An OCFL inventory. Content paths in `manifest` and `fixity` are relative to the object root."""

    id: str
    digest_algorithm: str
    head: str
    manifest: PathsByDigest
    versions: Mapping[str, Version]
    content_directory: str = CONTENT_DIRECTORY
    fixity: Mapping[str, PathsByDigest] = field(default_factory=dict)

    def head_state(self) -> dict[str, str]:
        """The digest of each logical path of the newest version."""
        return {path: digest for digest, paths in self.versions[self.head].state.items() for path in paths}

    def content_paths(self) -> dict[str, str]:
        """The digest of each content path, of all versions."""
        return {path: digest for digest, paths in self.manifest.items() for path in paths}


@dataclass(frozen=True, slots=True)
class NextVersion:
    """A new inventory, and what must be stored under it: for each new content path the logical path that it holds."""

    inventory: Inventory
    new_content: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ObjectProblem:
    """A difference between an inventory and the files that are there; `rule` is the validation code."""

    rule: str
    path: str
    detail: str


# Places


@lru_cache(maxsize=1024)  # it is asked for each file that is read
def object_path(identifier: str) -> str:
    """The path of an object below the storage root (extension 0003 with its default parameters)."""
    raw = identifier.encode("utf-8")
    digest = sha256(raw).hexdigest()
    encoded = "".join(chr(byte) if byte in _SAFE_IN_ID else f"%{byte:02x}" for byte in raw)
    if len(encoded) > _MAX_ENCODED:
        encoded = f"{encoded[:_MAX_ENCODED]}-{digest}"
    tuples = (digest[start : start + _TUPLE_SIZE] for start in range(0, _TUPLE_SIZE * _TUPLE_COUNT, _TUPLE_SIZE))
    return "/".join((*tuples, encoded))


def sidecar_name(algorithm: str) -> str:
    """`inventory.json.sha512`."""
    return f"{INVENTORY_NAME}.{algorithm}"


def version_number(name: str) -> int:
    """The number of a version folder (`v3`); raises ValueError for a padded or other name."""
    match = _VERSION_NAME.fullmatch(name)
    if not match:
        raise ValueError(f"{name!r} is not the name of a version without padding")
    return int(match[1])


# Writing


def part_inventory(
    object_id: str,
    entries: Iterable[tuple[str, str]],
    *,
    created: datetime,
    message: str,
    user: User,
    algorithm: str = "sha512",
) -> bytes:
    """The inventory of a part: version `v1` only, each file at `v1/content/<path>` and with <path> as logical path.

    `entries` are (path, digest) in any order; equal content keeps a file for each path. The time is linear in their
    number. Raises ValueError when a path is given twice.
    """
    listed = list(entries)
    if len({path for path, _ in listed}) != len(listed):
        raise ValueError("a path is given twice")
    state: dict[str, list[str]] = {}
    for path, digest in listed:
        state.setdefault(digest, []).append(path)
    manifest = {digest: [f"v1/{CONTENT_DIRECTORY}/{path}" for path in paths] for digest, paths in state.items()}
    version = Version(format_time(created), state, message, user)
    return inventory_bytes(Inventory(object_id, algorithm, "v1", manifest, {"v1": version}))


def next_version(
    previous: Inventory | None,
    state: Mapping[str, str],
    *,
    object_id: str,
    created: datetime,
    message: str,
    user: User,
    algorithm: str = "sha512",
) -> NextVersion:
    """Plan the version after `previous` (None: the first) whose logical paths have the digests of `state`.

    Content that the object holds already is referred to, whatever its name was; new content is stored once, under
    the first of its logical paths. Raises ValueError when `previous` is of another object or algorithm.
    """
    if previous and (previous.id, previous.digest_algorithm) != (object_id, algorithm):
        raise ValueError("the previous inventory is of another object or algorithm")
    name = f"v{version_number(previous.head) + 1 if previous else 1}"
    directory = previous.content_directory if previous else CONTENT_DIRECTORY
    paths_by_digest = _group(state)
    known: PathsByDigest = previous.manifest if previous else {}
    added = {digest: paths[0] for digest, paths in paths_by_digest.items() if digest not in known}
    manifest = {**known, **{digest: [f"{name}/{directory}/{path}"] for digest, path in added.items()}}
    version = Version(format_time(created), paths_by_digest, message, user)
    versions = {**(previous.versions if previous else {}), name: version}
    fixity = previous.fixity if previous else {}
    inventory = Inventory(object_id, algorithm, name, manifest, versions, directory, fixity)
    return NextVersion(inventory, {f"{name}/{directory}/{path}": path for path in added.values()})


def inventory_bytes(inventory: Inventory) -> bytes:
    """The inventory as canonical JSON; `contentDirectory` is written only where it is not the default."""
    document: dict[str, object] = {
        "id": inventory.id,
        "type": INVENTORY_TYPE,
        "digestAlgorithm": inventory.digest_algorithm,
        "head": inventory.head,
        "manifest": _sorted_paths(inventory.manifest),
        "versions": {name: _version_document(version) for name, version in inventory.versions.items()},
    }
    if inventory.content_directory != CONTENT_DIRECTORY:
        document["contentDirectory"] = inventory.content_directory
    if inventory.fixity:
        document["fixity"] = {name: _sorted_paths(block) for name, block in inventory.fixity.items()}
    return plain_json(document)


def sidecar_bytes(inventory: bytes, algorithm: str = "sha512") -> bytes:
    """The sidecar of an inventory: written after it, never before."""
    return sidecar_line(digest_bytes(inventory, (algorithm,))[algorithm])


def sidecar_line(digest: str) -> bytes:
    """The sidecar of an inventory with this digest."""
    return f"{digest} {INVENTORY_NAME}\n".encode("ascii")


# Reading


def parse_inventory(data: bytes, sidecar: bytes | None = None) -> Inventory:
    """Read an inventory and, where given, check it against its sidecar; raises DamagedOcflError with the code.

    The whole structure is checked: keys, versions, paths, and that manifest and states refer to each other.
    """
    try:
        document = parse_json(data)
    except DamagedFormatError as error:
        raise DamagedOcflError("E033", f"the inventory is {error.detail}") from error
    if not _is_object(document):
        raise DamagedOcflError("E033", "the inventory is not a JSON object")
    _check_keys(document)
    algorithm = document["digestAlgorithm"]
    if not isinstance(algorithm, str) or algorithm not in CONTENT_DIGESTS:
        raise DamagedOcflError("E025", f"the digest algorithm {algorithm!r} is neither sha512 nor sha256")
    if sidecar is not None:
        check_sidecar(data, sidecar, algorithm)
    inventory = _read_inventory(document, algorithm)
    _check_references(inventory)
    return inventory


def read_known_inventory(data: bytes, algorithm: str) -> Inventory:
    """Read an inventory of ours that has the digest it was written with, and so needs no judging: a fifth of the time.

    Raises DamagedOcflError when it is of another digest algorithm.
    """
    document = orjson.loads(data)
    if document["digestAlgorithm"] != algorithm:
        raise DamagedOcflError("E025", f"the digest algorithm is not {algorithm}")
    versions = {
        name: Version(one["created"], one["state"], one.get("message"), User(**one["user"]) if "user" in one else None)
        for name, one in document["versions"].items()
    }
    directory, fixity = document.get("contentDirectory", CONTENT_DIRECTORY), document.get("fixity", {})
    return Inventory(document["id"], algorithm, document["head"], document["manifest"], versions, directory, fixity)


def check_sidecar(inventory: bytes, sidecar: bytes, algorithm: str) -> str:
    """The digest of the inventory; raises DamagedOcflError unless the sidecar has its form and this digest."""
    match = re.fullmatch(rb"([0-9A-Fa-f]+)[ \t]+inventory\.json\n?", sidecar)
    if not match:
        raise DamagedOcflError("E061", "the sidecar of the inventory is not `DIGEST inventory.json`")
    digest = digest_bytes(inventory, (algorithm,))[algorithm]
    if match[1].decode("ascii").lower() != digest:
        raise DamagedOcflError("E060", "the inventory does not have the digest that its sidecar states")
    return digest


def expected_files(inventory: Inventory) -> set[str]:
    """The paths, relative to the object root, of every file of an object that we wrote."""
    folders = ("", *(f"{name}/" for name in inventory.versions))
    inventories = {folder + INVENTORY_NAME for folder in folders}
    sidecars = {folder + sidecar_name(inventory.digest_algorithm) for folder in folders}
    contents = chain.from_iterable(inventory.manifest.values())
    return {OBJECT_DECLARATION_NAME, *inventories, *sidecars, *contents}


def iter_object_problems(inventory: Inventory, files_present: Collection[str]) -> Iterator[ObjectProblem]:
    """What is missing and what is too many among the files below an object root, sorted by path.

    Digests are not looked at: that is `parse_inventory` with the sidecar for the inventory, and verifying for content.
    """
    expected = expected_files(inventory)
    for path in sorted(expected.symmetric_difference(files_present)):
        if path in expected:
            yield ObjectProblem(_missing_rule(path), path, "the file is missing")
        else:
            in_version = path.partition("/")[0] in inventory.versions
            in_content = in_version and path.split("/")[1:2] == [inventory.content_directory]
            rule = "E023" if in_content else "E015" if in_version else "E001"
            yield ObjectProblem(rule, path, "the file does not belong to the object")


def _missing_rule(path: str) -> str:
    if path == OBJECT_DECLARATION_NAME:
        return "E003"
    name = path.rpartition("/")[2]
    if name == INVENTORY_NAME and path.count("/") < 2:
        return "W010" if "/" in path else "E063"
    return "E058" if name.startswith(f"{INVENTORY_NAME}.") and path.count("/") < 2 else "E092"


def _check_keys(document: Mapping[str, object]) -> None:
    for key in _REQUIRED:
        if key not in document:
            raise DamagedOcflError("E041" if key in ("manifest", "versions") else "E036", f"the key {key!r} is missing")
    unknown = document.keys() - {*_REQUIRED, *_OPTIONAL}
    if unknown:
        raise DamagedOcflError("E102", f"the inventory has the unknown key {min(unknown)!r}")


def _read_inventory(document: Mapping[str, object], algorithm: str) -> Inventory:
    identifier, head = document["id"], document["head"]
    if not isinstance(identifier, str) or not identifier:
        raise DamagedOcflError("E037", "the id is not text")
    if document["type"] != INVENTORY_TYPE:
        raise DamagedOcflError("E038", f"the type {document['type']!r} is not that of OCFL 1.1")
    directory = _read_content_directory(document.get("contentDirectory", CONTENT_DIRECTORY))
    versions = _read_versions(document["versions"])
    if head != f"v{len(versions)}":
        raise DamagedOcflError("E040", f"the head {head!r} is not the newest version v{len(versions)}")
    manifest = _read_digest_block(document["manifest"], "manifest", ("E106", "E092"), algorithm)
    for path in chain.from_iterable(manifest.values()):
        _check_content_path(path, directory, versions)
    return Inventory(
        identifier, algorithm, head, manifest, versions, directory, _read_fixity(document.get("fixity", {}), manifest)
    )


def _read_content_directory(value: object) -> str:
    if not isinstance(value, str) or not value or "/" in value:
        raise DamagedOcflError("E017", f"{value!r} cannot be the content directory")
    if value in (".", ".."):
        raise DamagedOcflError("E018", f"{value!r} cannot be the content directory")
    return value


def _read_versions(value: object) -> dict[str, Version]:
    if not _is_object(value):
        raise DamagedOcflError("E044", "the versions are not an object")
    if not value:
        raise DamagedOcflError("E008", "there is no version")
    missing = next((n for n in range(1, len(value) + 1) if f"v{n}" not in value), None)
    if missing:
        strange = next((name for name in value if not _VERSION_NAME.fullmatch(name)), None)
        rule, what = ("E046", f"{strange!r} is not a version") if strange else ("E010", f"v{missing} is missing")
        raise DamagedOcflError("E009" if missing == 1 and not strange else rule, what)
    return {f"v{n}": _read_version(f"v{n}", value[f"v{n}"]) for n in range(1, len(value) + 1)}


def _read_version(name: str, value: object) -> Version:
    if not _is_object(value):
        raise DamagedOcflError("E047", f"{name} is not an object")
    if not value.keys() >= {"created", "state"}:
        raise DamagedOcflError("E048", f"{name} has no time or no state")
    unknown = value.keys() - {"created", "state", "message", "user"}
    if unknown:
        raise DamagedOcflError("E102", f"{name} has the unknown key {min(unknown)!r}")
    message = value.get("message")
    if not (message is None or isinstance(message, str)) or ("message" in value and message is None):
        raise DamagedOcflError("E094", f"the message of {name} is not text")
    state = _read_digest_block(value["state"], f"state of {name}", ("E050", "E050"), None)
    _check_logical_paths(name, [path for paths in state.values() for path in paths])
    return Version(_read_created(name, value["created"]), state, message, _read_user(name, value))


def _read_created(name: str, value: object) -> str:
    if isinstance(value, str) and _RFC3339.fullmatch(value):
        try:
            parse_time(value.upper())
        except ValueError:
            pass
        else:
            return value
    raise DamagedOcflError("E049", f"the time {value!r} of {name} is not RFC 3339 with a zone")


def _read_user(name: str, version: Mapping[str, object]) -> User | None:
    if "user" not in version:
        return None
    value = version["user"]
    if not _is_object(value) or not isinstance(value.get("name"), str) or not value["name"]:
        raise DamagedOcflError("E054", f"the user of {name} has no name")
    unknown = value.keys() - {"name", "address"}
    if unknown:
        raise DamagedOcflError("E102", f"the user of {name} has the unknown key {min(unknown)!r}")
    address = value.get("address")
    if not (address is None or isinstance(address, str)):
        raise DamagedOcflError("E054", f"the address of the user of {name} is not text")
    return User(str(value["name"]), address)


def _read_digest_block(
    value: object, where: str, rules: tuple[str, str], algorithm: str | None
) -> dict[str, tuple[str, ...]]:
    """Read digests with arrays of paths; `rules` are the codes for a wrong block and for a wrong array."""
    if not _is_object(value):
        raise DamagedOcflError(rules[0], f"the {where} is not an object")
    if not _are_texts(value.values()):
        digest = next(digest for digest, paths in value.items() if not _are_texts([paths]))
        raise DamagedOcflError(rules[1], f"the paths of {digest[:16]}… in the {where} are not an array of text")
    if algorithm and not _are_digests(value, DIGEST_LENGTHS[algorithm]):
        digest = next(digest for digest in value if not _are_digests([digest], DIGEST_LENGTHS[algorithm]))
        raise DamagedOcflError("E025", f"{digest[:16]!r}… in the {where} is not a digest of {algorithm}")
    return dict(zip(value, map(tuple, cast("Collection[list[str]]", value.values())), strict=True))


def _read_fixity(value: object, manifest: PathsByDigest) -> dict[str, dict[str, tuple[str, ...]]]:
    if not _is_object(value):
        raise DamagedOcflError("E111", "the fixity is not an object")
    known = {path for paths in manifest.values() for path in paths}
    fixity: dict[str, dict[str, tuple[str, ...]]] = {}
    for name, block in value.items():
        if name not in _FIXITY_DIGESTS:
            raise DamagedOcflError("E056", f"{name!r} cannot be a digest of the fixity block")
        fixity[name] = _read_digest_block(block, f"fixity of {name}", ("E057", "E057"), None)
        if len({digest.lower() for digest in fixity[name]}) != len(fixity[name]):
            raise DamagedOcflError("E097", f"a digest stands twice in the fixity of {name}")
        if not all(path in known for paths in fixity[name].values() for path in paths):
            raise DamagedOcflError("E057", f"the fixity of {name} has a path that is not in the manifest")
    return fixity


def _are_texts(arrays: Collection[object]) -> bool:
    """Whether each is an array of text with something in it; many at once, which takes a fraction of one by one."""
    if not _ARRAY.issuperset(map(type, arrays)) or not all(arrays):
        return False
    return _TEXT.issuperset(map(type, chain.from_iterable(cast("Collection[list[object]]", arrays))))


def _are_digests(digests: Collection[str], length: int) -> bool:
    """Whether each has so many hexadecimal digits."""
    return {length}.issuperset(map(len, digests)) and _DIGITS.fullmatch("".join(digests)) is not None


def _is_plain(path: str) -> bool:
    """Whether no component can be empty, '.' or '..': nearly every path, so that the others may be taken apart."""
    return "//" not in path and "/." not in path and path[:1] not in ("", "/", ".") and path[-1] != "/"


def _check_content_path(path: str, directory: str, versions: Mapping[str, Version]) -> None:
    start = path.split("/", 2)
    if _is_plain(path) and len(start) == 3 and start[0] in versions and start[1] == directory:
        return
    if path.startswith("/") or path.endswith("/"):
        raise DamagedOcflError("E100", f"the content path {path!r} begins or ends with a slash")
    components = path.split("/")
    if any(component in ("", ".", "..") for component in components):
        raise DamagedOcflError("E099", f"the content path {path!r} has an empty, '.' or '..' component")
    if len(components) < 3 or components[0] not in versions or components[1] != directory:
        raise DamagedOcflError("E042", f"the content path {path!r} is in no content directory of a version")


def _check_logical_paths(name: str, paths: Sequence[str]) -> None:
    for path in paths:
        if _is_plain(path):
            continue
        if path.startswith("/") or path.endswith("/"):
            raise DamagedOcflError("E053", f"the logical path {path!r} of {name} begins or ends with a slash")
        if any(component in ("", ".", "..") for component in path.split("/")):
            raise DamagedOcflError("E052", f"the logical path {path!r} of {name} has an empty, '.' or '..' component")
    _check_conflicts(paths, "E095", f"logical path of {name}")


def _check_conflicts(paths: Sequence[str], rule: str, what: str) -> None:
    """No path twice, and none that is a folder of another."""
    files = set(paths)
    if len(files) != len(paths):
        raise DamagedOcflError(rule, f"a {what} stands twice")
    clashes = files & _find_folders(paths)
    if clashes:
        raise DamagedOcflError(rule, f"the {what} {min(clashes)!r} is a file and a folder")


def _find_folders(paths: Iterable[str]) -> set[str]:
    found: set[str] = set()
    for path in paths:
        end = path.rfind("/")
        while end > 0 and (folder := path[:end]) not in found:
            found.add(folder)
            end = path.rfind("/", 0, end)
    return found


def _check_references(inventory: Inventory) -> None:
    manifest = inventory.manifest
    if len({digest.lower() for digest in manifest}) != len(manifest):
        raise DamagedOcflError("E096", "a digest stands twice in the manifest, in upper and lower case")
    _check_conflicts([path for paths in manifest.values() for path in paths], "E101", "content path")
    used = {digest for version in inventory.versions.values() for digest in version.state}
    if used - manifest.keys():
        raise DamagedOcflError("E050", f"the manifest lacks the digest {min(used - manifest.keys())[:16]}… of a state")
    if manifest.keys() - used:
        raise DamagedOcflError("E107", f"no state has the digest {min(manifest.keys() - used)[:16]}… of the manifest")


def _is_object(value: object) -> TypeGuard[dict[str, object]]:
    return isinstance(value, dict)


def _group(state: Mapping[str, str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for path in sorted(state):
        groups.setdefault(state[path], []).append(path)
    return groups


def _sorted_paths(block: PathsByDigest) -> dict[str, Sequence[str]]:
    return {digest: sorted(paths) if len(paths) > 1 else paths for digest, paths in block.items()}


def _version_document(version: Version) -> dict[str, object]:
    document: dict[str, object] = {"created": version.created, "state": _sorted_paths(version.state)}
    if version.message is not None:
        document["message"] = version.message
    if version.user is not None:
        document["user"] = {"name": version.user.name}
        if version.user.address is not None:
            document["user"] = {"name": version.user.name, "address": version.user.address}
    return document
