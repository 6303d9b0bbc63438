"""The life of an archive: open, list, describe, append, change its contract, discard; and who has a role on it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Header, Path, Query, Request, Response
from pydantic import BaseModel

from perdure.archives.model import Access, Archive, Creator, Description
from perdure.archives.opening import OpenRequest
from perdure.doors.api.fields import ArchiveId, CursorText, Id, Line, PageSize
from perdure.doors.api.forms import (
    AccessForm,
    DescriptionPatch,
    GrantForm,
    LifetimeForm,
    OpenForm,
    ProfileChoiceForm,
)
from perdure.doors.api.granting import access_view, grant_views, grantee_of, pass_on_of, pending_view
from perdure.doors.api.views import (
    AccessView,
    ArchiveRecord,
    CreatorView,
    GrantView,
    Page,
    ProfileView,
    answer_json,
    page_json,
)
from perdure.doors.http.auth import Caller, FindCaller, KnownCaller
from perdure.doors.http.cursors import A_NUMBER, A_SHORT_ID, AN_ID, decode_cursor, encode_cursor
from perdure.doors.http.openapi import ANYONE, READER, problems
from perdure.doors.http.preconditions import expected_revision, format_revision, is_not_modified
from perdure.doors.http.repeats import ONCE, CreatingRoute, IdempotencyKey
from perdure.doors.http.services import Given, Services
from perdure.identity import Role
from perdure.kernel.ids import short_form

router = APIRouter(tags=["archives"], route_class=CreatingRoute)
_CREATOR, _CONTRACT = tuple(CreatorView.model_fields), tuple(ProfileView.model_fields)

IfMatch = Annotated[
    str | None, Header(alias="If-Match", description="The ETag that was read; 412 when it is another now.")
]
StateName = Literal["open", "closing", "closed", "withdrawn", "discarded"]


class ChangeView(BaseModel):
    """One change of the record: the members that differ, before and after."""

    revision: int
    at: datetime
    actor_id: UUID | None
    actor_name: str
    before: dict[str, Any]  # Any: members of the record, each of its own form
    after: dict[str, Any]  # Any: as above


@router.get(
    "/archives",
    operation_id="list_archives",
    summary="The archives that one may read, newest first",
    response_model=Page[ArchiveRecord],
    responses=problems(),
    openapi_extra=ANYONE,
)
def list_archives(
    caller: Caller,
    services: Given,
    q: Annotated[Line | None, Query(description="Text in title, paths or metadata, without case.")] = None,
    state: StateName | None = None,
    account_id: Annotated[Id | None, Query()] = None,
    cursor: CursorText = None,
    limit: PageSize = 50,
) -> Response:
    page = services.archives.life.list_archives(
        caller,
        text=q,
        state=state,
        account_id=account_id,
        cursor=decode_cursor("archives", cursor, A_SHORT_ID),
        limit=limit,
    )
    items = [archive_document(view.archive, services, actions=view.actions) for view in page.items]
    return page_json(items, encode_cursor("archives", page.next_cursor))


@router.post(
    "/archives",
    operation_id="open_archive",
    summary="Open an archive",
    status_code=201,
    responses=problems(403, 409, 507),
)
def open_archive(
    form: OpenForm, response: Response, caller: KnownCaller, services: Given, idempotency_key: IdempotencyKey = None
) -> ArchiveRecord:
    wanted = OpenRequest(
        account_id=form.account_id,
        profile=form.profile,
        description=_description(form),
        access=Access(form.access) if form.access else None,
        embargo_until=form.embargo_until,
        keep_until=form.keep_until,
    )
    return _created(
        services.archives.life.open_archive(caller, wanted, idempotency_key=idempotency_key), response, services
    )


@router.post(
    "/archives/{archive_id}/append",
    operation_id="append_to_archive",
    summary="Open an archive that appends to a closed one",
    status_code=201,
    responses=problems(403, 409, 410, 507),
)
def append_to_archive(
    archive_id: ArchiveId,
    response: Response,
    caller: KnownCaller,
    services: Given,
    form: DescriptionPatch | None = None,
    idempotency_key: IdempotencyKey = None,
) -> ArchiveRecord:
    patch = form.model_dump(exclude_unset=True) if form else {}
    return _created(
        services.archives.life.append_to(caller, archive_id, patch, idempotency_key=idempotency_key), response, services
    )


@router.get(
    "/archives/{archive_id}",
    operation_id="get_archive",
    summary="An archive's record",
    response_model=ArchiveRecord,
    responses=problems(403, 412, beside={304: {"description": "Not Modified"}}),
    openapi_extra=READER,
)
def get_archive(archive_id: ArchiveId, request: Request, find_caller: FindCaller, services: Given) -> Response:
    view = services.archives.life.get_record(find_caller(), archive_id)
    headers = {"etag": format_revision("r", view.archive.revision)}
    if is_not_modified(request.headers, headers["etag"]):
        return Response(status_code=304, headers=headers)
    record = archive_document(view.archive, services, actions=view.actions, children=view.children)
    record["identifier_is_test"] = view.is_test_identifier
    return answer_json(record, 200, headers)


@router.patch(
    "/archives/{archive_id}",
    operation_id="describe_archive",
    summary="Change what the record says (merge patch)",
    responses=problems(403, 409, 410, 412),
)
def describe_archive(
    archive_id: ArchiveId,
    form: DescriptionPatch,
    request: Request,
    response: Response,
    caller: KnownCaller,
    services: Given,
    if_match: IfMatch = None,
) -> ArchiveRecord:
    patch, expected = form.model_dump(exclude_unset=True), expected_revision(request.headers, "r")
    return _changed(services.archives.life.describe(caller, archive_id, patch, expected), response, services)


@router.delete(
    "/archives/{archive_id}",
    operation_id="discard_archive",
    summary="Discard an open archive with everything in it",
    status_code=204,
    responses=problems(403, 409, 410, 412),
)
def discard_archive(
    archive_id: ArchiveId,
    request: Request,
    caller: KnownCaller,
    services: Given,
    confirm_title: Annotated[Line | None, Query(description="The title, to show that this archive is meant.")] = None,
    if_match: IfMatch = None,
) -> None:
    services.archives.life.discard(caller, archive_id, confirm_title, expected_revision(request.headers, "r"))


@router.get(
    "/archives/{archive_id}/record-history",
    operation_id="list_record_history",
    summary="Who changed the record, when and how",
    responses=problems(403),
)
def list_record_history(
    archive_id: ArchiveId, caller: KnownCaller, services: Given, cursor: CursorText = None, limit: PageSize = 100
) -> Page[ChangeView]:
    page = services.archives.life.record_history(
        caller, archive_id, cursor=decode_cursor("record", cursor, A_NUMBER), limit=limit
    )
    items = [ChangeView.model_validate(change, from_attributes=True) for change in page.items]
    return Page(items=items, next_cursor=encode_cursor("record", page.next_cursor))


@router.post(
    "/archives/{archive_id}/profile",
    operation_id="change_profile",
    summary="Change the contract",
    responses=problems(403, 409, 410, 412),
)
def change_profile(
    archive_id: ArchiveId,
    form: ProfileChoiceForm,
    request: Request,
    response: Response,
    caller: KnownCaller,
    services: Given,
    if_match: IfMatch = None,
) -> ArchiveRecord:
    expected = expected_revision(request.headers, "r")
    return _changed(
        services.archives.life.change_profile(caller, archive_id, form.profile, expected), response, services
    )


@router.post(
    "/archives/{archive_id}/lifetime",
    operation_id="extend_lifetime",
    summary="Keep the archive longer",
    responses=problems(403, 409, 410, 412),
)
def extend_lifetime(
    archive_id: ArchiveId,
    form: LifetimeForm,
    request: Request,
    response: Response,
    caller: KnownCaller,
    services: Given,
    if_match: IfMatch = None,
) -> ArchiveRecord:
    expected = expected_revision(request.headers, "r")
    changed = services.archives.life.extend_lifetime(caller, archive_id, form.keep_until, expected)
    return _changed(changed, response, services)


@router.post(
    "/archives/{archive_id}/access",
    operation_id="set_access",
    summary="Say who may read",
    responses=problems(403, 409, 410, 412),
)
def set_access(
    archive_id: ArchiveId,
    form: AccessForm,
    request: Request,
    response: Response,
    caller: KnownCaller,
    services: Given,
    if_match: IfMatch = None,
) -> ArchiveRecord:
    expected = expected_revision(request.headers, "r")
    changed = services.archives.life.set_access(caller, archive_id, Access(form.access), form.embargo_until, expected)
    return _changed(changed, response, services)


@router.get(
    "/archives/{archive_id}/grants",
    operation_id="list_archive_grants",
    summary="Who has a role on the archive",
    responses=problems(403),
)
def list_grants(archive_id: ArchiveId, caller: KnownCaller, services: Given) -> Page[GrantView]:
    return Page(items=grant_views(services.archives.life.list_grants(caller, archive_id), caller, services))


@router.post(
    "/archives/{archive_id}/grants",
    operation_id="grant_on_archive",
    summary="Give a role on the archive",
    status_code=201,
    dependencies=ONCE,
    responses=problems(403, 409, 410),
)
def grant(
    archive_id: ArchiveId, form: GrantForm, response: Response, caller: KnownCaller, services: Given
) -> GrantView:
    grantee = grantee_of(form, caller, services)
    made = services.archives.life.grant(
        caller,
        archive_id,
        grantee,
        Role(form.role),
        expires_at=form.expires_at,
        requires=form.requires,
        pass_on=pass_on_of(form),
    )
    response.headers["location"] = f"/api/v1/archives/{archive_id}/grants/{made.id}"
    return grant_views([made], caller, services)[0]


@router.delete(
    "/archives/{archive_id}/grants/{grant_id}",
    operation_id="revoke_on_archive",
    summary="Take a role back",
    status_code=204,
    responses=problems(403, 409, 410),
)
def revoke(archive_id: ArchiveId, grant_id: Annotated[Id, Path()], caller: KnownCaller, services: Given) -> None:
    services.archives.life.revoke(caller, archive_id, grant_id)


@router.get(
    "/archives/{archive_id}/access",
    operation_id="explain_access",
    summary="Who reaches the archive, as what and why",
    description="First everybody and the administrators, where they do, then the grants in force on the archive and on "
    "its account, oldest first; at the end invitations that were not accepted yet.",
    responses=problems(403),
)
def explain_access(
    archive_id: ArchiveId, caller: KnownCaller, services: Given, cursor: CursorText = None, limit: PageSize = 100
) -> Page[AccessView]:
    after = decode_cursor("access", cursor, AN_ID)
    found = services.archives.life.explain_access(caller, archive_id, after=UUID(after) if after else None, limit=limit)
    given = [reach.grant.id for reach in found if reach.grant is not None]
    following = encode_cursor("access", str(given[-1]) if len(given) == limit else None)
    waiting = [] if following else services.sharing.invitations.list_pending(caller, archive_id)
    return Page(items=[*map(access_view, found), *map(pending_view, waiting)], next_cursor=following)


@router.get(
    "/identities/{identity_id}/archives",
    operation_id="list_reach",
    summary="The archives that somebody may read, and what he may do there (administrators)",
    responses=problems(403),
)
def list_reach(
    identity_id: Annotated[Id, Path()],
    caller: KnownCaller,
    services: Given,
    cursor: CursorText = None,
    limit: PageSize = 50,
) -> Page[ArchiveRecord]:
    page = services.archives.life.list_reach(
        caller, identity_id, cursor=decode_cursor("reach", cursor, A_SHORT_ID), limit=limit
    )
    items = [archive_record(view.archive, services, actions=view.actions) for view in page.items]
    return Page(items=items, next_cursor=encode_cursor("reach", page.next_cursor))


def archive_record(archive: Archive, services: Services, *, actions: Iterable[str] = ()) -> ArchiveRecord:
    """The record as the framework takes it, where few ask for it."""
    return ArchiveRecord.model_validate(archive_document(archive, services, actions=actions))


def archive_document(
    archive: Archive, services: Services, *, actions: Iterable[str] = (), children: Iterable[UUID] = ()
) -> dict[str, object]:
    """What `ArchiveRecord` describes, as `answer_json` takes it; what describes the archive stands beside its state.

    A model for each answer would cost more than all the rest of it.
    """
    description, short_id = archive.description, short_form(archive.id)
    return {
        "id": archive.id,
        "short_id": short_id,
        "url": f"{services.place().api_url}/archives/{short_id}",
        "state": archive.state.value,
        "title": description.title,
        "description": description.description,
        "creators": [{name: getattr(creator, name) for name in _CREATOR} for creator in description.creators],
        "publisher": description.publisher,
        "licence": description.licence,
        "subjects": description.subjects,
        "tags": description.tags,
        "profile": archive.profile.name,
        "contract": {name: getattr(archive.profile, name) for name in _CONTRACT},
        "access": archive.access.value,
        "embargo_until": archive.embargo_until,
        "keep_until": archive.keep_until,
        "organisation_id": archive.organisation_id,
        "account_id": archive.account_id,
        "parent_id": archive.parent_id,
        "opened_at": archive.opened_at,
        "opened_by": archive.opened_by,
        "closed_at": archive.closed_at,
        "revision": archive.revision,
        "head_version": archive.head_version,
        "file_count": archive.file_count,
        "byte_count": archive.byte_count,
        "identifier": archive.identifier,
        "identifier_is_test": None,
        "tombstone": archive.tombstone,
        "actions": sorted(map(str, actions)),
        "children": children,
    }


def _description(form: OpenForm) -> Description:
    return Description(
        title=form.title,
        description=form.description,
        creators=tuple(Creator(**creator.model_dump()) for creator in form.creators),
        publisher=form.publisher,
        licence=form.licence,
        subjects=tuple(form.subjects),
        tags=tuple(form.tags),
    )


def _created(archive: Archive, response: Response, services: Services) -> ArchiveRecord:
    response.headers["location"] = f"/api/v1/archives/{archive.id}"
    return _changed(archive, response, services)


def _changed(archive: Archive, response: Response, services: Services) -> ArchiveRecord:
    response.headers["etag"] = format_revision("r", archive.revision)
    return archive_record(archive, services)
