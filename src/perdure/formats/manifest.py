"""The manifest: one canonical JSON line for each entry of a part, and the checksum list that coreutils reads.

A line is also a leaf of the archive's Merkle tree (`perdure.formats.merkle`), so an entry has exactly one spelling.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import BinaryIO, Literal, TypeGuard, cast
from uuid import UUID

from isal import igzip, isal_zlib

from perdure.formats.canonical import canonical_line, parse_json_object, plain_line
from perdure.formats.errors import DamagedFormatError
from perdure.kernel.digests import CONTENT_DIGESTS, DIGEST_LENGTHS
from perdure.kernel.paths import display_path, find_path_problem

EntryKind = Literal["file", "directory", "symlink", "hidden"]
ENTRY_KINDS: tuple[EntryKind, ...] = ("file", "directory", "symlink", "hidden")
MANIFEST_NAME = "manifest.ndjson.gz"
MAX_LINE_BYTES = 1 << 20  # a reader takes no more memory than this for a line of a damaged file
_GZIP_LEVEL = 1  # of 0 to 3; as many bytes as the highest gives, of which most are digests, in half the time
_GZIP = 31  # a window of 32 KiB, with the header and the end of gzip
_UNREADABLE = (OSError, EOFError, cast("type[Exception]", isal_zlib.error))  # its types say that it is no class
_BLOCK_BYTES = 1 << 17
_LINES_AT_ONCE = 256  # to the compressor, whose output does not depend on how its input is cut
_FIELDS = frozenset({
    "path", "path_bytes", "kind", "size", "mtime_ns", "mode", "digests", "target", "target_bytes", "content", "metadata"
})  # fmt: skip
_TEXT = frozenset({str})
_AS_IT_STANDS = re.compile(rb"[ !#-\[\]-~]+")  # in JSON too
_HEX = re.compile(r"[0-9a-f]+")


@dataclass(slots=True)  # nobody changes one; to freeze it would make each take three times as long to build
class ManifestEntry:
    """One thing at one logical path.

    A `file` has a size in bytes, a content digest (sha512 or sha256) and crc32, in lower-case hexadecimal; its
    `content` is the content path below the folder `data` of its part's content directory. A `symlink` has a target.
    `hidden` takes a path of the parent archive out of the union. `mode` holds the permission bits (0 to 0o7777).
    """

    path: bytes
    kind: EntryKind
    size: int = 0
    mtime_ns: int | None = None
    mode: int | None = None
    digests: Mapping[str, str] = field(default_factory=dict)
    target: bytes | None = None
    content: str | None = None
    metadata: Mapping[str, object] | None = None

    def __post_init__(self) -> None:
        problem = _find_entry_problem(self)
        if problem:
            raise ValueError(f"{display_path(self.path[:200])!r}: {problem}")

    @classmethod
    def known(
        cls,
        path: bytes,
        kind: EntryKind,
        size: int,
        mtime_ns: int | None,
        mode: int | None,
        digests: Mapping[str, str],
        target: bytes | None,
        content: str | None,
        metadata: Mapping[str, object] | None,
    ) -> ManifestEntry:
        """An entry of what was judged when it came, as our own rows were: to judge takes most of the time to build."""
        entry = object.__new__(cls)
        entry.path, entry.kind, entry.size, entry.mtime_ns, entry.mode = path, kind, size, mtime_ns, mode
        entry.digests, entry.target, entry.content, entry.metadata = digests, target, content, metadata
        return entry


def entry_to_line(entry: ManifestEntry) -> bytes:
    """The canonical NDJSON line, newline included; a field that is None is left out."""
    plain = _find_plain_line(entry)
    if plain is not None:
        return plain
    fields: dict[str, object] = {"kind": entry.kind, "size": entry.size}
    _put_bytes(fields, "path", entry.path)
    if entry.target is not None:
        _put_bytes(fields, "target", entry.target)
    if entry.digests:
        fields["digests"] = dict(entry.digests)
    if entry.metadata is not None:
        fields["metadata"] = dict(entry.metadata)
    if entry.mtime_ns is not None:
        fields["mtime_ns"] = entry.mtime_ns
    if entry.mode is not None:
        fields["mode"] = entry.mode
    if entry.content is not None:
        fields["content"] = entry.content
    return plain_line(fields) if entry.metadata is None else canonical_line(fields)


def _find_plain_line(entry: ManifestEntry) -> bytes | None:
    """What `find_file_line` gives where nothing is said of metadata."""
    if entry.metadata is not None or entry.target is not None:
        return None
    return find_file_line(entry.path, entry.size, entry.mtime_ns, entry.mode, entry.digests, entry.content)


def find_file_line(
    path: bytes, size: int, mtime_ns: int | None, mode: int | None, digests: Mapping[str, str], content: str | None
) -> bytes | None:
    """The line of an ordinary file at its own name, a third of the time of the writer's; None for any other entry."""
    if content is None or mode is None or mtime_ns is None or len(digests) != 2:
        return None
    if not _AS_IT_STANDS.fullmatch(path) or content.encode() != path:
        return None
    name = "sha512" if "sha512" in digests else "sha256"
    return (
        f'{{"content":"{content}","digests":{{"crc32":"{digests["crc32"]}","{name}":"{digests[name]}"}},"kind":"file",'
        f'"mode":{mode},"mtime_ns":{mtime_ns},"path":"{content}","size":{size}}}\n'
    ).encode("ascii")


def line_to_entry(line: bytes) -> ManifestEntry:
    """Read one line; raises DamagedFormatError for an unknown field, a wrong type or any spelling but the canonical."""
    fields = parse_json_object(line)
    unknown = fields.keys() - _FIELDS
    if unknown:
        raise DamagedFormatError(f"a manifest line has the unknown field {min(unknown)!r}")
    try:
        entry = _read_entry(fields)
        spelled = entry_to_line(entry)
    except ValueError as error:  # binascii's, and that of half a surrogate, among them
        raise DamagedFormatError(f"a manifest line is wrong: {error}") from error
    if spelled != line:
        raise DamagedFormatError("a manifest line is not in canonical form", path=display_path(entry.path))
    return entry


def write_manifest(entries: Iterable[ManifestEntry], fileobj: BinaryIO) -> int:
    """Write entries, sorted by path, as gzip without name or time; returns their count.

    Raises ValueError when a path is not greater than the one before it. The same entries give the same lines; the
    compressed bytes may differ between versions of the compressor, so what is compared later is the digest of this very
    file.
    """
    count, last = 0, b""
    lines: list[bytes] = []
    compressor = isal_zlib.compressobj(_GZIP_LEVEL, wbits=_GZIP)
    for entry in entries:
        if entry.path <= last:
            raise ValueError(f"{display_path(entry.path)!r} is not in order")
        lines.append(entry_to_line(entry))
        count, last = count + 1, entry.path
        if len(lines) == _LINES_AT_ONCE:
            fileobj.write(compressor.compress(b"".join(lines)))
            lines.clear()
    fileobj.write(compressor.compress(b"".join(lines)))
    fileobj.write(compressor.flush())
    return count


def iter_manifest(fileobj: BinaryIO) -> Iterator[ManifestEntry]:
    """Read a compressed manifest, checking its order; raises DamagedFormatError, also when it is cut short."""
    last = b""
    for line in iter_manifest_lines(fileobj):
        entry = line_to_entry(line)
        if entry.path <= last:
            raise DamagedFormatError("the manifest is not sorted by path", path=display_path(entry.path))
        last = entry.path
        yield entry


def iter_manifest_lines(fileobj: BinaryIO) -> Iterator[bytes]:
    """The lines of a compressed manifest as they stand, newline included: the leaves of the Merkle tree."""
    for lines in iter_manifest_blocks(fileobj):
        yield from lines


def iter_manifest_blocks(fileobj: BinaryIO) -> Iterator[list[bytes]]:
    """The lines of a compressed manifest, some hundreds at a time; raises DamagedFormatError, also when cut short."""
    rest = b""
    with igzip.IGzipFile(mode="rb", fileobj=fileobj) as stream:  # type: ignore[no-untyped-call]
        while block := _read_block(stream):
            lines = (rest + block).split(b"\n")
            rest = lines.pop()
            if max(map(len, lines), default=0) >= MAX_LINE_BYTES:
                raise DamagedFormatError("a line of the manifest is too long")
            yield [line + b"\n" for line in lines]
            if len(rest) >= MAX_LINE_BYTES:
                break
    if rest:
        raise DamagedFormatError("the manifest ends inside a line, or a line is too long")


def _read_block(stream: igzip.IGzipFile) -> bytes:
    try:
        return stream.read(_BLOCK_BYTES)
    except _UNREADABLE as error:
        raise DamagedFormatError(f"the manifest cannot be decompressed: {error}") from error


# What is read of a line that we wrote, and whose manifest has the digest that it was written with, without parsing it.
# In JSON a quotation mark stands at the ends of text only: `"path":"` is never part of a value.


def path_of_line(line: bytes) -> bytes:
    """The path in a line of ours."""
    start = line.rfind(b'"path":"') + 8
    path = line[start : line.find(b'"', start)] if start > 7 else b"\\"
    if b"\\" not in path:
        return path
    given = _take_bytes(parse_json_object(line), "path")
    assert given is not None
    return given


def digest_of_line(line: bytes, algorithm: str) -> str | None:
    """The digest in a line of ours; None for what is no file."""
    start = line.find(b'"%b":"' % algorithm.encode("ascii")) + len(algorithm) + 4
    return line[start : start + DIGEST_LENGTHS[algorithm]].decode("ascii") if start > len(algorithm) + 3 else None


# The log of a staged part: entries as they come in, and what was taken out again

_AFTER = re.compile(rb'\{"after":([1-9][0-9]{0,18}),')


def staged_line(line: bytes, after: int) -> bytes:
    """An entry's line in the log of its staged part: `line` is as in the manifest, noted after so many removals."""
    return b'{"after":%d,%s' % (after, line[1:]) if after else line  # "after" sorts before every other field


def line_to_staged(line: bytes) -> tuple[ManifestEntry, int]:
    """Read an entry's line of a staged part's log, with the removals it comes after; raises DamagedFormatError."""
    match = _AFTER.match(line)
    return (line_to_entry(b"{" + line[match.end() :]), int(match[1])) if match else (line_to_entry(line), 0)


# Superseded entries: what a sealed part holds and the archive does not show


@dataclass(frozen=True, slots=True, order=True)
class SupersededEntry:
    """An entry of a part that was replaced or removed while its archive was still open.

    The log of a staged part names the part by its id too: a rebuild may give a part that is not sealed another number.
    There it is the `removal`-th one from the part: of what stands before it, it takes away what was noted of the path
    after fewer of them, and never what came later. One without a number takes away all that stands before it.
    """

    part: int
    path: bytes
    part_id: UUID | None = None
    removal: int | None = None

    def __post_init__(self) -> None:
        problem = "the part number is below 1" if self.part < 1 else find_path_problem(self.path)
        if self.removal is not None and self.removal < 1:
            problem = "the number of the removal is below 1"
        if problem:
            raise ValueError(problem)


def superseded_to_line(entry: SupersededEntry) -> bytes:
    """The canonical NDJSON line, newline included; those of `superseded.ndjson` have no `part_id` and no `removal`."""
    fields: dict[str, object] = {"part": entry.part}
    if entry.part_id is not None:
        fields["part_id"] = str(entry.part_id)
    if entry.removal is not None:
        fields["removal"] = entry.removal
    _put_bytes(fields, "path", entry.path)
    return canonical_line(fields)


def line_to_superseded(line: bytes) -> SupersededEntry:
    """Read one line of `superseded.ndjson` or of a staged part's log; raises DamagedFormatError."""
    fields = parse_json_object(line)
    part, path, part_id = fields.get("part"), _take_bytes(fields, "path"), fields.get("part_id")
    if not _is_whole(part) or path is None or not (part_id is None or isinstance(part_id, str)):
        raise DamagedFormatError("a line of superseded entries needs a part and a path")
    try:
        removal = _take_whole(fields, "removal")
        entry = SupersededEntry(part, path, UUID(part_id) if part_id is not None else None, removal)
    except ValueError as error:
        raise DamagedFormatError(f"a line of superseded entries is wrong: {error}") from error
    if superseded_to_line(entry) != line:
        raise DamagedFormatError("a line of superseded entries is not in canonical form")
    return entry


# The checksum list of coreutils


def checksum_list_name(algorithm: str) -> str:
    """`manifest-sha512.txt` or `manifest-sha256.txt`."""
    return f"manifest-{algorithm}.txt"


def checksum_line(digest: str, path: bytes) -> bytes:
    """One line as `sha512sum` of GNU coreutils writes it: a name with a backslash, newline or return is escaped."""
    if _AS_IT_STANDS.fullmatch(path):
        return b"%b  %b\n" % (digest.encode("ascii"), path)
    escaped = path.replace(b"\\", b"\\\\").replace(b"\n", b"\\n").replace(b"\r", b"\\r")
    prefix = b"\\" if escaped != path else b""
    return prefix + digest.encode("ascii") + b"  " + escaped + b"\n"


def sha512sum_line(entry: ManifestEntry, algorithm: str = "sha512") -> bytes:
    """The checksum line of a file entry; raises KeyError when it has no digest of that algorithm."""
    return checksum_line(entry.digests[algorithm], entry.path)


def iter_sha512sum_lines(entries: Iterable[ManifestEntry], algorithm: str = "sha512") -> Iterator[bytes]:
    """The checksum list of all files among the entries; folders, links and hidden paths have no line."""
    return (sha512sum_line(entry, algorithm) for entry in entries if entry.kind == "file")


def parse_checksum_line(line: bytes) -> tuple[bytes, str]:
    """Read a line of a checksum list, text (`  `) or binary (` *`); returns the path and the digest.

    Raises DamagedFormatError for what `sha512sum -c` would pass over as improperly formatted.
    """
    match = re.fullmatch(rb"(\\?)([0-9A-Fa-f]{8,128}) [ *]([^\n]+)\n?", line)
    if not match:
        raise DamagedFormatError("not a line of a checksum list")
    escaped, digest, name = match.groups()
    return _unescape(name) if escaped else name, digest.decode("ascii").lower()


def _unescape(name: bytes) -> bytes:
    if not re.fullmatch(rb"(?:[^\\]|\\[nr\\])+", name):
        raise DamagedFormatError("an unknown escape in a line of a checksum list")
    plain = {b"\\n": b"\n", b"\\r": b"\r", b"\\\\": b"\\"}
    return re.sub(rb"\\[nr\\]", lambda match: plain[match[0]], name)


# Fields


def _find_entry_problem(entry: ManifestEntry) -> str | None:
    """What is wrong with the entry, in words, or None."""
    problem = find_path_problem(entry.path)
    if problem:
        return problem
    if entry.kind not in ENTRY_KINDS:
        return f"unknown kind {entry.kind!r}"
    if entry.mode is not None and not 0 <= entry.mode <= 0o7777:
        return "the mode is more than permission bits"
    if (entry.kind == "symlink") != bool(entry.target):
        return "a target belongs to a symbolic link, and only to one"
    if entry.kind != "file":
        return "only a file has a size, digests and content" if entry.size or entry.digests or entry.content else None
    return "the size is negative" if entry.size < 0 else _find_digest_problem(entry.digests)


def _find_digest_problem(digests: Mapping[str, str]) -> str | None:
    if "crc32" not in digests or CONTENT_DIGESTS.isdisjoint(digests):
        return "a file needs the digest crc32 and one of sha512 and sha256"
    for name, value in digests.items():
        if not _is_hex(value, DIGEST_LENGTHS.get(name)):
            return f"the digest {name} is not lower-case hexadecimal of its length"
    return None


def _is_hex(value: str, length: int | None) -> bool:
    """Whether it is lower-case hexadecimal, of so many digits where that is known."""
    if length is None:
        return _HEX.fullmatch(value) is not None
    try:
        return len(value) == length and bytes.fromhex(value).hex() == value  # a quarter of what an expression takes
    except ValueError:
        return False


def _read_entry(fields: Mapping[str, object]) -> ManifestEntry:
    path, kind, size = _take_bytes(fields, "path"), fields.get("kind"), fields.get("size")
    if path is None or not _is_kind(kind) or not _is_whole(size):
        raise ValueError("it needs a path, a kind and a size")
    digests, metadata, content = fields.get("digests", {}), fields.get("metadata"), fields.get("content")
    if not _is_text_map(digests) or not (metadata is None or isinstance(metadata, dict)):
        raise ValueError("digests and metadata are objects")
    if not (content is None or isinstance(content, str)):
        raise ValueError("content is text")
    return ManifestEntry(
        path=path,
        kind=kind,
        size=size,
        mtime_ns=_take_whole(fields, "mtime_ns"),
        mode=_take_whole(fields, "mode"),
        digests=digests,
        target=_take_bytes(fields, "target"),
        content=content,
        metadata=metadata,
    )


def _put_bytes(fields: dict[str, object], name: str, value: bytes) -> None:
    """Put a path as text if it is UTF-8, else in base64 under a name of its own."""
    try:
        fields[name] = value.decode("utf-8")
    except UnicodeDecodeError:
        fields[f"{name}_bytes"] = base64.b64encode(value).decode("ascii")


def _take_bytes(fields: Mapping[str, object], name: str) -> bytes | None:
    text, coded = fields.get(name), fields.get(f"{name}_bytes")
    if isinstance(text, str) and coded is None:
        return text.encode("utf-8", "surrogatepass")
    if isinstance(coded, str) and text is None:
        return base64.b64decode(coded, validate=True)
    if text is None and coded is None:
        return None
    raise ValueError(f"{name} is given twice or is not text")


def _take_whole(fields: Mapping[str, object], name: str) -> int | None:
    value = fields.get(name)
    if value is not None and not _is_whole(value):
        raise ValueError(f"{name} is not a whole number")
    return value


def _is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_kind(value: object) -> TypeGuard[EntryKind]:
    return value in ENTRY_KINDS


def _is_text_map(value: object) -> TypeGuard[dict[str, str]]:
    return isinstance(value, dict) and _TEXT.issuperset(map(type, value.values()))
