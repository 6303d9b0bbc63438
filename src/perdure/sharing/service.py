"""The use cases of this domain in one bundle."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from perdure.archives.service import Archives
from perdure.sharing.invitations import (
    Invitations,
    InvitationSettings,
    forget_invitations_of,
    list_invitations_of,
)
from perdure.sharing.links import Links, list_links_made_by
from perdure.sharing.upkeep import register_upkeep
from perdure.sharing.visiting import Visiting


@dataclass(frozen=True, slots=True)
class Sharing:
    """Links for who manages archives, and for who visits by them; invitations. Safe to call from any thread."""

    links: Links
    visiting: Visiting
    invitations: Invitations


def make_sharing(archives: Archives, settings: InvitationSettings | None = None) -> Sharing:
    """Put the use cases together and name their periodic work; once for each queue."""
    ctx = archives.context
    register_upkeep(ctx)
    archives.persons.add_part("links", list_links_made_by)
    archives.persons.add_part("invitations", list_invitations_of)
    archives.persons.add_forgetting(forget_invitations_of)
    invitations = Invitations(ctx, settings or InvitationSettings())
    ctx.jobs.register_periodic("sharing.forget_invitations", timedelta(hours=24), invitations.forget_decided)
    return Sharing(Links(ctx, archives.reading), Visiting(archives), invitations)
