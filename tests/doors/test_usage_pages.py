"""What accounts use, requests for other quotas and reports, on pages."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

import httpx
import pytest

from perdure.archives.reporting import Line, Use, count_usage
from perdure.doors.ui.usage import _digest_lines
from perdure.testing.app import RunningApplication

from .browsing import Browser, browsing, find_hidden, read_text
from .callers import CITABLE, Caller

OWN = {"sec-fetch-site": "same-origin"}


@pytest.fixture(scope="module")
def boss(running: RunningApplication) -> Iterator[Browser]:
    """An administrator."""
    with browsing(running, "usage-boss", is_administrator=True) as browser:
        yield browser


@pytest.fixture(scope="module")
def user(running: RunningApplication) -> Iterator[Browser]:
    with browsing(running, "usage-user", quota_bytes=4_000_000) as browser:
        yield browser


def account_of(user: Browser) -> str:
    (one,) = user.get("/api/v1/accounts").json()["items"]
    return str(one["id"])


def test_more_is_asked_for_and_given_or_not(user: Browser, boss: Browser) -> None:
    account = account_of(user)
    assert "of 4.00 MB" in user.read("/usage")
    wrong = user.send_form("/usage/ask", account_id=account, size="much", size_unit="TB", status=422)
    assert "A size is a number" in read_text(wrong)
    assert 'value="much"' in wrong.text
    for odd in ("-1", "nan", "1e30", "Infinity"):
        user.send_form("/usage/ask", account_id=account, size=odd, size_unit="TB", status=422)
    user.send_form("/usage/ask", account_id=account, size="2.5", size_unit="TB", reason="Tomography <i>")
    assert "2.50 TB asked for" in (text := user.read("/usage"))
    assert "waits" in text
    assert "Asked for" not in text  # the list of those who decide
    page = boss.get("/usage")
    assert "Usage-User asks for 2.50 TB" in read_text(page)
    assert "Tomography &lt;i&gt;" in page.text
    (asked,) = [
        one
        for one in find_hidden(page, "request_id")
        if one == user.get(f"/api/v1/accounts/{account}/quota-requests").json()["items"][0]["id"]
    ]
    user.send_form("/usage/decide", request_id=asked, answer="approve", status=403)
    assert "Say why not" in read_text(boss.send_form("/usage/decide", request_id=asked, answer="refuse", status=422))
    boss.send_form("/usage/decide", request_id=asked, answer="refuse", note="Next year.")
    assert "refused. Next year." in user.read("/usage")
    user.send_form("/usage/ask", account_id=account, size="3", size_unit="GB")
    (again,) = [one for one in find_hidden(boss.get("/usage"), "request_id") if one != asked]
    boss.send_form("/usage/decide", request_id=again, answer="approve", size="5", size_unit="MB")
    assert "of 5.00 MB" in (text := user.read("/usage"))
    assert "5.00 MB given" in text
    gone = boss.send_form("/usage/decide", request_id=again, answer="approve", status=409)
    assert "approved already" in read_text(gone)


@pytest.fixture(scope="module")
def half(running: RunningApplication, user: Browser) -> int:
    """Bytes that the account of the user holds: half of its quota."""
    limit = int(user.get(f"/api/v1/accounts/{account_of(user)}/usage").json()["quota_bytes"])
    archive = user.post("/api/v1/archives", json=CITABLE, headers=OWN).json()["id"]
    token = user.post("/api/v1/tokens", json={"name": "t", "verbs": ["write"]}, headers=OWN).json()["secret"]
    place = f"{running.data_url}/api/v1/archives/{archive}/files/half"
    answer = httpx.put(place, content=b"x" * (limit // 2), headers={"authorization": f"Bearer {token}"}, timeout=60)
    assert answer.status_code == 201, answer.text
    return limit // 2


def test_bars_show_what_is_used_of_the_quota(user: Browser, half: int) -> None:
    page = user.get("/usage")
    limit = int(user.get(f"/api/v1/accounts/{account_of(user)}/usage").json()["quota_bytes"])
    percent = round(100 * half / limit, 1)
    assert f'aria-label="{percent} % of the quota is used"' in page.text
    assert f'width="{percent}"' in page.text


def test_a_report_is_for_those_who_manage(
    running: RunningApplication, user: Browser, half: int, boss: Browser, nobody: Caller
) -> None:
    assert half > 0
    assert user.get("/usage/report").status_code == 403
    assert "Report of what is used" not in user.read("/usage")
    assert nobody.get(f"{running.url}/usage").headers["location"] == "/login?return_to=%2Fusage"
    assert "Report of what is used" in boss.read("/usage")
    page = boss.get("/usage/report")
    assert "usage-user" in read_text(page)
    assert "Together" in read_text(page)
    assert 'aria-label="100.0 % of the largest"' in page.text
    csv = boss.get("/api/v1/reports/usage?by=account&format=csv")
    assert 'href="/api/v1/reports/usage?by=account&amp;format=csv"' in page.text
    assert csv.headers["content-type"].startswith("text/csv")
    count_usage(running.application.context)
    past = boss.read("/usage/report?by=kind&from=2020-01-01&to=2199-12-31", status=422)
    assert "at most 3660" in past
    today = running.application.clock.now().date()
    past = boss.read(f"/usage/report?by=kind&from={today}")
    assert f"On {today}" in past
    assert "personal" in past
    assert "Nothing was counted" in boss.read("/usage/report?from=2020-01-01&to=2020-01-02")
    for odd in ("by=king", "from=soon"):
        assert boss.get(f"/usage/report?{odd}").status_code == 422


def test_the_largest_lines_of_the_last_day_are_shown() -> None:
    first, second = date(2026, 1, 1), date(2026, 1, 2)
    lines = [Line(first, Use(bytes=number)) for number in range(500)]
    lines += [Line(first, Use(bytes=7), is_total=True)]
    totals, largest, count = _digest_lines(lines)
    assert ([one.use.bytes for one in largest], count) == (list(range(499, 299, -1)), 500)
    totals, largest, count = _digest_lines([*lines, Line(second, Use(), is_total=True)])
    assert ([one.day for one in totals], largest, count) == ([first, second], [], 0)
