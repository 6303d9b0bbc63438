"""Verify a folder without any server: against a manifest, and the manifest against a signed closing statement.

Formats: `docs/format`. The Merkle tree follows RFC 6962 section 2.1 with SHA-512, signatures are Ed25519 (RFC 8032)
over the canonical JSON of the document without its signature.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from perdure_client.errors import LocalDamageError, UsageError
from perdure_client.local import iter_folder_files
from perdure_client.paths import is_safe
from perdure_client.progress import Progress

_READ_SIZE = 1 << 20
_CHECKSUM_LINE = re.compile(rb"(\\?)([0-9a-f]{64}|[0-9a-f]{128}) [ *](.+)", re.DOTALL)
_ALGORITHM_BY_LENGTH = {64: "sha256", 128: "sha512"}
_UNESCAPED = {b"\\\\": b"\\", b"\\n": b"\n", b"\\r": b"\r"}


@dataclass(frozen=True)
class Expected:
    """What a manifest says of one path; `digest` is hexadecimal and None for folders and links."""

    path: bytes
    kind: str
    size: int | None
    algorithm: str | None
    digest: str | None
    target: bytes | None = None


@dataclass
class FolderReport:
    """What the comparison of a folder with a manifest found; sizes in bytes."""

    files: int = 0
    size: int = 0
    changed: list[bytes] = field(default_factory=list)
    missing: list[bytes] = field(default_factory=list)
    extra: list[bytes] = field(default_factory=list)
    unreadable: list[tuple[bytes, str]] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        return not (self.changed or self.missing or self.extra or self.unreadable)


def read_manifest(path: Path) -> list[Expected]:
    """Read a checksum list of coreutils, or an NDJSON manifest (plain or gzip).

    Raises UsageError when the file is neither, or names a path that leads out of a folder.
    """
    try:
        opened = gzip.open(path, "rb") if _is_gzip(path) else open(path, "rb")  # noqa: SIM115  # closed by the with below
        with opened as stream:
            expected = list(iter_manifest_lines(iter(stream)))
    except (OSError, EOFError, ValueError) as error:
        raise UsageError(
            f"{path} is not a manifest: {error}.", next_step="Give manifest-sha512.txt or manifest.ndjson."
        ) from error
    if not expected:
        raise UsageError(f"{path} names no files.", next_step="Check that it is the whole manifest.")
    return expected


def iter_manifest_lines(lines: Iterator[bytes]) -> Iterator[Expected]:
    """Parse manifest lines of either form; raises ValueError naming the line."""
    for number, line in enumerate(lines, start=1):
        text = line.removesuffix(b"\n")
        try:
            entry = _from_json_line(text) if text.startswith(b"{") else _from_checksum_line(text)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"line {number} cannot be read ({error})") from error
        if not is_safe(entry.path):
            raise ValueError(f"line {number} names a path that leads out of the folder")
        yield entry


def order_layers(statements: list[dict[str, object]]) -> list[dict[str, object]]:
    """Closing statements from the appended archive down to the first; raises UsageError when they are not one chain."""
    by_archive = {statement.get("archive"): statement for statement in statements}
    parents = {statement.get("parent") for statement in statements}
    tops = [statement for archive, statement in by_archive.items() if archive not in parents]
    ordered: list[dict[str, object]] = tops[:1]
    while ordered and (parent := ordered[-1].get("parent")) is not None and parent in by_archive:
        ordered.append(by_archive[parent])
    if not ordered or len(ordered) != len(statements) or ordered[-1].get("parent") is not None:
        raise UsageError(
            "The proof does not hold the statement of every layer.", next_step="Fetch it again with --proof."
        )
    return ordered


def overlay_layers(manifests: list[list[Expected]]) -> list[Expected]:
    """What the union shows, the uppermost layer first: its paths, and what they do not cover of the lower ones."""
    shown: dict[bytes, Expected] = {}
    folders: set[bytes] = set()
    covers: set[bytes] = set()
    for manifest in manifests:
        fresh = [entry for entry in manifest if not _is_covered(entry, shown, folders, covers)]
        for entry in fresh:
            shown[entry.path] = entry
            if entry.kind != "directory":
                covers.add(entry.path)
            if entry.kind != "hidden":
                folders.update(_ancestors(entry.path))
    return sorted((entry for entry in shown.values() if entry.kind != "hidden"), key=lambda entry: entry.path)


def _is_covered(entry: Expected, shown: Mapping[bytes, Expected], folders: set[bytes], covers: set[bytes]) -> bool:
    """Whether an upper layer has this path, a file, link or hiding above it, or a folder where this is a file."""
    if entry.path in shown or any(ancestor in covers for ancestor in _ancestors(entry.path)):
        return True
    return entry.kind != "directory" and entry.path in folders


def _ancestors(path: bytes) -> list[bytes]:
    return [path[: match.start()] for match in re.finditer(b"/", path)]


def _is_gzip(path: Path) -> bool:
    with open(path, "rb") as stream:
        return stream.read(2) == b"\x1f\x8b"


def _from_checksum_line(line: bytes) -> Expected:
    match = _CHECKSUM_LINE.fullmatch(line)
    if not match:
        raise ValueError("not a digest, two spaces and a name")
    escaped, digest, name = match.groups()
    if escaped:
        name = re.sub(rb"\\[\\nr]", lambda found: _UNESCAPED[found.group()], name)
    return Expected(name, "file", None, _ALGORITHM_BY_LENGTH[len(digest)], digest.decode("ascii"))


def _from_json_line(line: bytes) -> Expected:
    record = json.loads(line)
    digests = record.get("digests", {})
    algorithm = next((name for name in ("sha512", "sha256") if name in digests), None)
    if record["kind"] == "file" and algorithm is None:
        raise ValueError("a file without sha512 or sha256")
    digest = digests[algorithm] if algorithm else None
    return Expected(
        _bytes(record, "path"), record["kind"], record.get("size"), algorithm, digest, _find_bytes(record, "target")
    )


def _bytes(record: Mapping[str, str], name: str) -> bytes:
    found = _find_bytes(record, name)
    if found is None:
        raise KeyError(name)
    return found


def _find_bytes(record: Mapping[str, str], name: str) -> bytes | None:
    if f"{name}_bytes" in record:
        return base64.b64decode(record[f"{name}_bytes"], validate=True)
    return record[name].encode("utf-8") if name in record else None


def digest_file(path: bytes, algorithm: str, *, on_bytes: Callable[[int], None] | None = None) -> tuple[int, str]:
    """Size and digest of a regular file, not followed through a symbolic link."""
    digest, size = hashlib.new(algorithm), 0
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb", buffering=0) as stream:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError("it is not a regular file")
        buffer = memoryview(bytearray(_READ_SIZE))
        while count := stream.readinto(buffer):
            digest.update(buffer[:count])
            size += count
            if on_bytes:
                on_bytes(count)
    return size, digest.hexdigest()


def verify_folder(
    folder: Path, expected: list[Expected], *, progress: Progress | None = None, workers: int = 4
) -> FolderReport:
    """Digest every file of the folder and compare: changed, missing and extra paths are found, each one.

    Hidden paths of a manifest must be absent; a checksum list, which cannot name links, passes over links. Raises
    UsageError when the folder does not exist.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder.", next_step="Give the folder that holds the files.")
    report, present = FolderReport(), dict(iter_folder_files(folder))
    wanted = {entry.path: entry for entry in expected if entry.kind != "hidden"}
    names_links = any(entry.size is not None for entry in expected)
    report.extra = sorted(
        path for path, place in present.items() if path not in wanted and (names_links or not os.path.islink(place))
    )
    counted = progress or Progress("Verified")
    compare = partial(_compare, folder, on_bytes=lambda count: counted.add(size=count))
    with ThreadPoolExecutor(workers) as pool:
        try:
            for entry, outcome, size in pool.map(compare, wanted.values()):
                _count(report, entry, outcome, size)
                if entry.kind == "file":
                    counted.add(files=1)
        except KeyboardInterrupt:
            counted.stop()
            raise
    return report


def _compare(folder: Path, entry: Expected, *, on_bytes: Callable[[int], None]) -> tuple[Expected, str, int]:
    place = os.path.join(os.fsencode(folder), entry.path)
    if not os.path.lexists(place):
        return entry, "missing", 0
    if entry.kind == "directory":
        return entry, "same" if os.path.isdir(place) and not os.path.islink(place) else "changed", 0
    if entry.kind == "symlink":
        return entry, "same" if os.path.islink(place) and os.readlink(place) == entry.target else "changed", 0
    try:
        size, digest = digest_file(place, entry.algorithm or "sha512", on_bytes=on_bytes)
    except OSError as error:
        return entry, f"unreadable: {error.strerror or error}", 0
    is_same = digest == entry.digest and entry.size in (None, size)
    return entry, "same" if is_same else "changed", size


def _count(report: FolderReport, entry: Expected, outcome: str, size: int) -> None:
    report.files += entry.kind == "file"
    report.size += size
    if outcome == "missing":
        report.missing.append(entry.path)
    elif outcome == "changed":
        report.changed.append(entry.path)
    elif outcome != "same":
        report.unreadable.append((entry.path, outcome))


def read_document(path: Path) -> dict[str, object]:
    """A signed JSON document; raises UsageError when it is none."""
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read as JSON: {error}.") from error
    if not isinstance(document, dict):
        raise UsageError(f"{path} is not a signed document.")
    return document


def canonical_json(value: object) -> bytes:
    """JSON with sorted keys and no spaces, in UTF-8: what signatures are made over."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode("utf-8")


def read_public_key(path: Path) -> bytes:
    """The 32 raw bytes of an Ed25519 public key from PEM, or from the keys document of a server."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

    try:
        key = load_pem_public_key(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} is not a public key in PEM: {error}.") from error
    if not isinstance(key, Ed25519PublicKey):
        raise UsageError(f"{path} is not an Ed25519 key.")
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)


def require_signature(document: Mapping[str, object], public_key: bytes) -> None:
    """Raises LocalDamageError unless the document is exactly as the owner of the key signed it."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    signature = document.get("signature")
    unsigned = {name: value for name, value in document.items() if name != "signature"}
    if document.get("key_id") != hashlib.sha256(public_key).hexdigest()[:32] or not isinstance(signature, Mapping):
        raise LocalDamageError(
            "The statement was signed with another key.", next_step="Get the key from the archive's site."
        )
    try:
        value = base64.b64decode(str(signature.get("value")), validate=True)
        Ed25519PublicKey.from_public_bytes(public_key).verify(value, canonical_json(unsigned))
    except (InvalidSignature, ValueError) as error:
        raise LocalDamageError("The statement was changed after it was signed.") from error


def merkle_root(lines: Iterator[bytes]) -> tuple[int, str]:
    """Number of leaves and root over manifest lines (each with its newline)."""
    complete: list[bytes] = []
    count = 0
    for line in lines:
        digest, count = hashlib.sha512(b"\0" + line).digest(), count + 1
        trailing = (count & -count).bit_length() - 1
        for _ in range(trailing):
            digest = hashlib.sha512(b"\1" + complete.pop() + digest).digest()
        complete.append(digest)
    if not complete:
        return 0, hashlib.sha512().hexdigest()
    root = complete.pop()
    while complete:
        root = hashlib.sha512(b"\1" + complete.pop() + root).digest()
    return count, root.hex()


def require_manifest_of_statement(manifest: Path, statement: Mapping[str, object]) -> int:
    """Raises LocalDamageError unless the NDJSON manifest has the Merkle root of the statement; gives its size."""
    stated = statement.get("merkle")
    if not isinstance(stated, Mapping):
        raise UsageError("This document states no Merkle root.", next_step="Give the closing statement.")
    opened = gzip.open(manifest, "rb") if _is_gzip(manifest) else open(manifest, "rb")  # noqa: SIM115  # closed below
    with opened as stream:
        size, root = merkle_root(iter(stream))
    if (size, root) != (stated.get("size"), stated.get("root")):
        raise LocalDamageError(
            f"The manifest is not the one that was signed: it has {size} entries and root {root[:16]}…",
            next_step="Fetch the manifest of this very archive with layers=own.",
        )
    return size
