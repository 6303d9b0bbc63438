"""All use cases on archives in one bundle: what doors are given."""

from __future__ import annotations

from dataclasses import dataclass

from perdure.archives.closing import Closing
from perdure.archives.describing import Describing
from perdure.archives.downloading import Downloading
from perdure.archives.filling import Filling
from perdure.archives.heads import Heads
from perdure.archives.life import Life
from perdure.archives.profiles import Profiles
from perdure.archives.reading import Reading
from perdure.archives.records import Context
from perdure.archives.verifying import Verifying
from perdure.archives.working import Work


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
