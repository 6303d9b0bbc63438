"""Five doors through which a file comes into an archive, and the ways back out, for tests that compare them."""

from __future__ import annotations

import base64
import hashlib
import http.client
import io
import json
import os
import stat
import struct
import tarfile
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote_from_bytes, urlsplit

from perdure.kernel.paths import display_path
from perdure.testing.app import RunningApplication
from perdure_client import Client
from perdure_client.paths import to_json
from perdure_client.settings import Session

RECORD: dict[str, Any] = {"creators": [{"name": "Ada"}], "publisher": "Example Institute", "licence": "CC0-1.0"}
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_open = os.open  # a test may put something else in its place
DOORS = ("stream", "batch", "upload", "put", "ingest")
_TUS = {"Tus-Resumable": "1.0.0"}


@dataclass
class Account:
    """What a door made of what it was given: the paths stored, and those refused with the reason of each."""

    seen: int = 0
    stored: set[bytes] = field(default_factory=set)
    refused: dict[bytes, str] = field(default_factory=dict)

    def require_whole(self) -> None:
        """Every single thing is accounted for, once, and with a reason where it is refused (I5)."""
        assert self.seen == len(self.stored) + len(self.refused)
        assert not self.stored & self.refused.keys()
        assert all(self.refused.values())


class House:
    """A running application with one person, and the doors to it."""

    def __init__(self, running: RunningApplication, sources: Path) -> None:
        self.running = running
        self.sources = sources
        self.token = running.token()
        self.client = Client(Session(running.url, self.token, "admin"))

    def open(self, title: str) -> str:
        return str(self.client.open_archive(title=title, **RECORD).id)

    def ask(
        self, method: str, place: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> tuple[int, Mapping[str, str], bytes]:
        """One request whose address is sent as it is: nothing here makes it better."""
        connection = http.client.HTTPConnection(urlsplit(self.running.data_url).netloc, timeout=60)
        try:
            connection.putrequest(method, place)
            for name, value in {**(headers or {}), "Authorization": f"Bearer {self.token}"}.items():
                connection.putheader(name, value)
            connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    # In

    def bring(self, door: str, archive: str, files: Mapping[bytes, bytes], folder: Path) -> Account:
        """The files through one of the doors; `folder` holds what of them can be on a disk."""
        if door in ("put", "ingest"):
            return self.by_put(archive, folder) if door == "put" else self.by_ingest(archive, folder)
        send = {"stream": self.by_stream, "batch": self.by_batch, "upload": self.by_upload}[door]
        return send(archive, files)

    def by_stream(self, archive: str, files: Mapping[bytes, bytes]) -> Account:
        """Each file by a PUT of its own."""
        account = Account(len(files))
        for path, data in files.items():
            place = f"/api/v1/archives/{archive}/files/{quote_from_bytes(path, safe='/')}"
            _settle(account, path, self.ask("PUT", place, data))
        return account

    def by_batch(self, archive: str, files: Mapping[bytes, bytes]) -> Account:
        """All files in one request."""
        items = [{**to_json(path), "kind": "file", "size": len(data)} for path, data in files.items()]
        header = json.dumps({"items": items}).encode()
        body = struct.pack(">I", len(header)) + header + b"".join(files.values())
        headers = {"Content-Type": "application/vnd.archive.batch"}
        status, _, answer = self.ask("POST", f"/api/v1/archives/{archive}/batch", body, headers)
        assert status == 200, answer
        account = Account(len(files))
        for path, result in zip(files, json.loads(answer)["items"], strict=True):
            if result["state"] == "stored":
                account.stored.add(path)
            else:
                account.refused[path] = result["reason"]
        return account

    def by_upload(self, archive: str, files: Mapping[bytes, bytes]) -> Account:
        """Each file by the resumable protocol, in two pieces."""
        account = Account(len(files))
        for path, data in files.items():
            named = f"path {base64.b64encode(path).decode()}"
            headers = {**_TUS, "Upload-Length": str(len(data)), "Upload-Metadata": named}
            made = self.ask("POST", f"/api/v1/archives/{archive}/uploads", b"", headers)
            answer, half = made, len(data) // 2
            for offset, piece in ((0, data[:half]), (half, data[half:])):
                if answer[0] >= 300 or not data:
                    break
                answer = self._send(urlsplit(made[1]["location"]).path, offset, piece)
            _settle(account, path, answer)
        return account

    def _send(self, place: str, offset: int, piece: bytes) -> tuple[int, Mapping[str, str], bytes]:
        headers = {**_TUS, "Upload-Offset": str(offset), "Content-Type": "application/offset+octet-stream"}
        return self.ask("PATCH", place, piece, headers)

    def by_put(self, archive: str, folder: Path) -> Account:
        """What `perdure put` does."""
        report = self.client.put(archive, folder)
        return Account(report.seen, self._own(archive), dict(report.refused))

    def by_ingest(self, archive: str, folder: Path) -> Account:
        """The server reads the folder itself."""
        result = self.client.ingest(archive, str(folder)).result
        assert result is not None
        names = {display_path(path): path for path in walk(folder)}
        refused = {names.get(one["path"], one["path"].encode()): one["reason"] for one in result["refusals"]}
        assert result["counted"] == result["stored"] + result["present"] + result["refused"]
        assert len(refused) == result["refused"]
        return Account(result["counted"], self._own(archive), refused)

    def _own(self, archive: str) -> set[bytes]:
        return {entry.path for entry in self.client.entries(archive, recursive=True) if entry.kind != "folder"}

    # Out

    def digests(self, archive: str) -> dict[bytes, str]:
        """What the list says."""
        listed = self.client.entries(archive, recursive=True)
        return {entry.path: entry.digests["sha512"] for entry in listed if entry.kind == "file"}

    def by_read(self, archive: str) -> dict[bytes, str]:
        """Each file by a GET of its own."""
        found = {}
        for path in self.digests(archive):
            place = f"/api/v1/archives/{archive}/files/{quote_from_bytes(path, safe='/')}"
            status, _, data = self.ask("GET", place)
            assert status == 200, (path, data)
            found[path] = hashlib.sha512(data).hexdigest()
        return found

    def by_get(self, archive: str, folder: Path) -> dict[bytes, str]:
        """What `perdure get` writes."""
        report = self.client.get(archive, folder)
        assert report.refused == []
        return digest_tree(folder)

    def by_zip(self, archive: str) -> dict[bytes, str]:
        status, _, data = self.ask("GET", f"/api/v1/archives/{archive}/download?format=zip")
        assert status == 200
        found = {}
        with zipfile.ZipFile(io.BytesIO(data)) as packed:
            for member in packed.infolist():
                if not member.is_dir():
                    raw = member.filename.encode("utf-8" if member.flag_bits & 0x800 else "cp437")
                    found[raw.partition(b"/")[2]] = hashlib.sha512(packed.read(member)).hexdigest()
        return found

    def by_tar(self, archive: str) -> dict[bytes, str]:
        status, _, data = self.ask("GET", f"/api/v1/archives/{archive}/download?format=tar")
        assert status == 200
        found = {}
        with tarfile.open(fileobj=io.BytesIO(data), encoding="utf-8", errors="surrogateescape") as packed:
            for member in packed:
                content = packed.extractfile(member) if member.isfile() else None
                if content is not None:
                    name = member.name.encode("utf-8", "surrogateescape")
                    found[name.partition(b"/")[2]] = hashlib.sha512(content.read()).hexdigest()
        return found


def _settle(account: Account, path: bytes, answer: tuple[int, Mapping[str, str], bytes]) -> None:
    status, _, body = answer
    if status < 300:
        account.stored.add(path)
    else:
        assert 400 <= status < 500, body
        account.refused[path] = json.loads(body)["detail"]


def digest_of(data: bytes) -> str:
    return hashlib.sha512(data).hexdigest()


def walk(folder: Path) -> dict[bytes, int]:
    """Every name below a folder but those of folders with content, however deep, with its mode.

    A folder is open only as long as there are folders in it to go to. What vanishes meanwhile is left out.
    """
    found: dict[bytes, int] = {}
    top = _open(folder, _FOLDER)
    waiting = [(top, b"", _list(top, b"", found))]
    while waiting:
        descriptor, prefix, folders = waiting.pop()
        if not folders:
            os.close(descriptor)
            continue
        name = folders.pop()
        waiting.append((descriptor, prefix, folders))
        with suppress(FileNotFoundError, NotADirectoryError):
            inner = _open(name, _FOLDER, dir_fd=descriptor)
            if not folders:
                os.close(waiting.pop()[0])
            waiting.append((inner, prefix + name + b"/", _list(inner, prefix + name + b"/", found)))
    return found


def _list(descriptor: int, prefix: bytes, found: dict[bytes, int]) -> list[bytes]:
    """Note what a folder holds, or itself if that is nothing, and return the folders in it."""
    modes: dict[str, int] = {}
    for name in os.listdir(descriptor):
        with suppress(FileNotFoundError):
            modes[name] = os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mode
    if prefix and not modes:
        found[prefix[:-1]] = os.fstat(descriptor).st_mode
    found.update({prefix + os.fsencode(name): mode for name, mode in modes.items() if not stat.S_ISDIR(mode)})
    return [os.fsencode(name) for name, mode in modes.items() if stat.S_ISDIR(mode)]


def digest_tree(folder: Path) -> dict[bytes, str]:
    """The digest of every regular file below a folder."""
    top = os.fsencode(folder)
    return {
        path: hashlib.sha512(Path(os.fsdecode(top + b"/" + path)).read_bytes()).hexdigest()
        for path, mode in walk(folder).items()
        if stat.S_ISREG(mode)
    }


def place_file(folder: Path, path: bytes, data: bytes) -> bool:
    """Make a file and the folders above it, however long the path is; False when the system has no such name."""
    *above, name = path.split(b"/")
    if not name or name in (b".", b"..") or any(part in (b"", b".", b"..") for part in above) or b"\0" in path:
        return False
    descriptor = _open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for part in above:
            with suppress(FileExistsError):
                os.mkdir(part, dir_fd=descriptor)
            inner = _open(part, os.O_RDONLY | os.O_DIRECTORY, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = inner
        made = _open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644, dir_fd=descriptor)
        with os.fdopen(made, "wb") as stream:
            stream.write(data)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True
