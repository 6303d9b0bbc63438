"""What a door is given: the services it may call and the facts of the installation it tells."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated
from uuid import UUID

from anyio import CapacityLimiter
from fastapi import Depends, Request

from perdure.archives.service import Archives
from perdure.doors.http.hops import HeaderLogin
from perdure.doors.http.limiting import RequestLimits
from perdure.doors.http.streams import ByteThreads
from perdure.doors.http.threads import RequestThreads
from perdure.identity import Identity
from perdure.kernel.clock import Clock
from perdure.sharing.service import Sharing


@dataclass(frozen=True, slots=True)
class Place:
    """Where and what this installation is; the URLs are absolute, without a slash at the end."""

    instance_id: UUID
    name: str
    version: str
    api_url: str
    data_url: str

    @property
    def is_https(self) -> bool:
        """Whether everything here is reached over TLS, ours or a proxy's."""
        return self.api_url.startswith("https://") and self.data_url.startswith("https://")


_MOST_WAITING = 200  # requests that wait for an event, in threads of their own: they leave the others theirs


@dataclass(frozen=True, slots=True)
class Services:
    """Everything the doors reach. `find_faults` tells each needed component and what is wrong with it, or None."""

    identity: Identity
    archives: Archives
    sharing: Sharing
    clock: Clock
    place: Callable[[], Place]
    find_faults: Callable[[], Mapping[str, str | None]]
    header_logins: Mapping[str, HeaderLogin] = field(default_factory=dict)
    threads: ByteThreads = field(default_factory=ByteThreads)
    request_threads: RequestThreads = field(default_factory=RequestThreads)
    limits: RequestLimits = field(default_factory=RequestLimits)
    waiting: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(_MOST_WAITING))


async def get_services(request: Request) -> Services:  # async: a plain function would be called in another thread
    services: Services = request.app.state.services
    return services


Given = Annotated[Services, Depends(get_services)]
