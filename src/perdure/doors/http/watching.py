"""What is told of a request when it has ended, to whoever counts them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from perdure.kernel.tally import Tally


@dataclass(slots=True)  # not frozen: one is made for each request, and that would cost it a microsecond
class FinishedRequest:
    """`operation` is the name of the route, None where none took it; `status` None where no answer began.

    `busy` are the seconds until the answer began without those in which the server waited for the client; `sent` are
    the bytes of the answer's body, those of the request's are in the tally.
    """

    request_id: str
    method: str
    operation: str | None
    status: int | None
    busy: float
    sent: int
    tally: Tally


class RequestWatch(Protocol):
    """Is told of each request in the event loop; must return at once."""

    def began(self) -> None: ...

    def ended(self, request: FinishedRequest) -> None: ...

    def refused(self, limit: str) -> None:
        """A request was one too many by this limit; told from any thread, before `ended`."""


class NoWatch:
    """Counts nothing."""

    def began(self) -> None:
        return

    def ended(self, request: FinishedRequest) -> None:
        return

    def refused(self, limit: str) -> None:
        return
