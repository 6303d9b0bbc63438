"""Accounts: the spaces that own archives, their roles and what they use."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path, Response
from pydantic import BaseModel

from perdure.doors.api.fields import CursorText, Id, PageSize
from perdure.doors.api.forms import AccountForm, AccountPatch, GrantForm
from perdure.doors.api.granting import grant_views, grantee_of, pass_on_of
from perdure.doors.api.views import GrantView, Page
from perdure.doors.http.auth import KnownCaller
from perdure.doors.http.cursors import AN_ID, decode_cursor, encode_cursor
from perdure.doors.http.openapi import problems
from perdure.doors.http.repeats import ONCE, CreatingRoute
from perdure.doors.http.services import Given
from perdure.identity import Account, Role

router = APIRouter(tags=["accounts"], route_class=CreatingRoute)

AccountId = Annotated[Id, Path()]
GrantId = Annotated[Id, Path()]


class AccountView(BaseModel):
    """An account; `role` is the caller's, null limits are none."""

    id: UUID
    organisation_id: UUID
    kind: str
    name: str
    owner_id: UUID
    quota_bytes: int | None
    allowed_profiles: list[str] | None
    quota_files: int | None
    role: str | None


class UsageView(BaseModel):
    """What the account's archives hold; `reserved_bytes` belong to uploads that are going on."""

    bytes: int
    reserved_bytes: int
    files: int
    quota_bytes: int | None
    quota_files: int | None


@router.get("/accounts", operation_id="list_accounts", summary="The accounts that one may see", responses=problems())
def list_accounts(
    caller: KnownCaller, services: Given, cursor: CursorText = None, limit: PageSize = 100
) -> Page[AccountView]:
    after = decode_cursor("accounts", cursor, AN_ID)
    found = services.identity.list_accounts(caller, after=UUID(after) if after else None, limit=limit)
    following = encode_cursor("accounts", str(found[-1].id) if len(found) == limit else None)
    return Page(items=[_account_view(account) for account in found], next_cursor=following)


@router.post(
    "/accounts",
    operation_id="create_account",
    summary="Make an account (administrators)",
    status_code=201,
    dependencies=ONCE,
    responses=problems(403, 409),
)
def create_account(form: AccountForm, response: Response, caller: KnownCaller, services: Given) -> AccountView:
    owner = services.identity.get_identity(caller, form.owner_id)
    account = services.identity.create_account(
        caller,
        kind=form.kind,
        name=form.name,
        owner_id=owner.id,
        organisation_id=form.organisation_id or owner.organisation_id,
        quota_bytes=form.quota_bytes,
        allowed_profiles=form.allowed_profiles,
        quota_files=form.quota_files,
    )
    response.headers["location"] = f"/api/v1/accounts/{account.id}"
    return _account_view(account)


@router.get("/accounts/{account_id}", operation_id="get_account", summary="One account", responses=problems(403))
def get_account(account_id: AccountId, caller: KnownCaller, services: Given) -> AccountView:
    return _account_view(services.identity.get_account(caller, account_id))


@router.patch(
    "/accounts/{account_id}",
    operation_id="change_account",
    summary="Change name, quota or profiles",
    responses=problems(403, 409),
)
def change_account(account_id: AccountId, form: AccountPatch, caller: KnownCaller, services: Given) -> AccountView:
    changes = {name: getattr(form, name) for name in form.model_fields_set}
    return _account_view(services.identity.change_account(caller, account_id, **changes))


@router.get(
    "/accounts/{account_id}/usage",
    operation_id="get_account_usage",
    summary="What the account uses of its quota",
    responses=problems(403),
)
def get_usage(account_id: AccountId, caller: KnownCaller, services: Given) -> UsageView:
    usage = services.archives.life.use_of(caller, account_id)
    return UsageView.model_validate(usage, from_attributes=True)


@router.get(
    "/accounts/{account_id}/grants",
    operation_id="list_account_grants",
    summary="Who has a role on the account",
    responses=problems(403),
)
def list_grants(account_id: AccountId, caller: KnownCaller, services: Given) -> Page[GrantView]:
    account = services.identity.get_account(caller, account_id)
    return Page(items=grant_views(services.identity.list_grants(caller, account.thing), caller, services))


@router.post(
    "/accounts/{account_id}/grants",
    operation_id="grant_on_account",
    summary="Give a role on the account and all its archives",
    status_code=201,
    dependencies=ONCE,
    responses=problems(403, 409),
)
def grant(
    account_id: AccountId, form: GrantForm, response: Response, caller: KnownCaller, services: Given
) -> GrantView:
    account = services.identity.get_account(caller, account_id)
    grantee = grantee_of(form, caller, services)
    made = services.identity.grant(
        caller,
        account.thing,
        grantee,
        Role(form.role),
        expires_at=form.expires_at,
        requires=form.requires,
        pass_on=pass_on_of(form),
    )
    response.headers["location"] = f"/api/v1/accounts/{account_id}/grants/{made.id}"
    return grant_views([made], caller, services)[0]


@router.delete(
    "/accounts/{account_id}/grants/{grant_id}",
    operation_id="revoke_on_account",
    summary="Take a role back",
    status_code=204,
    responses=problems(403, 409),
)
def revoke(account_id: AccountId, grant_id: GrantId, caller: KnownCaller, services: Given) -> None:
    account = services.identity.get_account(caller, account_id)
    services.identity.revoke_grant(caller, account.thing, grant_id)


def _account_view(account: Account) -> AccountView:
    return AccountView(
        id=account.id,
        organisation_id=account.organisation_id,
        kind=account.kind,
        name=account.name,
        owner_id=account.owner_id,
        quota_bytes=account.quota_bytes,
        allowed_profiles=None if account.allowed_profiles is None else sorted(account.allowed_profiles),
        quota_files=account.quota_files,
        role=account.role.value if account.role else None,
    )
