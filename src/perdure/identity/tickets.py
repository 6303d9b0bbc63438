"""What has to be remembered between two steps: sealed, and handed to who comes back with it."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

from perdure.identity.errors import BadSealError
from perdure.identity.ports import Sealer
from perdure.kernel.clock import Clock, format_time, parse_time


class Tickets:
    """Good until a time, for one purpose; readable by us alone."""

    def __init__(self, clock: Clock, sealer: Sealer) -> None:
        self._clock = clock
        self._sealer = sealer

    def seal(self, kept: dict[str, Any], purpose: str, lasts: timedelta) -> str:  # Any: JSON
        """Text that `open` turns back for so long."""
        until = format_time(self._clock.now() + lasts)
        return self._sealer.seal(json.dumps({"until": until, "kept": kept}).encode(), purpose)

    def open(self, sealed: str, purpose: str) -> dict[str, Any]:  # Any: JSON that we sealed
        """What was sealed; raises BadSealError for anything else, and when it is too late."""
        document = json.loads(self._sealer.open(sealed, purpose))
        if parse_time(document["until"]) <= self._clock.now():
            raise BadSealError("This came too late.")
        kept: dict[str, Any] = document["kept"]
        return kept
