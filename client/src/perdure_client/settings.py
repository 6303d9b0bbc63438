"""Where the server is and who we are there: arguments, then the environment, then the file that `login` wrote."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from perdure_client.errors import NotLoggedInError, UsageError

DEFAULT_URL = "http://127.0.0.1:8440"


@dataclass(frozen=True)
class Session:
    """A server and the token to use there. The token is never shown."""

    url: str
    token: str | None
    login: str | None = None

    def __repr__(self) -> str:
        return f"Session(url={self.url!r}, login={self.login!r})"


def credentials_path() -> Path:
    """`PERDURE_CREDENTIALS`, else `credentials.json` in the user's configuration folder."""
    named = os.environ.get("PERDURE_CREDENTIALS")
    if named:
        return Path(named)
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "perdure" / "credentials.json"


def find_session(url: str | None = None, token: str | None = None) -> Session:
    """The session to use; a server given by `url` is joined with the token stored for it.

    PERDURE_TOKEN is for the server of PERDURE_URL where that is set: an address in somebody's notebook gets no token.
    """
    stored = _load()
    meant = os.environ.get("PERDURE_URL")
    chosen = url or meant or _text(stored.get("default")) or DEFAULT_URL
    chosen = normalise_url(chosen)
    entry = _server(stored, chosen)
    given = os.environ.get("PERDURE_TOKEN") if not meant or normalise_url(meant) == chosen else None
    return Session(
        url=chosen,
        token=token or given or _text(entry.get("token")),
        login=_text(entry.get("login")),
    )


def require_session(url: str | None = None, token: str | None = None) -> Session:
    """Like `find_session`; raises NotLoggedInError without a token."""
    session = find_session(url, token)
    if not session.token:
        raise NotLoggedInError(
            f"You are not logged in at {session.url}.", next_step="Run `perdure login` or set PERDURE_TOKEN."
        )
    return session


def store_session(session: Session) -> Path:
    """Keep the session for later commands, readable by this user only, and make its server the default."""
    stored = _load()
    servers = stored.get("servers")
    servers = dict(servers) if isinstance(servers, dict) else {}
    servers[session.url] = {key: value for key, value in asdict(session).items() if key != "url" and value}
    return _save({"default": session.url, "servers": servers})


def forget_session(url: str) -> None:
    """Drop what is stored for one server."""
    stored = _load()
    servers = stored.get("servers")
    if isinstance(servers, dict) and url in servers:
        _save({**stored, "servers": {key: value for key, value in servers.items() if key != url}})


def normalise_url(url: str) -> str:
    """The server's address without a trailing slash; raises UsageError when it is not http or https."""
    if not url.startswith(("http://", "https://")):
        raise UsageError(f"{url!r} is not a server address.", next_step="Give one such as https://archive.example.org.")
    return url.rstrip("/")


def _load() -> dict[str, object]:
    try:
        loaded = json.loads(credentials_path().read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UsageError(
            f"The credentials file {credentials_path()} cannot be read: {error}.",
            next_step="Mend or delete it, then run `perdure login`.",
        ) from error
    return loaded if isinstance(loaded, dict) else {}


def _save(stored: dict[str, object]) -> Path:
    path = credentials_path()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".credentials-")  # mkstemp gives mode 0600
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            json.dump(stored, stream, indent=1)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    return path


def _server(stored: dict[str, object], url: str) -> dict[str, object]:
    servers = stored.get("servers")
    entry = servers.get(url) if isinstance(servers, dict) else None
    return entry if isinstance(entry, dict) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
