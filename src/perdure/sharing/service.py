"""The use cases of this domain in one bundle."""

from __future__ import annotations

from dataclasses import dataclass

from perdure.archives.service import Archives
from perdure.sharing.links import Links
from perdure.sharing.upkeep import register_upkeep
from perdure.sharing.visiting import Visiting


@dataclass(frozen=True, slots=True)
class Sharing:
    """Links for who manages archives, and for who visits by them; safe to call from any thread."""

    links: Links
    visiting: Visiting


def make_sharing(archives: Archives) -> Sharing:
    """Put the use cases together and name their periodic work; once for each queue."""
    register_upkeep(archives.context)
    return Sharing(Links(archives.context, archives.reading), Visiting(archives))
