"""A read-only filesystem for fsspec: `perdure://host/archive/path`.

`h5py.File(fsspec.open(url).open())`, `xarray.open_dataset(…, engine="h5netcdf")` and `pandas.read_csv(url)` read what
they need by Range. `perdure+http://` is the same without TLS; a loopback host needs no `+http`.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

from fsspec import AbstractFileSystem
from fsspec.spec import AbstractBufferedFile

from perdure_client.client import Client, connect
from perdure_client.errors import ApiError, UsageError
from perdure_client.paths import to_url
from perdure_client.records import Entry

_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_KINDS = {"folder": "directory", "directory": "directory", "file": "file", "symlink": "link"}


class PerdureFileSystem(AbstractFileSystem):  # type: ignore[misc]  # fsspec has no types
    """Archives of one server as folders: `<archive>/<path>`; a path's bytes are percent-encoded where they must be."""

    protocol = ("perdure", "perdure+http")
    root_marker = ""
    cachable = True

    def __init__(
        self, host: str | None = None, token: str | None = None, scheme: str | None = None, **options: Any
    ) -> None:
        super().__init__(**options)
        self.client: Client = connect(f"{scheme or _scheme_for(host)}://{host}" if host else None, token=token)

    @staticmethod
    def _get_kwargs_from_urls(path: str) -> dict[str, str]:
        parts = urlsplit(path)
        options = {"host": parts.netloc} if parts.netloc else {}
        return {**options, "scheme": "http"} if parts.scheme == "perdure+http" else options

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, list):
            return [cls._strip_protocol(one) for one in path]
        text = str(path)
        if "://" in text:
            text = text.split("://", 1)[1].partition("/")[2]
        return text.strip("/")

    def ls(self, path: str, detail: bool = True, **options: Any) -> list[Any]:
        """The entries of a folder, or the file itself; without a path the archives that may be read."""
        found = self._list(self._strip_protocol(path))
        return found if detail else [record["name"] for record in found]

    def _list(self, path: str) -> list[dict[str, Any]]:
        if not path:
            return [
                {"name": archive.short_id, "type": "directory", "size": 0, "title": archive.title}
                for archive in self.client.list_archives()
            ]
        archive_id, inside = _split(path)
        if inside:
            own = self._entry(archive_id, inside, path)
            if own.kind == "file":
                return [_record(archive_id, own)]
        return [_record(archive_id, entry) for entry in self.client.entries(archive_id, inside) if entry.kind in _KINDS]

    def info(self, path: str, **options: Any) -> dict[str, Any]:
        """Name, type, size in bytes and digests of one path; raises FileNotFoundError."""
        path = self._strip_protocol(path)
        if not path:
            return {"name": "", "type": "directory", "size": 0}
        archive_id, inside = _split(path)
        if not inside:
            return {"name": archive_id, "type": "directory", "size": 0}
        return _record(archive_id, self._entry(archive_id, inside, path))

    def _entry(self, archive_id: str, inside: bytes, path: str) -> Entry:
        try:
            return self.client.entry(archive_id, inside)
        except ApiError as error:
            if error.status == 404:
                raise FileNotFoundError(path) from error
            raise

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **options: Any) -> bytes:
        """Bytes of one file; negative positions count from its end, as fsspec wants."""
        archive_id, inside = _split(self._strip_protocol(path))
        if (start or 0) < 0 or (end or 0) < 0:
            size = self.info(path)["size"]
            start = start + size if start is not None and start < 0 else start
            end = end + size if end is not None and end < 0 else end
        return self.client.read(archive_id, inside, max(start or 0, 0), end)

    def _open(
        self,
        path: str,
        mode: str = "rb",
        block_size: int | None = None,
        autocommit: bool = True,
        cache_options: dict[str, Any] | None = None,
        **options: Any,
    ) -> PerdureFile:
        if mode != "rb":
            raise UsageError("Archives are read here, not written.", next_step="Use Client.put or `perdure put`.")
        return PerdureFile(self, path, mode, block_size or 1 << 20, cache_options=cache_options, **options)


class PerdureFile(AbstractBufferedFile):  # type: ignore[misc]  # fsspec has no types
    """One file, read by Range."""

    def _fetch_range(self, start: int, end: int) -> bytes:
        return bytes(self.fs.cat_file(self.path, start, end))


def _scheme_for(host: str | None) -> str:
    name = urlsplit(f"//{host}").hostname if host else None
    return "http" if name in _LOOPBACK else "https"


def _split(path: str) -> tuple[str, bytes]:
    archive_id, _, inside = path.partition("/")
    return archive_id, unquote_to_bytes(inside)


def _record(archive_id: str, entry: Entry) -> dict[str, Any]:
    return {
        "name": f"{archive_id}/{to_url(entry.path)}",
        "type": _KINDS.get(entry.kind, entry.kind),
        "size": entry.size,
        "mtime_ns": entry.mtime_ns,
        "digests": dict(entry.digests),
    }
