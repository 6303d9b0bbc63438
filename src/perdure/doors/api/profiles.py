"""Profiles: the contracts that an archive can be opened with."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response

from perdure.archives.model import Access, Profile
from perdure.doors.api.fields import Id, Line
from perdure.doors.api.forms import ProfileForm
from perdure.doors.api.views import Page, ProfileView
from perdure.doors.http.auth import KnownCaller
from perdure.doors.http.openapi import problems
from perdure.doors.http.repeats import ONCE, CreatingRoute
from perdure.doors.http.services import Given

router = APIRouter(tags=["profiles"], route_class=CreatingRoute)


@router.get(
    "/profiles",
    operation_id="list_profiles",
    summary="The profiles on offer; those an account may choose",
    responses=problems(403),
)
def list_profiles(
    caller: KnownCaller,
    services: Given,
    account_id: Annotated[Id | None, Query(description="Only those that this account may choose.")] = None,
) -> Page[ProfileView]:
    return Page(
        items=[profile_view(profile) for profile in services.archives.profiles.list_profiles(caller, account_id)]
    )


@router.get("/profiles/{name}", operation_id="get_profile", summary="One profile", responses=problems())
def get_profile(name: Annotated[Line, Path()], caller: KnownCaller, services: Given) -> ProfileView:
    return profile_view(services.archives.profiles.get(caller, name))


@router.post(
    "/profiles",
    operation_id="define_profile",
    summary="Make a profile, or change what archives opened later get (administrators)",
    status_code=201,
    dependencies=ONCE,
    responses=problems(403, 409),
)
def define_profile(form: ProfileForm, response: Response, caller: KnownCaller, services: Given) -> ProfileView:
    fields: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in form
    }  # Any: each field has its own type
    profile = services.archives.profiles.define_profile(
        caller, Profile(**{**fields, "access_default": Access(form.access_default)})
    )
    response.headers["location"] = f"/api/v1/profiles/{profile.name}"
    return profile_view(profile)


def profile_view(profile: Profile) -> ProfileView:
    return ProfileView.model_validate(profile, from_attributes=True)
