"""ZIP and tar of an archive's files, laid out from names, sizes and checksums alone.

A ZIP holds its members stored, so that its length and every offset are known before a byte is read and any range can
be made without what lies before it. The layout follows APPNOTE 6.3.10: ZIP64 records only where a value does not fit,
local headers complete (no data descriptors), so that plain readers agree. Members must come in the same order each
time they are asked for.
"""

from __future__ import annotations

import struct
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, NamedTuple, TypeVar

from perdure.kernel.errors import DamagedError

_MAX_16, _MAX_32 = 0xFFFF, 0xFFFFFFFF
_UTF8_NAME = 1 << 11
_UNIX = 3 << 8
_TIMESTAMP_EXTRA = 0x5455  # "UT": the time in UTC, which the field of MS-DOS is not
_ZIP64_EXTRA = 0x0001
_TYPE_BITS = {"file": 0o100000, "directory": 0o040000, "symlink": 0o120000}
_DEFAULT_MODES = {"file": 0o644, "directory": 0o755, "symlink": 0o777}
_LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR64 = struct.Struct("<4sLQL")
_END = struct.Struct("<4s4H2LH")


class ShortContentError(DamagedError):
    """The bytes of a member ended early or went on too long: the file on the store is not what its entry says."""

    code = "content_length_wrong"
    title = "A stored file is not as long as its entry says"


@dataclass(frozen=True, slots=True)
class ZipMember:
    """One entry of a ZIP or tar file; callers may add fields in a subclass to find its content.

    `name` is a logical path without a slash at its end. `crc32` is needed for a file. `mtime` is in seconds since
    1970 in UTC. The content of a symlink is its `target`; `read` is never asked for it.
    """

    name: bytes
    size: int = 0
    crc32: int = 0
    mtime: int | None = None
    mode: int | None = None
    kind: Literal["file", "directory", "symlink"] = "file"
    target: bytes = b""

    def __post_init__(self) -> None:
        if not self.name or len(self.stored_name) > _MAX_16 or self.size < 0:
            raise ValueError("a member needs a name and a size that is not negative")
        if self.target and self.kind != "symlink":
            raise ValueError("a target belongs to the name of a symlink")

    @property
    def stored_name(self) -> bytes:
        """The name in the ZIP: a folder ends in a slash."""
        return self.name + b"/" if self.kind == "directory" else self.name

    @property
    def length(self) -> int:
        """The bytes of content: those of the target for a symlink, none for a folder."""
        return self.size if self.kind == "file" else len(self.target)

    @property
    def checksum(self) -> int:
        """The CRC-32 of the content."""
        return self.crc32 if self.kind == "file" else zlib.crc32(self.target)

    @property
    def unix_mode(self) -> int:
        """The type and permission bits as in `st_mode`."""
        mode = _DEFAULT_MODES[self.kind] if self.mode is None else self.mode & 0o7777
        return _TYPE_BITS[self.kind] | mode


Member = TypeVar("Member", bound=ZipMember)
ReadContent = Callable[[Member, int, int], Iterator[bytes]]
"""Gives `length` bytes of a member's content from `offset`, in pieces of any size."""


class _Totals(NamedTuple):
    """What the records at the end of a ZIP must say."""

    members: int
    local: int
    central: int


def zip_length(members: Iterable[ZipMember]) -> int:
    """The length in bytes of the ZIP of these members."""
    totals = _add_up(members)
    return totals.local + totals.central + len(_end_records(totals))


def iter_zip(members: Callable[[], Iterable[Member]], read: ReadContent[Member]) -> Iterator[bytes]:
    """The whole ZIP, in pieces."""
    return _iter_window(_iter_zip_sources(members, read), 0, None)


def iter_zip_range(
    members: Callable[[], Iterable[Member]], start: int, end: int, read: ReadContent[Member]
) -> Iterator[bytes]:
    """Exactly the bytes [start, end) of the ZIP, fewer only where it ends before.

    `members` gives the members anew at each call: once, and once more if the range reaches the central directory.
    Content outside the range is not read. The memory does not grow with the number of members, the time does.
    Raises ShortContentError when `read` gives another number of bytes than it was asked for.
    """
    if not 0 <= start <= end:
        raise ValueError(f"{start} to {end} is not a range")
    return _iter_window(_iter_zip_sources(members, read, start), start, end)


class _Source(NamedTuple):
    """Consecutive bytes of an output: of known length, made for the part of them that is wanted."""

    length: int
    make: Callable[[int, int], Iterator[bytes]]


def _iter_window(sources: Iterable[_Source], start: int, end: int | None) -> Iterator[bytes]:
    """The bytes [start, end) of the sources one after the other."""
    position = 0
    for length, make in sources:
        if end is not None and position >= end:
            return
        first = max(start - position, 0)
        last = length if end is None else min(end - position, length)
        if first < last:
            yield from _require_length(make(first, last - first), last - first)
        position += length


def _require_length(pieces: Iterator[bytes], wanted: int) -> Iterator[bytes]:
    given = 0
    for piece in pieces:
        given += len(piece)
        if given > wanted:
            break
        yield piece
    if given != wanted:
        raise ShortContentError(f"{wanted} bytes were wanted, {'more' if given > wanted else given} came")


def _literal(data: bytes) -> _Source:
    return _Source(len(data), lambda offset, length: iter((data[offset : offset + length],)))


def _content(member: Member, read: ReadContent[Member]) -> _Source:
    if member.kind == "symlink":
        return _literal(member.target)
    return _Source(member.length, lambda offset, length: read(member, offset, length))


def _iter_zip_sources(
    members: Callable[[], Iterable[Member]], read: ReadContent[Member], start: int = 0
) -> Iterator[_Source]:
    """The sources of a ZIP in order; those of members that end before `start` are one that must not be made."""
    count = local = central = passed = 0
    for member in members():
        header_length = _local_length(member)
        count, central = count + 1, central + _central_length(member, local)
        local += header_length + member.length
        if local <= start:
            passed = local
            continue
        if passed:
            yield _Source(passed, _refuse)
            passed = 0
        yield _Source(header_length, _maker(_local_header, member))
        yield _content(member, read)
    if passed:
        yield _Source(passed, _refuse)
    yield from _iter_central_sources(members, local, start)
    yield _literal(_end_records(_Totals(count, local, central)))


def _iter_central_sources(
    members: Callable[[], Iterable[Member]], start_of_directory: int, start: int
) -> Iterator[_Source]:
    """The records of the central directory."""
    offset = passed = 0
    position = start_of_directory
    for member in members():
        length, member_offset = _central_length(member, offset), offset
        offset += _local_length(member) + member.length
        position += length
        if position <= start:
            passed += length
            continue
        if passed:
            yield _Source(passed, _refuse)
            passed = 0
        yield _Source(length, _maker(_central_header, member, member_offset))
    if passed:
        yield _Source(passed, _refuse)
    if offset != start_of_directory:
        raise ValueError("the members changed between two readings")


def _refuse(offset: int, length: int) -> Iterator[bytes]:
    raise AssertionError(f"{length} bytes at {offset} were passed over")


def _maker(make: Callable[..., bytes], *arguments: object) -> Callable[[int, int], Iterator[bytes]]:
    return lambda offset, length: iter((make(*arguments)[offset : offset + length],))


def _add_up(members: Iterable[ZipMember]) -> _Totals:
    count = local = central = 0
    for member in members:
        count, central = count + 1, central + _central_length(member, local)
        local += _local_length(member) + member.length
    return _Totals(count, local, central)


# Records of a ZIP


def _local_length(member: ZipMember) -> int:
    zip64 = 20 if member.length >= _MAX_32 else 0
    return _LOCAL.size + len(member.stored_name) + zip64 + _timestamp_length(member)


def _central_length(member: ZipMember, offset: int) -> int:
    wide = (16 if member.length >= _MAX_32 else 0) + (8 if offset >= _MAX_32 else 0)
    return _CENTRAL.size + len(member.stored_name) + (4 + wide if wide else 0) + _timestamp_length(member)


def _local_header(member: ZipMember) -> bytes:
    is_wide = member.length >= _MAX_32
    zip64 = struct.pack("<2H2Q", _ZIP64_EXTRA, 16, member.length, member.length) if is_wide else b""
    extra = zip64 + _timestamp_extra(member)
    size = _MAX_32 if is_wide else member.length
    name = member.stored_name
    return _LOCAL.pack(
        b"PK\3\4", _version_needed(is_wide=is_wide), _flags(name), 0, *_dos_time(member.mtime), member.checksum,
        size, size, len(name), len(extra),
    ) + name + extra  # fmt: skip


def _central_header(member: ZipMember, offset: int) -> bytes:
    is_wide = member.length >= _MAX_32
    wide = (struct.pack("<2Q", member.length, member.length) if is_wide else b"") + (
        struct.pack("<Q", offset) if offset >= _MAX_32 else b""
    )
    extra = (struct.pack("<2H", _ZIP64_EXTRA, len(wide)) + wide if wide else b"") + _timestamp_extra(member)
    size = _MAX_32 if is_wide else member.length
    name, version = member.stored_name, _version_needed(is_wide=bool(wide))
    attributes = member.unix_mode << 16 | (0x10 if member.kind == "directory" else 0)
    return _CENTRAL.pack(
        b"PK\1\2", _UNIX | version, version, _flags(name), 0, *_dos_time(member.mtime), member.checksum, size, size,
        len(name), len(extra), 0, 0, 0, attributes, min(offset, _MAX_32),
    ) + name + extra  # fmt: skip


def _end_records(totals: _Totals) -> bytes:
    count, offset, size = totals
    end = _END.pack(
        b"PK\5\6", 0, 0, min(count, _MAX_16), min(count, _MAX_16), min(size, _MAX_32), min(offset, _MAX_32), 0
    )
    if count < _MAX_16 and size < _MAX_32 and offset < _MAX_32:
        return end
    version = _version_needed(is_wide=True)
    end64 = _END64.pack(b"PK\6\6", _END64.size - 12, _UNIX | version, version, 0, 0, count, count, size, offset)
    return end64 + _LOCATOR64.pack(b"PK\6\7", 0, offset + size, 1) + end


def _version_needed(*, is_wide: bool) -> int:
    return 45 if is_wide else 20


def _flags(name: bytes) -> int:
    """Bit 11 says that the name is UTF-8; a name that is not goes out as the bytes that it is."""
    try:
        name.decode("utf-8")
    except UnicodeDecodeError:
        return 0
    return _UTF8_NAME


def _has_timestamp(member: ZipMember) -> bool:
    return member.mtime is not None and -(1 << 31) <= member.mtime < 1 << 31


def _timestamp_length(member: ZipMember) -> int:
    return 9 if _has_timestamp(member) else 0


def _timestamp_extra(member: ZipMember) -> bytes:
    return struct.pack("<2HBl", _TIMESTAMP_EXTRA, 5, 1, member.mtime) if _has_timestamp(member) else b""


def _dos_time(mtime: int | None) -> tuple[int, int]:
    """Time and date as MS-DOS has them, in UTC, clipped to 1980-2107."""
    first, last = 315532800, 4354819198  # 1980-01-01T00:00:00Z, 2107-12-31T23:59:58Z
    moment = datetime.fromtimestamp(min(max(first if mtime is None else mtime, first), last), UTC)
    time = moment.hour << 11 | moment.minute << 5 | moment.second // 2
    return time, (moment.year - 1980) << 9 | moment.month << 5 | moment.day


# tar


def tar_length(members: Iterable[ZipMember]) -> int:
    """The length in bytes of the tar file of these members."""
    length = sum(len(_tar_header(member)) + _padded(_tar_size(member)) for member in members)
    return length + _tar_end(length)


def iter_tar(members: Iterable[Member], read: ReadContent[Member]) -> Iterator[bytes]:
    """The whole pax tar (POSIX.1-2001), in pieces; raises ShortContentError as `iter_zip_range` does."""
    position = 0
    for member in members:
        header, size = _tar_header(member), _tar_size(member)
        yield header
        if size:
            yield from _require_length(read(member, 0, size), size)
        yield bytes(_padded(size) - size)
        position += len(header) + _padded(size)
    yield bytes(_tar_end(position))


def _tar_header(member: ZipMember) -> bytes:
    info = tarfile.TarInfo(member.stored_name.decode("utf-8", "surrogateescape"))
    info.type = {"file": tarfile.REGTYPE, "directory": tarfile.DIRTYPE, "symlink": tarfile.SYMTYPE}[member.kind]
    info.size, info.mode, info.mtime = _tar_size(member), member.unix_mode & 0o7777, member.mtime or 0
    info.linkname = member.target.decode("utf-8", "surrogateescape")
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _tar_size(member: ZipMember) -> int:
    return 0 if member.kind == "symlink" else member.length


def _padded(size: int) -> int:
    return -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def _tar_end(length: int) -> int:
    """Two empty blocks, and on to a whole record of 20 blocks."""
    end = length + 2 * tarfile.BLOCKSIZE
    return 2 * tarfile.BLOCKSIZE + -end % tarfile.RECORDSIZE
