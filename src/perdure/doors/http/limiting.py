"""How many requests one caller may send: by address, by identity, and far fewer where secrets are guessed.

Counted in the memory of each process, without a look at the database. The header fields are those of the IETF's
draft-ietf-httpapi-ratelimit-headers (revision 09).
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_network
from math import ceil
from uuid import UUID

from starlette.types import ASGIApp, Receive, Scope, Send

from perdure.doors.http.errors import RateExceededError
from perdure.doors.http.problems import problem_response
from perdure.kernel.actor import Actor

_WINDOW = 60.0  # seconds
_MOST_KEYS = 50_000  # some 15 MB
_LONGEST_KEY = 64
_STANDING = "archive.standing"
_IDENTITY_COUNTED = "archive.identity_counted"
_UNCOUNTED = frozenset({"/healthz", "/readyz"})  # whoever keeps the service running asks on and on


class Quota:
    """So many requests a minute for each key, all of them at once if the caller likes; safe to share between threads.

    A key is remembered as the moment at which it will have its whole quota again. Beyond `most_keys` the one that was
    seen longest ago is forgotten.
    """

    def __init__(
        self,
        name: str,
        per_minute: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        most_keys: int = _MOST_KEYS,
        on_refusal: Callable[[str], None] | None = None,
    ) -> None:
        self.name = name
        self.per_minute = per_minute
        self._step = _WINDOW / per_minute
        self._clock = clock
        self._most_keys = most_keys
        self._on_refusal = on_refusal
        self._lock = threading.Lock()
        self._whole_at: OrderedDict[object, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._whole_at)

    def take(self, key: object) -> Standing:
        """Count one request, unless the quota is used up: then `wait` is above 0."""
        with self._lock:
            now = self._clock()
            before = max(self._whole_at.get(key, now), now) - now
            after = before + self._step
            is_refused = after > _WINDOW + self._step / 2  # half a step: sums of fractions are not exact
            left = before if is_refused else after
            self._whole_at[key] = now + left
            self._whole_at.move_to_end(key)
            if len(self._whole_at) > self._most_keys:
                self._whole_at.popitem(last=False)
        if is_refused and self._on_refusal is not None:
            self._on_refusal(self.name)
        return Standing(self, left, after - _WINDOW if is_refused else 0.0)

    def look(self, key: object) -> Standing:
        """Where a caller stands, without counting anything."""
        with self._lock:
            now = self._clock()
            used = max(self._whole_at.get(key, now), now) - now
        return Standing(self, used, max(0.0, used + self._step / 2 - _WINDOW))

    def left_of(self, used: float) -> int:
        """Requests that may follow at once when it takes `used` seconds until the quota is whole again."""
        return max(0, int((_WINDOW - used) / self._step + 0.5))


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a caller stands: seconds until his quota is whole again, and those to wait before the next request."""

    quota: Quota
    whole_in: float
    wait: float

    def headers(self) -> list[tuple[bytes, bytes]]:
        """The quota and what is left of it."""
        quota = self.quota
        return [
            (b"ratelimit-policy", f'"{quota.name}";q={quota.per_minute};w={_WINDOW:.0f}'.encode()),
            (b"ratelimit", f'"{quota.name}";r={quota.left_of(self.whole_in)};t={ceil(self.whole_in)}'.encode()),
        ]

    def refusal(self) -> RateExceededError:
        """What a caller is told who has to wait."""
        seconds, most = max(1, ceil(self.wait)), self.quota.per_minute
        return RateExceededError(
            f"More than {most} requests a minute came from this {_WHOSE[self.quota.name]}; wait {seconds} seconds.",
            retry_after=seconds,
            limit=self.quota.name,
            per_minute=most,
        )


_WHOSE = {"address": "address", "identity": "identity", "attempts": "address with names, passwords or codes"}
LIMITS = tuple(_WHOSE)


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """The quotas of one process; None: no limit."""

    address: Quota | None = None
    identity: Quota | None = None
    attempts: Quota | None = None

    @classmethod
    def of(
        cls, *, address: int, identity: int, attempts: int, on_refusal: Callable[[str], None] | None = None
    ) -> RequestLimits:
        """Requests a minute of each; 0 is no limit."""
        given = {"address": address, "identity": identity, "attempts": attempts}
        return cls(**{name: Quota(name, most, on_refusal=on_refusal) for name, most in given.items() if most})

    def count_caller(self, scope: Scope, caller: Actor) -> None:
        """Count a request for whose it is, once; raises RateExceededError."""
        if self.identity is None or caller.identity_id is None or _IDENTITY_COUNTED in scope:
            return
        scope[_IDENTITY_COUNTED] = True
        _require(scope, self.identity, caller.identity_id)

    def count_attempt(self, scope: Scope) -> None:
        """Count a request that anybody may send to try a secret; raises RateExceededError."""
        if self.attempts is not None:
            _require(scope, self.attempts, address_key(scope))

    def require_attempts_left(self, scope: Scope) -> None:
        """Raise RateExceededError where `count_attempt` would, and count nothing."""
        if self.attempts is not None:
            standing = self.attempts.look(address_key(scope))
            if standing.wait:
                raise standing.refusal()


class AddressLimit:
    """Refuses requests from an address that sends too many, before anything else is done for them."""

    def __init__(self, app: ASGIApp, quota: Quota) -> None:
        self._app = app
        self._quota = quota

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in _UNCOUNTED:
            try:
                _require(scope, self._quota, address_key(scope))
            except RateExceededError as error:
                await problem_response(error, scope["archive.request_id"])(scope, receive, send)
                return
        await self._app(scope, receive, send)


def standing_headers(scope: Scope) -> list[tuple[bytes, bytes]]:
    """What the answer tells of the narrowest quota that was asked; nothing where there is none."""
    standing: Standing | None = scope.get(_STANDING)
    return [] if standing is None else standing.headers()


def address_key(scope: Scope) -> str:
    """The address that counts: of IPv6 the network that one subscriber has, in which he may choose any."""
    address: str = (scope.get("client") or ("",))[0]
    if ":" not in address:
        return address[:_LONGEST_KEY]  # with trusted proxies it is what one of them said
    try:
        parsed = IPv6Address(address)
    except ValueError:
        return address[:_LONGEST_KEY]
    return str(parsed.ipv4_mapped or ip_network((int(parsed), 64), strict=False))


def _require(scope: Scope, quota: Quota, key: str | UUID) -> None:
    standing = quota.take(key)
    scope[_STANDING] = standing
    if standing.wait:
        raise standing.refusal()
