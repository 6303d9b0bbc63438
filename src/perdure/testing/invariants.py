"""Which of the invariants I1 to I9 of a running installation do not hold, given what was acknowledged to its users.

A driver tells a `Ledger` what it asks for and what was acknowledged. `find_breaches` then looks at the installation as
an outsider can: by the public client and by its storage roots. Nothing is repaired.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from perdure.archives.rebuild import compare
from perdure.db import Database
from perdure.events.model import GENESIS, Event, chain_digest
from perdure.formats.canonical import parse_json_object
from perdure.kernel.actor import ActorKind
from perdure.kernel.clock import parse_time
from perdure.kernel.ids import parse_id
from perdure_client import Client
from perdure_client.errors import ApiError, ClientError, LocalDamageError
from perdure_client.proof import read_public_key, require_manifest_of_statement, require_signature

Json = dict[str, Any]  # Any: the documents of the API, whose shapes are its own
Digest = str | None  # sha512, or None: nothing is at the path
_MOST_NAMED = 5


@dataclass(frozen=True, slots=True)
class Breach:
    """One thing that must not be: the invariant's number, and what was found instead."""

    invariant: str
    detail: str

    def __str__(self) -> str:
        return f"{self.invariant}: {self.detail}"


@dataclass(slots=True)
class KnownArchive:
    """What was acknowledged of one archive; several digests at a path where an answer was never seen.

    `files` are its own paths, a None among them hides what its parent has there. `metadata` are the members whose
    acknowledgement was seen, `sealed` holds the signed documents as they were first read.
    """

    id: str
    parent: KnownArchive | None = None
    files: dict[bytes, frozenset[Digest]] = field(default_factory=dict)
    metadata: dict[str, object] = field(default_factory=dict)
    is_closed: bool = False
    sealed: Json = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)

    @contextmanager
    def promising(self, contents: Mapping[bytes, Digest]) -> Iterator[None]:
        """Around a request: inside the block both states are possible, after it only the new one.

        When the block raises, nobody knows; such paths are not to be used again, for the request may still arrive.
        """
        with self.lock:
            for path, digest in contents.items():
                self.files[path] = self.files.get(path, frozenset({None})) | {digest}
        yield
        with self.lock:
            for path, digest in contents.items():
                self.files[path] = frozenset({digest})

    def settled(self) -> list[bytes]:
        """The paths of its own whose content is certain."""
        with self.lock:
            return [path for path, held in self.files.items() if len(held) == 1 and None not in held]

    def union(self) -> dict[bytes, frozenset[Digest]]:
        """What its readers should see: the parent's files with its own laid over them."""
        with self.lock:
            return {**(self.parent.union() if self.parent else {}), **self.files}


@dataclass(slots=True)
class Ledger:
    """What an installation has acknowledged."""

    archives: dict[str, KnownArchive] = field(default_factory=dict)
    chain: dict[int, str] = field(default_factory=dict)  # of the events that were seen, by their number

    def add(self, archive_id: str, parent: KnownArchive | None = None) -> KnownArchive:
        """Note a new archive."""
        self.archives[archive_id] = KnownArchive(archive_id, parent)
        return self.archives[archive_id]


def find_breaches(client: Client, ledger: Ledger, *, thorough: bool = True) -> list[Breach]:
    """What the API shows that must not be; `thorough` also proves what is closed offline, and reads all the events."""
    found: list[Breach] = []
    for known in list(ledger.archives.values()):
        found += _checked(known.id, lambda known=known: _check_content(client, known))  # type: ignore[misc]
        found += _checked(known.id, lambda known=known: _check_record(client, known))  # type: ignore[misc]
        if thorough and known.is_closed:
            found += _checked(known.id, lambda known=known: _check_proof(client, known))  # type: ignore[misc]
    return found + (_checked("events", lambda: _check_events(client, ledger)) if thorough else [])


def _checked(what: str, check: Callable[[], Iterator[Breach]]) -> list[Breach]:
    try:
        return list(check())
    except ClientError as error:
        return [Breach("I1", f"{what}: {type(error).__name__}: {error.detail} {error.next_step}")]


# Content


def _check_content(client: Client, known: KnownArchive) -> Iterator[Breach]:
    """Every path holds what was acknowledged or asked for, and nothing else is shown."""
    shown = {entry.path: entry for entry in client.entries(known.id, recursive=True) if entry.kind == "file"}
    expected = known.union()
    for path, possible in expected.items():
        listed = shown[path].digests.get("sha512") if path in shown else None
        if listed not in possible:
            rule = "I8" if path not in known.files else "I1"
            yield Breach(rule, f"{known.id} {path!r} shows {_short(listed)}, not {sorted(map(_short, possible))}")
        elif listed is not None:
            yield from _check_bytes(client, known, path, listed)
    strange = sorted(shown.keys() - expected.keys())
    if strange:
        yield Breach("I5", f"{known.id} shows {len(strange)} paths that nobody put there: {strange[:_MOST_NAMED]}")


def _check_bytes(client: Client, known: KnownArchive, path: bytes, digest: str) -> Iterator[Breach]:
    found = hashlib.sha512(client.read(known.id, path)).hexdigest()
    if found != digest:
        yield Breach("I1", f"{known.id} {path!r} is read as {_short(found)}, and listed as {_short(digest)}")


def _check_record(client: Client, known: KnownArchive) -> Iterator[Breach]:
    """Acknowledged metadata is there, a closed archive stays closed, a receipt stands on enough copies."""
    document = client.read_metadata(known.id).value
    for name, value in list(known.metadata.items()):
        if not isinstance(document, Mapping) or document.get(name) != value:
            yield Breach("I11", f"{known.id}: the acknowledged member {name!r} is not {value!r}")
    if not known.is_closed:
        return
    record = client.archive(known.id)
    if record.state != "closed":
        yield Breach("I2", f"{known.id} was closed and is {record.state}")
        return
    yield from _check_unchanged(known, "statement", client.statement(known.id))
    receipt = _find_receipt(client, known.id)
    if receipt is not None:
        yield from _check_unchanged(known, "receipt", receipt)
        yield from _check_copies(client, known.id, receipt)


def _check_unchanged(known: KnownArchive, name: str, document: Json) -> Iterator[Breach]:
    if known.sealed.setdefault(name, document) != document:
        yield Breach("I2", f"{known.id} has another {name} than before")


def _find_receipt(client: Client, archive_id: str) -> Json | None:
    try:
        return client.receipt(archive_id)
    except ApiError as error:
        if error.status == 409:
            return None
        raise


def _check_copies(client: Client, archive_id: str, receipt: Json) -> Iterator[Breach]:
    """A receipt needs every object of the archive verified in as many stores as the profile demands (I3)."""
    verified: dict[str, set[str]] = {}
    for copy in client.copies(archive_id):
        held = verified.setdefault(str(copy["part"]), set())
        if copy["verified_at"] is not None:
            held.add(str(copy["store"]))
    for object_id, stores in verified.items():
        if len(stores) < int(receipt["required_copies"]):
            yield Breach("I3", f"{archive_id} has a receipt, and part {object_id} is verified in {sorted(stores)} only")


# Proofs


def _check_proof(client: Client, known: KnownArchive) -> Iterator[Breach]:
    """The signature holds, the manifest is the one that was signed, and it names what is shown."""
    with tempfile.TemporaryDirectory(prefix="proof-") as folder:
        proof = client.get_proof(known.id, Path(folder))
        for place in sorted(proof.glob("*.json")):
            statement = parse_json_object(place.read_bytes())
            try:
                require_signature(statement, read_public_key(proof / f"{statement['key_id']}.pem"))
                require_manifest_of_statement(place.with_suffix(".ndjson"), statement)
            except LocalDamageError as error:
                yield Breach("I2", f"{known.id}: {place.name}: {error.detail}")


# Events


def _check_events(client: Client, ledger: Ledger) -> Iterator[Breach]:
    """Every event stands on the one before it, and none that was seen before has changed."""
    digest, expected = GENESIS, 1
    for told in client.events():
        event = _parse_event(told)
        digest = chain_digest(digest, event)
        if event.number != expected or digest != event.chain:
            yield Breach("I6", f"the chain of events breaks at {expected}")
            return
        if ledger.chain.setdefault(expected, event.chain.hex()) != event.chain.hex():
            yield Breach("I6", f"event {expected} is another one than before")
            return
        expected += 1
    if expected <= len(ledger.chain):
        yield Breach("I6", f"the log ends at {expected - 1}, and reached {len(ledger.chain)} before")


def _parse_event(told: Json) -> Event:
    return Event(
        number=told["number"],
        id=UUID(told["id"]),
        type=told["type"],
        subject=UUID(told["subject"]) if told["subject"] else None,
        actor_kind=ActorKind(told["actor_kind"]),
        actor_id=UUID(told["actor_id"]) if told["actor_id"] else None,
        recorded_at=parse_time(told["recorded_at"]),
        numbered_at=parse_time(told["numbered_at"]),
        data=told["data"],
        chain=bytes.fromhex(told["chain"]),
    )


# Storage roots


def find_breaches_in_roots(roots: Sequence[Path], ledger: Ledger) -> list[Breach]:
    """What the stores hold that must not be, judged by ocfl-py and by the bytes alone; nothing may write meanwhile.

    Raises RuntimeError when ocfl-py is not installed: `pip install ocfl-py`, or the extra `test` of this package.
    """
    found = [Breach("I2", f"{root}: {problem}") for root in roots for problem in judge_root(root)]
    for known in ledger.archives.values():
        for name in ("statement", "receipt"):
            if name in known.sealed:
                found += _check_in_roots(roots, known, name)
    return found


def judge_root(root: Path) -> list[str]:
    """What ocfl-py, which is not ours, finds wrong with a storage root and its objects, every digest included."""
    try:
        import ocfl  # noqa: PLC0415  # wanted by tests alone
    except ImportError:
        raise RuntimeError("The validator of storage roots is missing: install ocfl-py, or the extra `test`.") from None
    judge = ocfl.StorageRoot(root=str(root))
    if judge.validate() and judge.good_objects == judge.num_objects:  # its answer tells of the root's structure only
        return []
    return [f"{judge.errors} {judge.log.status_str() if judge.log else ''}".strip()]


def _check_in_roots(roots: Sequence[Path], known: KnownArchive, name: str) -> Iterator[Breach]:
    """The signed document and the parts that it stands on are in as many roots as the receipt says."""
    document, archive_id = known.sealed[name], str(parse_id(known.id))
    wanted = int(known.sealed.get("receipt", {}).get("required_copies", 1))
    heads = [read_head(root, f"urn:uuid:{archive_id}") for root in roots]
    holding = [head for head in heads if head and json.loads(head.get(f"{name}.json", b"null")) == document]
    if len(holding) < wanted:
        yield Breach("I3", f"{known.id}: its {name} is in {len(holding)} heads of {wanted}")
    for part in known.sealed["statement"]["parts"] if name == "statement" else []:
        held = [root for root in roots if _digest_of_inventory(root, part["id"]) == part["inventory_digest"]]
        if len(held) < wanted:
            yield Breach("I3", f"{known.id}: part {part['number']} is unchanged in {len(held)} stores of {wanted}")


def read_head(root: Path, object_id: str) -> dict[str, bytes]:
    """The newest files of an object by their logical paths; nothing when there is no such object."""
    folder = object_folder(root, object_id)
    if not (folder / "inventory.json").is_file():
        return {}
    inventory = json.loads((folder / "inventory.json").read_bytes())
    state = inventory["versions"][inventory["head"]]["state"]
    manifest = inventory["manifest"]
    return {path: (folder / manifest[digest][0]).read_bytes() for digest in state for path in state[digest]}


def object_folder(root: Path, object_id: str) -> Path:
    """Where the layout 0003 has an object."""
    key = hashlib.sha256(object_id.encode()).hexdigest()
    return root.joinpath(key[:3], key[3:6], key[6:9], object_id.replace(":", "%3a"))


def _digest_of_inventory(root: Path, object_id: str) -> str | None:
    inventory = object_folder(root, object_id) / "inventory.json"
    if not inventory.is_file():
        return None
    with inventory.open("rb") as stream:
        [sidecar] = inventory.parent.glob("inventory.json.sha*")
        return hashlib.file_digest(stream, sidecar.suffix[1:]).hexdigest()


# The database


def find_differences(lost: str, rebuilt: str) -> list[Breach]:
    """How a rebuilt database differs from the lost one in what the stores give back; both are addresses."""
    one, other = Database(lost), Database(rebuilt)
    try:
        return [Breach("I9", difference) for difference in compare(one, other)]
    finally:
        one.dispose()
        other.dispose()


def _short(digest: Digest) -> str:
    return "nothing" if digest is None else digest[:12]
