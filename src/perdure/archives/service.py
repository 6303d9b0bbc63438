"""All use cases on archives in one bundle: what doors are given."""

from __future__ import annotations

from dataclasses import dataclass

from perdure.archives.closing import Closing
from perdure.archives.describing import Describing
from perdure.archives.downloading import Downloading
from perdure.archives.filling import Filling
from perdure.archives.heads import Heads
from perdure.archives.life import Life
from perdure.archives.persons import Persons
from perdure.archives.ports import Signer
from perdure.archives.profiles import Profiles
from perdure.archives.reading import Reading
from perdure.archives.records import Context
from perdure.archives.repeating import Repeats
from perdure.archives.reporting import Reports
from perdure.archives.tasks import register_life_jobs
from perdure.archives.trail import Trail
from perdure.archives.transferring import Transferring
from perdure.archives.upkeep import register_content_upkeep
from perdure.archives.verifying import Verifying
from perdure.archives.working import Work


def make_archives(context: Context, signer: Signer | None) -> Archives:
    """Put the use cases together and name the handlers of their jobs; once for each queue."""
    heads = Heads(context)
    register_life_jobs(context, heads)
    filling, verifying = Filling(context), Verifying(context)
    register_content_upkeep(context, filling, verifying)
    return Archives(
        context=context,
        profiles=Profiles(context),
        life=Life(context, heads),
        describing=Describing(context),
        heads=heads,
        filling=filling,
        closing=Closing(context, heads, signer),
        verifying=verifying,
        reading=Reading(context),
        downloading=Downloading(context),
        work=Work(context),
        trail=Trail(context),
        repeats=Repeats(context),
        reports=Reports(context),
        transferring=Transferring(context),
        persons=Persons(context),
    )


@dataclass(frozen=True, slots=True)
class Archives:
    """The use cases by subject; every one takes the actor first and is safe to call from any thread."""

    context: Context
    profiles: Profiles
    life: Life
    describing: Describing
    heads: Heads
    filling: Filling
    closing: Closing
    verifying: Verifying
    reading: Reading
    downloading: Downloading
    work: Work
    trail: Trail
    repeats: Repeats
    reports: Reports
    transferring: Transferring
    persons: Persons
