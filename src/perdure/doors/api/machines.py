"""Service accounts: identities of machines, who answers for them, and their tokens."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path, Response
from pydantic import BaseModel

from perdure.doors.api.archives import archive_record
from perdure.doors.api.fields import CursorText, Id, PageSize
from perdure.doors.api.forms import RotationForm, ServiceForm, ServicePatch, ServiceTokenForm
from perdure.doors.api.session import NewTokenView, TokenView, token_fields
from perdure.doors.api.views import ArchiveRecord, Page
from perdure.doors.http.auth import KnownCaller
from perdure.doors.http.cursors import A_SHORT_ID, AN_ID, decode_cursor, encode_cursor
from perdure.doors.http.openapi import problems
from perdure.doors.http.repeats import ONCE, CreatingRoute
from perdure.doors.http.services import Given
from perdure.identity import ServiceAccount
from perdure.identity.accounts import UNCHANGED

router = APIRouter(tags=["service accounts"], route_class=CreatingRoute)

ServiceId = Annotated[Id, Path()]
TokenId = Annotated[Id, Path()]


class ServiceView(BaseModel):
    """A service account. `state` is `active`, `disabled`, or `orphaned`: who is responsible is disabled.

    Its tokens do no more than `verbs` on `archives` (null: all that it has a role on), from `addresses` (none: from
    anywhere). `ends_at` is the end of the token that lives longest; of the last use the minute is told.
    """

    id: UUID
    organisation_id: UUID
    account_id: UUID
    name: str
    purpose: str
    responsible_id: UUID
    responsible_name: str
    state: str
    verbs: list[str]
    archives: list[UUID] | None
    addresses: list[str]
    created_at: datetime
    last_used_at: datetime | None
    last_used_from: str
    ends_at: datetime | None


@router.get(
    "/services",
    operation_id="list_services",
    summary="The service accounts that one answers for, or whose organisation one manages",
    responses=problems(403),
)
def list_services(
    caller: KnownCaller, services: Given, cursor: CursorText = None, limit: PageSize = 100
) -> Page[ServiceView]:
    after = decode_cursor("services", cursor, AN_ID)
    found = services.identity.list_services(caller, after=UUID(after) if after else None, limit=limit)
    following = encode_cursor("services", str(found[-1].id) if len(found) == limit else None)
    return Page(items=[_view(one) for one in found], next_cursor=following)


@router.post(
    "/services",
    operation_id="create_service",
    summary="Make a service account with its space (managers of the organisation)",
    status_code=201,
    dependencies=ONCE,
    responses=problems(403, 409),
)
def create_service(form: ServiceForm, response: Response, caller: KnownCaller, services: Given) -> ServiceView:
    made = services.identity.create_service(
        caller,
        name=form.name,
        purpose=form.purpose,
        verbs=form.verbs,
        archives=form.archives,
        addresses=form.addresses,
        responsible_id=form.responsible_id,
        organisation_id=form.organisation_id,
        quota_bytes=form.quota_bytes,
    )
    response.headers["location"] = f"/api/v1/services/{made.id}"
    return _view(made)


@router.get(
    "/services/{service_id}", operation_id="get_service", summary="One service account", responses=problems(403)
)
def get_service(service_id: ServiceId, caller: KnownCaller, services: Given) -> ServiceView:
    return _view(services.identity.get_service(caller, service_id))


@router.patch(
    "/services/{service_id}",
    operation_id="change_service",
    summary="Hand over, disable (who is responsible, too), enable, or change what its tokens may do",
    responses=problems(403),
)
def change_service(service_id: ServiceId, form: ServicePatch, caller: KnownCaller, services: Given) -> ServiceView:
    changed = services.identity.change_service(
        caller,
        service_id,
        purpose=form.purpose,
        verbs=form.verbs,
        archives=form.archives if "archives" in form.model_fields_set else UNCHANGED,
        addresses=form.addresses,
        responsible_id=form.responsible_id,
        is_active=form.is_active,
    )
    return _view(changed)


@router.get(
    "/services/{service_id}/archives",
    operation_id="list_service_reach",
    summary="The archives that a service account reaches, and what its tokens may do there at most",
    responses=problems(403),
)
def list_service_reach(
    service_id: ServiceId, caller: KnownCaller, services: Given, cursor: CursorText = None, limit: PageSize = 50
) -> Page[ArchiveRecord]:
    after = decode_cursor("service reach", cursor, A_SHORT_ID)
    page = services.archives.life.list_service_reach(caller, service_id, cursor=after, limit=limit)
    items = [archive_record(view.archive, services, actions=view.actions) for view in page.items]
    return Page(items=items, next_cursor=encode_cursor("service reach", page.next_cursor))


@router.get(
    "/services/{service_id}/tokens",
    operation_id="list_service_tokens",
    summary="The tokens of a service account, newest first",
    responses=problems(403),
)
def list_service_tokens(service_id: ServiceId, caller: KnownCaller, services: Given) -> Page[TokenView]:
    found = services.identity.list_service_tokens(caller, service_id)
    return Page(items=[TokenView(**token_fields(token)) for token in found])


@router.post(
    "/services/{service_id}/tokens",
    operation_id="create_service_token",
    summary="Make a token for a service account; its secret is shown once",
    status_code=201,
    dependencies=ONCE,
    responses=problems(403, 409),
)
def create_service_token(
    service_id: ServiceId, form: ServiceTokenForm, response: Response, caller: KnownCaller, services: Given
) -> NewTokenView:
    secret, token = services.identity.create_service_token(
        caller, service_id, form.name, verbs=form.verbs, archives=form.archives, expires_at=form.expires_at
    )
    response.headers["cache-control"] = "no-store"
    return NewTokenView(secret=secret, **token_fields(token))


@router.post(
    "/services/{service_id}/tokens/{token_id}/rotate",
    operation_id="rotate_service_token",
    summary="Make a token that takes over from one, which goes on for a time; its secret is shown once",
    status_code=201,
    dependencies=ONCE,
    responses=problems(403, 409),
)
def rotate_service_token(
    service_id: ServiceId,
    token_id: TokenId,
    form: RotationForm,
    response: Response,
    caller: KnownCaller,
    services: Given,
) -> NewTokenView:
    grace = None if form.grace_seconds is None else timedelta(seconds=form.grace_seconds)
    secret, token = services.identity.rotate_service_token(
        caller, service_id, token_id, grace=grace, expires_at=form.expires_at
    )
    response.headers["cache-control"] = "no-store"
    return NewTokenView(secret=secret, **token_fields(token))


@router.delete(
    "/services/{service_id}/tokens/{token_id}",
    operation_id="revoke_service_token",
    summary="End a token of a service account at once",
    status_code=204,
    responses=problems(403),
)
def revoke_service_token(service_id: ServiceId, token_id: TokenId, caller: KnownCaller, services: Given) -> None:
    services.identity.revoke_service_token(caller, service_id, token_id)


def _view(one: ServiceAccount) -> ServiceView:
    archives = one.scope.archives
    return ServiceView(
        id=one.id,
        organisation_id=one.organisation_id,
        account_id=one.account_id,
        name=one.name,
        purpose=one.purpose,
        responsible_id=one.responsible_id,
        responsible_name=one.responsible_name,
        state=one.state.value,
        verbs=sorted(one.scope.verbs or ()),
        archives=None if archives is None else sorted(archives),
        addresses=list(one.addresses),
        created_at=one.created_at,
        last_used_at=one.last_used_at,
        last_used_from=one.last_used_from,
        ends_at=one.ends_at,
    )
