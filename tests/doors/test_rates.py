"""Who sends too much is told so and how long to wait, whatever he sends; others do not notice."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from perdure.doors.http.limiting import Quota, RequestLimits, address_key
from perdure.testing.app import RunningApplication, start_application

from .callers import Caller, Problem

_MOST = 10


class Clock:
    """Tells the seconds that it was set to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def _take(quota: Quota, count: int, key: str = "a") -> int:
    """How many of so many requests are let through."""
    return sum(not quota.take(key).wait for _ in range(count))


@pytest.mark.parametrize("per_minute", [1, 7, 60, 30_000])
def test_a_quota_is_used_at_once_and_comes_back_evenly(per_minute: int) -> None:
    clock = Clock()
    quota = Quota("address", per_minute, clock=clock)
    assert _take(quota, per_minute + 5) == per_minute
    standing = quota.take("a")
    assert standing.wait == pytest.approx(60 / per_minute)
    clock.now += standing.wait
    assert _take(quota, 5) == 1
    clock.now += 61
    assert _take(quota, per_minute + 5) == per_minute


def test_refused_requests_do_not_make_the_wait_longer() -> None:
    clock = Clock()
    quota = Quota("address", 6, clock=clock)
    _take(quota, 1000)
    clock.now += 10
    assert _take(quota, 5) == 1


def test_each_key_has_its_own_quota_and_the_oldest_is_forgotten() -> None:
    quota = Quota("address", 2, clock=Clock(), most_keys=3)
    for key in "abc":
        assert _take(quota, 3, key) == 2
    assert _take(quota, 1, "a") == 0  # was seen now
    assert _take(quota, 1, "d") == 1
    assert len(quota) == 3
    assert (_take(quota, 1, "a"), _take(quota, 1, "b")) == (0, 1)


def test_threads_together_take_no_more_than_one() -> None:
    quota, taken = Quota("identity", 500, clock=Clock()), []
    threads = [threading.Thread(target=lambda: taken.append(_take(quota, 200))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(taken) == 500


def test_what_is_left_is_told_in_the_words_of_the_draft() -> None:
    clock = Clock()
    quota = Quota("identity", 60, clock=clock)
    headers = dict(quota.take("a").headers())
    assert headers == {b"ratelimit-policy": b'"identity";q=60;w=60', b"ratelimit": b'"identity";r=59;t=1'}
    _take(quota, 100)
    assert dict(quota.take("a").headers())[b"ratelimit"] == b'"identity";r=0;t=60'


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("no:address", "no:address"),
        ("x" * 5000, "x" * 64),
        (None, ""),
    ],
)
def test_an_address_counts_as_whoever_has_it(address: str | None, key: str) -> None:
    assert address_key({"client": (address, 1) if address is not None else None}) == key


def test_nothing_is_counted_without_a_limit() -> None:
    assert RequestLimits.of(address=0, identity=0, attempts=0) == RequestLimits()


@pytest.fixture(scope="module")
def narrow(postgres: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApplication]:
    """An application that lets few requests through, and believes what a proxy here says of addresses."""
    url = postgres.make_ready()
    narrow: dict[str, Any] = {"rate_limit_identity": _MOST, "rate_limit_address": 3 * _MOST, "rate_limit_attempts": 4}
    proxies = ["127.0.0.1"]
    folder: Path = tmp_path_factory.mktemp("narrow")
    with start_application(folder, database_url=url, worker=False, trusted_proxies=proxies, **narrow) as started:
        yield started
    postgres.drop(url)


def _from(address: str) -> dict[str, str]:
    return {"x-forwarded-for": address}


def test_an_identity_has_one_quota_for_all_its_tokens_and_addresses(
    narrow: RunningApplication, problem: Problem
) -> None:
    person, other = narrow.person("ivy"), narrow.person("jon")
    with Caller(narrow, person) as ivy, Caller(narrow, other) as jon:
        second = ivy.post("/tokens", json={"name": "second", "verbs": ["read"]}, headers=_from("192.0.2.1")).json()
        for number in range(_MOST - 1):
            answer = ivy.get("/me", headers=_from(f"192.0.2.{number}"))
            assert answer.status_code == 200
            assert answer.headers["ratelimit-policy"] == f'"identity";q={_MOST};w=60'
            assert answer.headers["ratelimit"].startswith(f'"identity";r={_MOST - 2 - number};t=')
        token = {"authorization": f"Bearer {second['secret']}"}
        refused = ivy.get("/me", headers={**_from("192.0.2.99"), **token})
        told = problem(refused, 429, "rate_exceeded")
        assert (told["limit"], told["per_minute"], told["kind"]) == ("identity", _MOST, "try again")
        assert refused.headers["retry-after"] == str(told["retry_after"])
        assert 1 <= told["retry_after"] <= 60 / _MOST
        assert refused.headers["ratelimit"] == '"identity";r=0;t=60'
        assert "ivy" not in refused.text
        assert jon.get("/me", headers=_from("192.0.2.99")).status_code == 200


def test_a_body_that_is_looked_at_beforehand_counts_once(narrow: RunningApplication) -> None:
    with Caller(narrow, narrow.person("kim")) as kim:
        large = {"title": "x" * 2_000_000}
        left = []
        for _ in range(2):
            answer = kim.post("/archives", json=large, headers=_from("198.51.100.9"))
            assert answer.status_code == 422
            left.append(answer.headers["ratelimit"].partition(";t=")[0])
        assert left == ['"identity";r=9', '"identity";r=8']


def test_uploads_and_downloads_count_as_one_request_each(narrow: RunningApplication, problem: Problem) -> None:
    with Caller(narrow, narrow.person("lea")) as lea:
        archive = lea.post("/archives", json={"title": "A"}, headers=_from("198.51.100.10")).json()["id"]
        for _ in range(_MOST // 2):
            assert lea.put_file(archive, "a", b"a" * 3_000_000, **_from("198.51.100.10")).status_code in (201, 200)
            assert lea.get_file(archive, "a", **_from("198.51.100.10")).status_code == 200
        problem(lea.get_file(archive, "a", **_from("198.51.100.10")), 429, "rate_exceeded")
        problem(lea.put_file(archive, "b", b"b", **_from("198.51.100.10")), 429, "rate_exceeded")


def test_an_address_has_a_quota_for_all_who_call_from_it_and_probes_are_not_counted(
    narrow: RunningApplication, problem: Problem
) -> None:
    with Caller(narrow, None) as nobody:
        here = _from("203.0.113.5")
        bad = {**here, "authorization": "Bearer wrong"}
        statuses = [nobody.get("/keys", headers=bad if n % 2 else here).status_code for n in range(3 * _MOST)]
        assert set(statuses) == {200, 401}
        assert "content-security-policy" in nobody.get("/keys", headers=here).headers
        refused = nobody.get("/no/such/place", headers=here)
        assert problem(refused, 429, "rate_exceeded")["limit"] == "address"
        assert httpx.get(f"{narrow.url}/healthz", headers=here).status_code == 200
        assert httpx.get(f"{narrow.url}/", headers=here).status_code == 429
        assert nobody.get("/keys", headers=_from("203.0.113.6")).status_code == 200


def test_whoever_tries_passwords_has_few_turns_and_everything_else_goes_on(
    narrow: RunningApplication, problem: Problem
) -> None:
    with Caller(narrow, None) as nobody:
        here = _from("203.0.113.77")
        form = {"login": "nobody", "password": "plum tractor ninety sea"}
        for number in range(4):
            another = {**form, "login": f"nobody{number}"}
            problem(nobody.post("/login", json=another, headers=here), 401, "bad_credentials")
        refused = nobody.post("/login", json=form, headers=here)
        assert problem(refused, 429, "rate_exceeded")["limit"] == "attempts"
        assert 1 <= int(refused.headers["retry-after"]) <= 15
        assert nobody.get("/keys", headers=here).status_code == 200
        away = nobody.post("/login", json=form, headers=_from("203.0.113.78"))
        problem(away, 401, "bad_credentials")


def test_refused_requests_are_counted_by_limit(narrow: RunningApplication) -> None:
    with Caller(narrow, None) as nobody:
        for _ in range(3 * _MOST + 2):
            nobody.get("/keys", headers=_from("203.0.113.200"))
    found = {
        sample.labels["limit"]: sample.value
        for metric in narrow.application.meters.requests.collect()
        for sample in metric.samples
        if sample.name == "perdure_http_refused_requests_total"
    }
    assert set(found) == {"address", "identity", "attempts"}
    assert found["address"] >= 2
