"""Organisations, which own identities, accounts and groups, and the roles on them."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path, Response
from pydantic import BaseModel

from perdure.doors.api.fields import Id
from perdure.doors.api.forms import GrantForm, OrganisationForm, OrganisationPatch
from perdure.doors.api.granting import grant_views, grantee_of, pass_on_of
from perdure.doors.api.views import GrantView, Page
from perdure.doors.http.auth import KnownCaller
from perdure.doors.http.openapi import problems
from perdure.doors.http.repeats import ONCE, CreatingRoute
from perdure.doors.http.services import Given
from perdure.identity import OrganisationThing, Role

router = APIRouter(tags=["organisations"], route_class=CreatingRoute)

OrganisationId = Annotated[Id, Path()]
GrantId = Annotated[Id, Path()]


class OrganisationView(BaseModel):
    """An organisation; its quota is told to those who manage it (null: no limit, or not for the caller to know)."""

    id: UUID
    name: str
    ror: str | None
    quota_bytes: int | None


class OrganisationUsageView(BaseModel):
    """What all accounts hold together; `reserved_bytes` belong to uploads that are going on."""

    bytes: int
    reserved_bytes: int
    files: int
    quota_bytes: int | None


@router.get(
    "/organisations",
    operation_id="list_organisations",
    summary="The organisations that one may see",
    responses=problems(),
)
def list_organisations(caller: KnownCaller, services: Given) -> Page[OrganisationView]:
    found = services.identity.list_organisations(caller)
    return Page(items=[OrganisationView.model_validate(one, from_attributes=True) for one in found])


@router.post(
    "/organisations",
    operation_id="create_organisation",
    summary="Make an organisation (administrators)",
    status_code=201,
    dependencies=ONCE,
    responses=problems(403, 409),
)
def create_organisation(form: OrganisationForm, caller: KnownCaller, services: Given) -> OrganisationView:
    made = services.identity.create_organisation(caller, form.name, ror=form.ror)
    return OrganisationView.model_validate(made, from_attributes=True)


@router.patch(
    "/organisations/{organisation_id}",
    operation_id="change_organisation",
    summary="Change the quota of all its accounts together (administrators)",
    responses=problems(403),
)
def change_organisation(
    organisation_id: OrganisationId, form: OrganisationPatch, caller: KnownCaller, services: Given
) -> OrganisationView:
    changed = services.identity.change_organisation(caller, organisation_id, quota_bytes=form.quota_bytes)
    return OrganisationView.model_validate(changed, from_attributes=True)


@router.get(
    "/organisations/{organisation_id}/usage",
    operation_id="get_organisation_usage",
    summary="What its accounts use of its quota (those who manage it)",
    responses=problems(403),
)
def get_usage(organisation_id: OrganisationId, caller: KnownCaller, services: Given) -> OrganisationUsageView:
    usage = services.archives.life.use_of_all(caller, organisation_id)
    return OrganisationUsageView.model_validate(usage, from_attributes=True)


@router.get(
    "/organisations/{organisation_id}/grants",
    operation_id="list_organisation_grants",
    summary="Who manages the organisation, and who is its curator",
    responses=problems(403),
)
def list_grants(organisation_id: OrganisationId, caller: KnownCaller, services: Given) -> Page[GrantView]:
    found = services.identity.list_grants(caller, OrganisationThing(organisation_id))
    return Page(items=grant_views(found, caller, services))


@router.post(
    "/organisations/{organisation_id}/grants",
    operation_id="grant_on_organisation",
    summary="Make somebody a manager or curator of the organisation",
    status_code=201,
    dependencies=ONCE,
    responses=problems(403, 409),
)
def grant(
    organisation_id: OrganisationId, form: GrantForm, response: Response, caller: KnownCaller, services: Given
) -> GrantView:
    organisation = services.identity.get_organisation(caller, organisation_id)
    grantee = grantee_of(form, caller, services)
    on = OrganisationThing(organisation.id)
    made = services.identity.grant(
        caller,
        on,
        grantee,
        Role(form.role),
        expires_at=form.expires_at,
        requires=form.requires,
        pass_on=pass_on_of(form),
    )
    response.headers["location"] = f"/api/v1/organisations/{organisation_id}/grants/{made.id}"
    return grant_views([made], caller, services)[0]


@router.delete(
    "/organisations/{organisation_id}/grants/{grant_id}",
    operation_id="revoke_on_organisation",
    summary="Take a role on the organisation back",
    status_code=204,
    responses=problems(403),
)
def revoke(organisation_id: OrganisationId, grant_id: GrantId, caller: KnownCaller, services: Given) -> None:
    services.identity.revoke_grant(caller, OrganisationThing(organisation_id), grant_id)
