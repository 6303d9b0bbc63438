"""A person as a whole: two identities become one, all that is kept is told, and it is removed."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Path, Response
from pydantic import BaseModel

from perdure.doors.api.fields import Id
from perdure.doors.api.forms import ErasureForm, MergeForm, OwnErasureForm, OwnMergeForm
from perdure.doors.http.auth import GUESSABLE, KnownCaller, identity_of
from perdure.doors.http.openapi import problems
from perdure.doors.http.services import Given
from perdure.identity.merging import MergePlan

router = APIRouter(tags=["people"])

IdentityId = Annotated[Id, Path()]


class MovedAccountView(BaseModel):
    id: UUID
    name: str


class MergeView(BaseModel):
    """What a merge does, or did when `is_done`: what becomes the kept identity's, and what ends.

    `ending_logins` are those whose password ends, because the kept identity has one; `second_factor` says whose stays.
    """

    is_done: bool
    kept_id: UUID
    kept_name: str
    gone_id: UUID
    gone_name: str
    logins: list[str]
    ending_logins: list[str]
    second_factor: Literal["kept", "moved"] | None
    groups: int
    accounts: list[MovedAccountView]
    roles: int
    ending_sessions: int
    ending_tokens: int
    ending_passkeys: int


@router.post(
    "/me/merge",
    operation_id="merge_own",
    dependencies=[GUESSABLE],
    summary="Let another identity of oneself end in this one, with a session of both",
    responses=problems(403, 409),
)
def merge_own(form: OwnMergeForm, caller: KnownCaller, services: Given) -> MergeView:
    other = services.identity.authenticate(form.session)
    persons = services.archives.persons
    plan = persons.plan_own_merge(caller, other) if form.dry_run else persons.merge_own(caller, other)
    return _merge_view(plan, is_done=not form.dry_run)


@router.post(
    "/identities/{identity_id}/merge",
    operation_id="merge_identities",
    summary="Let another identity of the same person end in this one (managers of both organisations)",
    responses=problems(403, 409),
)
def merge_identities(identity_id: IdentityId, form: MergeForm, caller: KnownCaller, services: Given) -> MergeView:
    persons = services.archives.persons
    if form.dry_run:
        plan = persons.plan_merge(caller, identity_id, form.identity_id)
    else:
        plan = persons.merge(caller, identity_id, form.identity_id, form.reason)
    return _merge_view(plan, is_done=not form.dry_run)


@router.get(
    "/me/export",
    operation_id="export_own",
    summary="All that is kept of oneself, without any secret",
    description="Profile, ways in, groups, roles, accounts, sessions, tokens, terms, applications, archives, links, "
    "and the events that one did or that are about one.",
    responses=problems(403),
)
def export_own(caller: KnownCaller, services: Given, response: Response) -> dict[str, Any]:  # Any: free form
    response.headers["cache-control"] = "no-store"
    return services.archives.persons.export_own(caller)


@router.post(
    "/me/erase",
    operation_id="erase_own",
    summary="Remove for ever what is personal of oneself",
    status_code=204,
    responses=problems(403, 409),
)
def erase_own(form: OwnErasureForm, caller: KnownCaller, services: Given) -> None:
    services.archives.persons.erase(caller, identity_of(caller), dry_run=form.dry_run)


@router.post(
    "/identities/{identity_id}/erase",
    operation_id="erase_identity",
    summary="Remove for ever what is personal of somebody (managers of the organisation)",
    status_code=204,
    responses=problems(403, 409),
)
def erase_identity(identity_id: IdentityId, form: ErasureForm, caller: KnownCaller, services: Given) -> None:
    services.archives.persons.erase(caller, identity_id, form.reason, dry_run=form.dry_run)


def _merge_view(plan: MergePlan, *, is_done: bool) -> MergeView:
    return MergeView(
        is_done=is_done,
        kept_id=plan.kept_id,
        kept_name=plan.kept_name,
        gone_id=plan.gone_id,
        gone_name=plan.gone_name,
        logins=list(plan.logins),
        ending_logins=list(plan.ending_logins),
        second_factor=plan.second_factor,
        groups=plan.groups,
        accounts=[MovedAccountView(id=account_id, name=name) for account_id, name in plan.accounts],
        roles=plan.roles,
        ending_sessions=plan.sessions,
        ending_tokens=plan.tokens,
        ending_passkeys=plan.passkeys,
    )
