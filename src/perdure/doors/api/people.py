"""Identities and groups."""

from __future__ import annotations

import secrets
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Path, Query, Response
from pydantic import BaseModel

from perdure.doors.api.fields import CursorText, Id, Line, PageSize
from perdure.doors.api.forms import ClaimRuleForm, GroupForm, IdentityForm, IdentityPatch, MemberForm
from perdure.doors.api.views import Page
from perdure.doors.http.auth import KnownCaller
from perdure.doors.http.cursors import AN_ID, decode_cursor, encode_cursor
from perdure.doors.http.openapi import problems
from perdure.doors.http.repeats import ONCE, CreatingRoute
from perdure.doors.http.services import Given
from perdure.identity import Group, IdentityCard, IdentityState
from perdure.kernel.errors import NotAllowedError

router = APIRouter(tags=["people"], route_class=CreatingRoute)

IdentityId = Annotated[Id, Path()]
GroupId = Annotated[Id, Path()]
RuleId = Annotated[Id, Path()]


class IdentityView(BaseModel):
    """One person or service as others of the instance see it; `is_administrator` is null but for administrators.

    Who was merged into another, or erased, is there in history only.
    """

    id: UUID
    organisation_id: UUID
    kind: str
    display_name: str
    orcid: str | None
    is_active: bool
    is_administrator: bool | None
    merged_into: UUID | None
    is_erased: bool


class NewIdentityView(IdentityView):
    """`password` is there, this once, when the request named none."""

    password: str | None = None
    account_id: UUID


class LoginView(BaseModel):
    """One way in: `kind` may be `passkey` or `totp`, too; `subject` is a login name, or the institution."""

    kind: str
    subject: str
    created_at: datetime
    last_used_at: datetime | None


class MembershipView(BaseModel):
    """Somebody's place in a group; `source` says whether somebody gave it to him or a claim did."""

    identity_id: UUID
    is_manager: bool
    source: Literal["local", "claim"]
    starts_at: datetime | None
    ends_at: datetime | None


class GroupView(BaseModel):
    """`members` and `managers` are those of this moment, `memberships` also those to come and those that ended."""

    id: UUID
    organisation_id: UUID
    name: str
    members: list[UUID]
    managers: list[UUID]
    memberships: list[MembershipView]


class ClaimRuleView(BaseModel):
    """Who logs in from the issuer with the entitlement is in the group."""

    id: UUID
    issuer: str
    entitlement: str
    starts_at: datetime | None
    ends_at: datetime | None


def identity_view(card: IdentityCard) -> IdentityView:
    return IdentityView(**_identity_fields(card))


@router.get(
    "/identities",
    operation_id="list_identities",
    summary="Find one by login, or list those of the organisations that one manages (administrators: all)",
    responses=problems(403),
)
def list_identities(
    caller: KnownCaller,
    services: Given,
    login: Annotated[Line | None, Query(description="The exact login name; the answer has one item or none.")] = None,
    text: Annotated[Line | None, Query(description="Part of a name, or a login name, in whatever case.")] = None,
    state: Annotated[Literal["active", "disabled", "merged", "erased"] | None, Query()] = None,
    cursor: CursorText = None,
    limit: PageSize = 100,
) -> Page[IdentityView]:
    if login is not None:
        found = services.identity.find_identity(caller, login)
        return Page(items=[identity_view(found)] if found else [])
    after = decode_cursor("identities", cursor, AN_ID)
    wanted = None if state is None else IdentityState(state)
    cards = services.identity.list_identities(
        caller, text=text, state=wanted, after=UUID(after) if after else None, limit=limit
    )
    following = encode_cursor("identities", str(cards[-1].id) if len(cards) == limit else None)
    return Page(items=[identity_view(card) for card in cards], next_cursor=following)


@router.post(
    "/identities",
    operation_id="create_identity",
    summary="Make a local account with its personal space (managers of the organisation)",
    status_code=201,
    dependencies=ONCE,
    responses=problems(403, 409),
)
def create_identity(form: IdentityForm, response: Response, caller: KnownCaller, services: Given) -> NewIdentityView:
    password = form.password or secrets.token_urlsafe(15)
    card, account = services.identity.create_local_account(
        caller,
        login=form.login,
        password=password,
        display_name=form.display_name,
        email=form.email,
        orcid=form.orcid,
        organisation_id=form.organisation_id,
        is_administrator=form.is_administrator,
    )
    response.headers["location"] = f"/api/v1/identities/{card.id}"
    response.headers["cache-control"] = "no-store"
    shown = None if form.password else password
    return NewIdentityView(**_identity_fields(card), password=shown, account_id=account.id)


@router.get("/identities/{identity_id}", operation_id="get_identity", summary="One identity", responses=problems())
def get_identity(identity_id: IdentityId, caller: KnownCaller, services: Given) -> IdentityView:
    return identity_view(services.identity.get_identity(caller, identity_id))


@router.patch(
    "/identities/{identity_id}",
    operation_id="change_identity",
    summary="Rename an identity, oneself too; disable or enable it (managers of its home), make it administrator",
    responses=problems(403, 409),
)
def change_identity(identity_id: IdentityId, form: IdentityPatch, caller: KnownCaller, services: Given) -> IdentityView:
    if form.display_name is not None:
        services.identity.rename_identity(caller, identity_id, form.display_name)
    if form.is_administrator is not None:
        services.identity.set_administrator(caller, identity_id, is_administrator=form.is_administrator)
    if form.is_active is not None:
        change = services.identity.enable_identity if form.is_active else services.identity.disable_identity
        change(caller, identity_id)
    return identity_view(services.identity.get_identity(caller, identity_id))


@router.get(
    "/identities/{identity_id}/logins",
    operation_id="list_logins_of",
    summary="In what ways somebody logs in, and when he last did (managers of the organisation)",
    responses=problems(403, 409),
)
def list_logins_of(identity_id: IdentityId, caller: KnownCaller, services: Given) -> Page[LoginView]:
    found = services.identity.list_logins_of(caller, identity_id)
    return Page(items=[LoginView.model_validate(one, from_attributes=True) for one in found])


@router.delete(
    "/identities/{identity_id}/second-factor",
    operation_id="remove_second_factor_of",
    summary="Take the second factor of somebody whose device is lost (managers of the organisation)",
    status_code=204,
    responses=problems(403),
)
def remove_second_factor_of(identity_id: IdentityId, caller: KnownCaller, services: Given) -> None:
    if identity_id == caller.identity_id:
        raise NotAllowedError("Remove your own with a code, at /me/second-factor/remove.")
    services.identity.remove_second_factor(caller, identity_id)


@router.get(
    "/groups",
    operation_id="list_groups",
    summary="One's groups, and those of organisations that one manages",
    responses=problems(),
)
def list_groups(caller: KnownCaller, services: Given) -> Page[GroupView]:
    return Page(items=[_group_view(group) for group in services.identity.list_groups(caller)])


@router.post(
    "/groups",
    operation_id="create_group",
    summary="Make a group and manage it",
    status_code=201,
    dependencies=ONCE,
    responses=problems(403, 409),
)
def create_group(form: GroupForm, caller: KnownCaller, services: Given) -> GroupView:
    return _group_view(services.identity.create_group(caller, form.name))


@router.get("/groups/{group_id}", operation_id="get_group", summary="One group", responses=problems(403))
def get_group(group_id: GroupId, caller: KnownCaller, services: Given) -> GroupView:
    return _group_view(services.identity.get_group(caller, group_id))


@router.put(
    "/groups/{group_id}/members/{identity_id}",
    operation_id="add_member",
    summary="Take somebody into the group, or change whether he manages it",
    responses=problems(403, 409),
)
def add_member(
    group_id: GroupId, identity_id: IdentityId, caller: KnownCaller, services: Given, form: MemberForm | None = None
) -> GroupView:
    form = form or MemberForm()
    services.identity.add_member(
        caller, group_id, identity_id, is_manager=form.is_manager, starts_at=form.starts_at, ends_at=form.ends_at
    )
    return _group_view(services.identity.get_group(caller, group_id))


@router.delete(
    "/groups/{group_id}/members/{identity_id}",
    operation_id="remove_member",
    summary="Take somebody out of the group, or leave it",
    status_code=204,
    responses=problems(403, 409),
)
def remove_member(group_id: GroupId, identity_id: IdentityId, caller: KnownCaller, services: Given) -> None:
    services.identity.remove_member(caller, group_id, identity_id)


@router.get(
    "/groups/{group_id}/rules",
    operation_id="list_claim_rules",
    summary="Which entitlements of which provider lead into the group",
    responses=problems(403),
)
def list_claim_rules(group_id: GroupId, caller: KnownCaller, services: Given) -> Page[ClaimRuleView]:
    found = services.identity.list_claim_rules(caller, group_id)
    return Page(items=[ClaimRuleView.model_validate(one, from_attributes=True) for one in found])


@router.post(
    "/groups/{group_id}/rules",
    operation_id="add_claim_rule",
    summary="Let into the group who logs in with an entitlement; `*` at its end stands for any ending",
    status_code=201,
    dependencies=ONCE,
    responses=problems(403, 409),
)
def add_claim_rule(group_id: GroupId, form: ClaimRuleForm, caller: KnownCaller, services: Given) -> ClaimRuleView:
    made = services.identity.add_claim_rule(
        caller,
        group_id,
        entitlement=form.entitlement,
        issuer=form.issuer,
        starts_at=form.starts_at,
        ends_at=form.ends_at,
    )
    return ClaimRuleView.model_validate(made, from_attributes=True)


@router.delete(
    "/groups/{group_id}/rules/{rule_id}",
    operation_id="remove_claim_rule",
    summary="Take a rule back",
    status_code=204,
    responses=problems(403),
)
def remove_claim_rule(group_id: GroupId, rule_id: RuleId, caller: KnownCaller, services: Given) -> None:
    services.identity.remove_claim_rule(caller, group_id, rule_id)


def _identity_fields(card: IdentityCard) -> dict[str, Any]:  # Any: fields of the view, each with its own type
    return {
        "id": card.id,
        "organisation_id": card.organisation_id,
        "kind": card.kind.value,
        "display_name": card.display_name,
        "orcid": card.orcid,
        "is_active": card.is_active,
        "is_administrator": card.is_administrator,
        "merged_into": card.merged_into,
        "is_erased": card.is_erased,
    }


def _group_view(group: Group) -> GroupView:
    return GroupView(
        id=group.id,
        organisation_id=group.organisation_id,
        name=group.name,
        members=sorted(group.members),
        managers=sorted(group.managers),
        memberships=[MembershipView.model_validate(one, from_attributes=True) for one in group.memberships],
    )
