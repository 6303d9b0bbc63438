"""Handing over archives and accounts."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path, Response
from pydantic import BaseModel

from perdure.archives.transferring import Transfer
from perdure.doors.api.archives import archive_record
from perdure.doors.api.fields import ArchiveId, Id
from perdure.doors.api.forms import AcceptForm, AccountTransferForm, OfferForm, TransferForm
from perdure.doors.api.granting import person_of
from perdure.doors.api.views import ArchiveRecord, Page
from perdure.doors.http.auth import KnownCaller
from perdure.doors.http.openapi import problems
from perdure.doors.http.repeats import ONCE, CreatingRoute
from perdure.doors.http.services import Given, Services
from perdure.kernel.actor import Actor
from perdure.kernel.ids import short_form

router = APIRouter(tags=["transfers"], route_class=CreatingRoute)

TransferId = Annotated[Id, Path()]


class TransferView(BaseModel):
    """An offer of an archive that waits; with `keeps_account` the archive stays in its account."""

    id: UUID
    archive_id: UUID
    archive_short_id: str
    title: str
    bytes: int
    from_id: UUID
    from_name: str | None
    to_id: UUID
    to_name: str | None
    keeps_account: bool
    offered_at: datetime
    expires_at: datetime


@router.post(
    "/archives/{archive_id}/transfers",
    operation_id="offer_archive",
    summary="Offer an archive that one owns to somebody, who accepts or declines",
    status_code=201,
    dependencies=ONCE,
    responses=problems(403, 409, 410),
)
def offer(
    archive_id: ArchiveId, form: OfferForm, response: Response, caller: KnownCaller, services: Given
) -> TransferView:
    to_id = person_of(form.login, form.identity_id, caller, services)
    made = services.archives.transferring.offer(caller, archive_id, to_id, keeps_account=form.keeps_account)
    response.headers["location"] = f"/api/v1/transfers/{made.id}"
    return _views([made], caller, services)[0]


@router.post(
    "/archives/{archive_id}/transfer",
    operation_id="transfer_archive",
    summary="Hand an archive over at once (those who manage its organisation)",
    responses=problems(403, 409, 410),
)
def transfer(archive_id: ArchiveId, form: TransferForm, caller: KnownCaller, services: Given) -> ArchiveRecord:
    to_id = person_of(form.login, form.identity_id, caller, services)
    moved = services.archives.transferring.transfer_now(
        caller, archive_id, to_id, keeps_account=form.keeps_account, account_id=form.account_id
    )
    return archive_record(moved, services)


@router.get(
    "/transfers",
    operation_id="list_transfers",
    summary="The offers that wait, to oneself and one's own",
    responses=problems(403),
)
def list_transfers(caller: KnownCaller, services: Given) -> Page[TransferView]:
    return Page(items=_views(services.archives.transferring.list_offers(caller), caller, services))


@router.post(
    "/transfers/{transfer_id}/accept",
    operation_id="accept_transfer",
    summary="Take over an archive that was offered",
    responses=problems(403, 409, 410),
)
def accept(transfer_id: TransferId, form: AcceptForm, caller: KnownCaller, services: Given) -> ArchiveRecord:
    moved = services.archives.transferring.accept(caller, transfer_id, account_id=form.account_id)
    return archive_record(moved, services)


@router.delete(
    "/transfers/{transfer_id}",
    operation_id="decline_transfer",
    summary="Decline an offer, or take back one's own",
    status_code=204,
    responses=problems(403),
)
def decline(transfer_id: TransferId, caller: KnownCaller, services: Given) -> None:
    services.archives.transferring.decline(caller, transfer_id)


@router.post(
    "/accounts/{account_id}/transfer",
    operation_id="transfer_account",
    summary="Make somebody else the owner of an account of a group or beamline",
    status_code=204,
    responses=problems(403, 409),
)
def transfer_account(
    account_id: Annotated[Id, Path()], form: AccountTransferForm, caller: KnownCaller, services: Given
) -> None:
    to_id = person_of(form.login, form.identity_id, caller, services)
    services.identity.transfer_account(caller, account_id, to_id)


def _views(found: list[Transfer], caller: Actor, services: Services) -> list[TransferView]:
    names = services.identity.find_names(caller, {person for one in found for person in (one.from_id, one.to_id)})
    return [
        TransferView(
            id=one.id,
            archive_id=one.archive_id,
            archive_short_id=short_form(one.archive_id),
            title=one.title,
            bytes=one.size,
            from_id=one.from_id,
            from_name=names.get(one.from_id),
            to_id=one.to_id,
            to_name=names.get(one.to_id),
            keeps_account=one.keeps_account,
            offered_at=one.offered_at,
            expires_at=one.expires_at,
        )
        for one in found
    ]
