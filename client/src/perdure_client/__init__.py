"""The user's side of Perdure: a Python client, a filesystem for fsspec and the command `perdure`. It speaks HTTP only.

    from perdure_client import connect

    client = connect("https://archive.example.org", token="…")
    archive = client.open_archive(title="Beamtime 2026-11")
    client.put(archive.id, "run_0001/")
    client.close(archive.id)

Names are loaded when they are first used: starting the command must cost little.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from perdure_client.client import Client, connect
    from perdure_client.errors import ApiError, ClientError, ConnectionLostError
    from perdure_client.filesystem import PerdureFileSystem

_HOMES = {
    "Client": "client",
    "connect": "client",
    "ApiError": "errors",
    "ClientError": "errors",
    "ConnectionLostError": "errors",
    "PerdureFileSystem": "filesystem",
}

__all__ = ["ApiError", "Client", "ClientError", "ConnectionLostError", "PerdureFileSystem", "connect"]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)
