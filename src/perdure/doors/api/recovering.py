"""One's own address, and a forgotten password."""

from __future__ import annotations

from datetime import datetime

from fastapi import APIRouter
from pydantic import BaseModel

from perdure.doors.api.forms import AddressForm, ForgottenForm, KeyForm, ResetForm
from perdure.doors.http.auth import GUESSABLE, KnownCaller
from perdure.doors.http.openapi import ANYONE, problems
from perdure.doors.http.services import Given
from perdure.identity.model import Address

router = APIRouter(tags=["session"])


class AddressView(BaseModel):
    """One's own address; it is used once it is confirmed."""

    email: str
    confirmed_at: datetime | None


class AskedView(BaseModel):
    """The same answer, whether anybody is meant or not."""

    said: str = "If somebody here is meant and has a confirmed address, a mail is sent there."


@router.post(
    "/password/forgotten",
    operation_id="ask_for_reset",
    summary="Have a link for a new password sent to one's confirmed address",
    status_code=202,
    dependencies=[GUESSABLE],
    responses=problems(409),
    openapi_extra=ANYONE,
)
def ask_for_reset(form: ForgottenForm, services: Given) -> AskedView:
    services.identity.ask_for_reset(form.name)
    return AskedView()


@router.post(
    "/password/reset",
    operation_id="reset_password",
    summary="Set a new password by the key of a mail; ends all sessions",
    status_code=204,
    dependencies=[GUESSABLE],
    responses=problems(),
    openapi_extra=ANYONE,
)
def reset_password(form: ResetForm, services: Given) -> None:
    services.identity.reset_password(form.key, form.password, revoke_tokens=form.revoke_tokens)


@router.get("/me/address", operation_id="get_address", summary="One's own e-mail address", responses=problems(403))
def get_address(caller: KnownCaller, services: Given) -> AddressView:
    return AddressView.model_validate(_fields(services.identity.get_address(caller)))


@router.put(
    "/me/address",
    operation_id="change_address",
    summary="Have a mail sent to a new address of one's own, which counts once it is confirmed",
    status_code=202,
    responses=problems(403, 409),
)
def change_address(form: AddressForm, caller: KnownCaller, services: Given) -> AskedView:
    services.identity.change_address(caller, form.email)
    return AskedView(said="A mail is sent there. The address counts once its link is opened.")


@router.post(
    "/address/confirm",
    operation_id="confirm_address",
    summary="Let the address count that a mail with this key went to",
    dependencies=[GUESSABLE],
    responses=problems(),
    openapi_extra=ANYONE,
)
def confirm_address(form: KeyForm, services: Given) -> AddressView:
    return AddressView.model_validate(_fields(services.identity.confirm_address(form.key)))


def _fields(found: Address) -> dict[str, object]:
    return {"email": found.address, "confirmed_at": found.confirmed_at}
