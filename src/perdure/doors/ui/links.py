"""The page of a link, and the form for its password."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import parse_qs, quote

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.responses import RedirectResponse

from perdure.archives.model import Entry, EntryKind
from perdure.doors.http.auth import GUESSABLE
from perdure.doors.http.cursors import HEXADECIMAL, decode_cursor, encode_cursor
from perdure.doors.http.paths import encode_logical_path, find_query_path
from perdure.doors.http.services import Given, Services
from perdure.doors.http.visits import Visitor, keep_pass
from perdure.doors.ui.routes import SHOWN_ENTRIES, render
from perdure.kernel.errors import PerdureError
from perdure.kernel.paths import display_path
from perdure.sharing.errors import LinkPasswordError
from perdure.sharing.model import LinkKind
from perdure.sharing.visiting import SharedPage, Visit

router = APIRouter(include_in_schema=False)

_POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
_DROPPING = _POLICY.replace("style-src", "script-src 'self'; connect-src 'self'; style-src")
_HEADERS = {"content-security-policy": _POLICY, "cache-control": "private, no-store", "vary": "Authorization, Cookie"}


@dataclass(frozen=True, slots=True)
class SharedRow:
    """One name that is listed; `digest` of files only."""

    name: str
    kind: str
    size: int | None
    url: str | None
    digest: str


def open_link_pages(app: FastAPI) -> None:
    """Serve the pages of links."""
    app.include_router(router)


async def _read_password(request: Request) -> str:
    fields = parse_qs((await request.body()).decode("utf-8", "replace"), max_num_fields=10)
    return fields.get("password", [""])[0]


@router.get("/s/{secret}")
@router.head("/s/{secret}")
def show_link(request: Request, visit: Visitor, services: Given, cursor: str | None = None) -> Response:
    try:
        folder = find_query_path(request, "folder") or b""
        position = decode_cursor("link", cursor, HEXADECIMAL)
        page = services.sharing.visiting.show(visit, folder, limit=SHOWN_ENTRIES, cursor=position)
    except PerdureError as error:
        return _refuse(request, services, error)
    headers = {**_HEADERS, "content-security-policy": _DROPPING} if page.kind is LinkKind.DROP else _HEADERS
    return render(request, services, "link.html", _content(page, visit, services), 200, headers)


@router.post("/s/{secret}", dependencies=[GUESSABLE])
def open_link(
    request: Request, visit: Visitor, services: Given, password: Annotated[str, Depends(_read_password)]
) -> Response:
    shown = Visit(visit.secret, password, None, visit.address)
    try:
        ticket = services.sharing.visiting.give_pass(shown)
    except PerdureError as error:
        return _refuse(request, services, error)
    answer = RedirectResponse(f"/s/{quote(visit.secret, safe='')}", 303)
    keep_pass(answer, visit, ticket, is_https=services.place().is_https)
    return answer


def _refuse(request: Request, services: Services, error: PerdureError) -> Response:
    template = "link_password.html" if isinstance(error, LinkPasswordError) else "problem.html"
    was_tried = request.method == "POST"
    return render(request, services, template, {"error": error, "was_tried": was_tried}, error.status, _HEADERS)


def _content(page: SharedPage, visit: Visit, services: Services) -> dict[str, Any]:  # Any: what the template is given
    place, secret = services.place(), quote(visit.secret, safe="")
    here = f"/s/{secret}"
    # Bytes have a process of their own; the cookie of a password is shown to one host only
    data = here if page.has_password else f"{place.data_url}{here}"
    entries: Sequence[Entry] = page.entries.items if page.entries else ([page.entry] if page.entry else ())
    following = encode_cursor("link", page.entries.next_cursor) if page.entries else None
    inside = f"folder={encode_logical_path(page.folder)}" if page.folder else ""
    single = page.entry.path.rpartition(b"/")[2] if page.entry else None
    rows = [_row(entry, here, data, single) for entry in entries]
    return {
        "page": page,
        "metadata": page.metadata.decode() if page.metadata not in (None, b"", b"{}") else "",
        "rows": rows,
        "folder": display_path(page.folder),
        "top_url": here if page.folder else None,
        "next_url": f"{here}?{inside}{'&' if inside else ''}cursor={following}" if following else None,
        "download_url": rows[0].url if page.entry else f"{data}/zip{'?' + inside if inside else ''}",
        "data": f"{place.api_url}{here}" if page.has_password else data,
        "uploads": f"{here}/uploads",
        "secret_url": f"{place.api_url}{here}",
    }


def _row(entry: Entry, here: str, data: str, single: bytes | None) -> SharedRow:
    path = single or entry.path
    address = encode_logical_path(path)
    is_file, is_folder = entry.kind is EntryKind.FILE, entry.kind is EntryKind.DIRECTORY
    strongest = next((name for name in ("sha512", "sha256") if name in entry.digests), None)
    return SharedRow(
        name=display_path(path.rpartition(b"/")[2]),
        kind={EntryKind.DIRECTORY: "folder", EntryKind.SYMLINK: "link"}.get(entry.kind, entry.kind.value),
        size=entry.size if is_file else None,
        url=f"{data}/files/{address}" if is_file else f"{here}?folder={address}" if is_folder else None,
        digest=f"{strongest}:{entry.digests[strongest]}" if is_file and strongest else "",
    )
