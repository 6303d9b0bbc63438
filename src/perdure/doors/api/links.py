"""Links of an archive: make, list, revoke. What they open is served at `/s/…`."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Path
from pydantic import BaseModel, Field

from perdure.doors.api.fields import ArchiveId, Id
from perdure.doors.api.forms import LinkForm
from perdure.doors.api.views import Page, path_fields
from perdure.doors.http.auth import KnownCaller
from perdure.doors.http.openapi import problems
from perdure.doors.http.repeats import ONCE, CreatingRoute
from perdure.doors.http.services import Given
from perdure.sharing.links import LinkRequest
from perdure.sharing.model import Link, LinkKind

router = APIRouter(tags=["sharing"], route_class=CreatingRoute)


class LinkView(BaseModel):
    """A link without its secret; `path` null: it is for the whole archive."""

    id: UUID
    archive_id: UUID
    path: str | None
    path_b64: str | None = None
    kind: Literal["read", "drop", "metadata", "review"]
    name: str
    made_by: UUID | None
    created_at: datetime
    expires_at: datetime | None
    has_password: bool
    download_limit: int | None
    only_when_closed: bool
    pinned: bool = Field(description="It shows record and metadata as they were when it was made.")
    revoked_at: datetime | None
    uses: int = Field(description="Requests at its address, and by it as a token.")
    downloads: int = Field(description="Files, folders or wholes whose download was begun at its address.")
    last_used_at: datetime | None


class MadeLinkView(LinkView):
    """`secret` and `url` are told this once."""

    secret: str
    url: str


@router.get(
    "/archives/{archive_id}/links",
    operation_id="list_links",
    summary="The links of an archive, newest first, ended ones too",
    responses=problems(403),
)
def list_links(archive_id: ArchiveId, caller: KnownCaller, services: Given) -> Page[LinkView]:
    return Page(items=[LinkView(**_fields(link)) for link in services.sharing.links.list_links(caller, archive_id)])


@router.post(
    "/archives/{archive_id}/links",
    operation_id="make_link",
    summary="Make a link to the archive, or to a folder or file of it",
    status_code=201,
    dependencies=ONCE,
    responses=problems(403, 409, 410),
)
def make_link(archive_id: ArchiveId, form: LinkForm, caller: KnownCaller, services: Given) -> MadeLinkView:
    wanted = LinkRequest(
        kind=LinkKind(form.kind),
        name=form.name,
        path=form.path_bytes().removesuffix(b"/"),
        expires_at=form.expires_at,
        password=form.password,
        download_limit=form.download_limit,
        only_when_closed=form.only_when_closed,
        is_pinned=form.pinned,
    )
    secret, link = services.sharing.links.make_link(caller, archive_id, wanted)
    return MadeLinkView(**_fields(link), secret=secret, url=f"{services.place().api_url}/s/{secret}")


@router.delete(
    "/archives/{archive_id}/links/{link_id}",
    operation_id="revoke_link",
    summary="End a link for ever",
    status_code=204,
    responses=problems(403),
)
def revoke_link(archive_id: ArchiveId, link_id: Annotated[Id, Path()], caller: KnownCaller, services: Given) -> None:
    services.sharing.links.revoke_link(caller, archive_id, link_id)


def _fields(link: Link) -> dict[str, Any]:  # Any: fields of the view, each with its own type
    return {
        **(path_fields(link.path) if link.path else {"path": None}),
        "id": link.id,
        "archive_id": link.archive_id,
        "kind": link.kind.value,
        "name": link.name,
        "made_by": link.made_by,
        "created_at": link.created_at,
        "expires_at": link.expires_at,
        "has_password": link.has_password,
        "download_limit": link.download_limit,
        "only_when_closed": link.only_when_closed,
        "pinned": link.pinned_revision is not None,
        "revoked_at": link.revoked_at,
        "uses": link.uses,
        "downloads": link.downloads,
        "last_used_at": link.last_used_at,
    }
