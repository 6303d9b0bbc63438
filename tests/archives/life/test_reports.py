"""Reports of use agree with a count by hand, over time too, and tell each manager of his own organisation only."""

from __future__ import annotations

import random
from collections.abc import Iterable
from datetime import date, timedelta
from uuid import UUID

import pytest

from perdure.archives.errors import BadPeriodError
from perdure.archives.model import ArchiveState
from perdure.archives.opening import OpenRequest
from perdure.archives.reporting import By, Line, Reports, Use, count_usage
from perdure.identity import Account, Grantee, OrganisationThing, Role
from perdure.jobs.worker import run_pending
from perdure.kernel.actor import ANONYMOUS, SYSTEM, Actor
from perdure.kernel.errors import NotAllowedError
from perdure.storage.model import CopyState

from .house import CITABLE, PASSWORD, House

Numbers = tuple[int, int, int, int, int]


class Town:
    """Two organisations with people, a beamline, groups, and archives of random content."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.reports = Reports(house.ctx)
        identity, root = house.ctx.identity, house.administrator
        assert root.organisation_id is not None
        self.homes = {"here": root.organisation_id, "there": identity.create_organisation(root, "There").id}
        at_home = {"ada": "here", "bob": "here", "cy": "there", "boss": "here", "chief": "there"}
        self.people = {name: self._join(name, home) for name, home in at_home.items()}
        self.accounts = {name: identity.get_personal_account(actor) for name, actor in self.people.items()}
        for name, home in (("boss", "here"), ("chief", "there")):
            on = OrganisationThing(self.homes[home])
            identity.grant(root, on, Grantee(self.people[name].identity_id), Role.MANAGER)
        owner = self.people["cy"].identity_id
        assert owner is not None
        self.accounts["X05"] = identity.create_account(
            root, kind="beamline", name="X05", owner_id=owner, organisation_id=self.homes["there"]
        )
        self.accounts["root"] = identity.get_personal_account(root)
        self.groups: dict[str, tuple[UUID, set[str]]] = {}
        for name, manager, members in (("G", "ada", {"ada", "bob", "cy"}), ("H", "ada", {"ada"}), ("K", "cy", {"X05"})):
            group = identity.create_group(self.people[manager], name)
            for member in members:
                identity.grant(root, self.accounts[member].thing, Grantee(group_id=group.id), Role.READER)
            self.groups[name] = (group.id, members)
        # A role that has ended, and one on an archive only, make no account of the group's
        ended = house.clock.now() + timedelta(minutes=1)
        here = self.accounts["root"].thing
        identity.grant(root, here, Grantee(group_id=self.groups["H"][0]), Role.READER, expires_at=ended)
        house.clock.move(minutes=2)

    def _join(self, name: str, home: str) -> Actor:
        self.house.ctx.identity.create_local_account(
            self.house.administrator, login=name, password=PASSWORD, display_name=name, organisation_id=self.homes[home]
        )
        return self.house.ctx.identity.log_in(name, PASSWORD)[1]

    def work(self, seed: int) -> None:
        """Open, fill, close and withdraw some archives."""
        chance = random.Random(seed)
        for name, who in (("ada", "ada"), ("bob", "bob"), ("cy", "cy"), ("X05", "cy"), ("cy", "cy")):
            request = OpenRequest(account_id=self.accounts[name].id, profile="personal", description=CITABLE)
            archive = self.house.life.open_archive(self.people[who], request)
            if chance.random() < 0.8:
                sizes = [chance.randrange(1000) for _ in range(chance.randrange(1, 4))]
                self.house.fill(archive, {b"%d" % n: bytes(size) for n, size in enumerate(sizes)})
                if chance.random() < 0.7:
                    self.house.close(archive)
                    if chance.random() < 0.3:
                        self.house.life.request_withdrawal(self.people[who], archive.id, "Wrong sample.")
                        run_pending(self.house.ctx.jobs)

    def count(self, names: Iterable[str]) -> Numbers:
        """What these accounts hold, one archive and one file after the other."""
        ids = {self.accounts[name].id for name in names}
        total = [0, 0, 0, 0, 0]
        ctx = self.house.ctx
        view = self.house.life.list_archives(SYSTEM, limit=200)
        assert view.next_cursor is None
        for found in view.items:
            archive = found.archive
            if archive.account_id not in ids:
                continue
            with ctx.db.begin() as tx:
                stored = ctx.storage.objects_of(tx, archive.id)
                copies = ctx.storage.copies(tx, [one.object_id for one in stored])
            good = (CopyState.WRITTEN, CopyState.VERIFIED)
            total[4] += sum(
                one.byte_count * sum(copy.state in good for copy in copies[one.object_id]) for one in stored
            )
            if archive.state is ArchiveState.WITHDRAWN:
                continue
            total[0] += archive.byte_count
            total[1] += archive.file_count
            total[2] += archive.state is ArchiveState.OPEN
            total[3] += archive.state is ArchiveState.CLOSED
        return (total[0], total[1], total[2], total[3], total[4])

    def expected(self, by: By, home: str | None) -> tuple[dict[str, Numbers], Numbers]:
        """The lines by name and their total, as the manager of one organisation or everybody's gets them."""
        seen = [name for name in self.accounts if home in (None, self._home(self.accounts[name]))]
        lines: dict[str, list[str]] = {}
        for name in seen:
            account = self.accounts[name]
            if by is By.ACCOUNT or (by is By.BEAMLINE and account.kind == "beamline"):
                lines[account.name] = [name]
            elif by is By.KIND:
                lines.setdefault(account.kind, []).append(name)
            elif by is By.ORGANISATION:
                lines.setdefault(self._home(account), []).append(name)
        if by is By.GROUP:
            for group, (_, members) in self.groups.items():
                group_home = "there" if group == "K" else "here"
                if home in (None, group_home) and members & set(seen):
                    lines[group] = sorted(members & set(seen))
        counted = set().union(*lines.values()) if lines else set()
        return {name: self.count(names) for name, names in lines.items()}, self.count(counted)

    def _home(self, account: Account) -> str:
        return next(name for name, home in self.homes.items() if home == account.organisation_id)


@pytest.fixture
def town(house: House) -> Town:
    made = Town(house)
    made.work(seed=1)
    return made


def numbers(use: Use) -> Numbers:
    return use.bytes, use.files, use.archives_open, use.archives_closed, use.copy_bytes


def split(lines: Iterable[Line], town: Town) -> dict[date, tuple[dict[str, Numbers], Numbers]]:
    """The lines by day and name, with each day's total."""
    found: dict[date, tuple[dict[str, Numbers], Numbers]] = {}
    shown: dict[str, Numbers] = {}
    called = {"Local organisation": "here", "There": "there"}
    for line in lines:
        if line.is_total:
            found[line.day] = shown, numbers(line.use)
            shown = {}
        else:
            name = called.get(line.name, line.name)
            assert name not in shown
            shown[name] = numbers(line.use)
    assert shown == {}, "a day ends with its total"
    return found


def some(lines: dict[str, Numbers]) -> dict[str, Numbers]:
    """Without those that hold nothing, which have no line on past days."""
    return {name: one for name, one in lines.items() if any(one)}


@pytest.mark.parametrize("by", By)
def test_a_report_is_what_counting_by_hand_gives(town: Town, by: By) -> None:
    today = town.house.clock.now().date()
    for name, home in (("boss", "here"), ("chief", "there"), ("root", None)):
        actor = town.house.administrator if name == "root" else town.people[name]
        found = split(town.reports.report_usage(actor, by), town)
        assert found == {today: town.expected(by, home)}
        assert any(found[today][1]) or (by is By.BEAMLINE and home == "here")


def test_growth_is_kept_day_by_day(town: Town) -> None:
    first = town.house.clock.now().date()
    known: dict[date, dict[By, tuple[dict[str, Numbers], Numbers]]] = {}
    for number in range(3):
        if number:
            town.house.clock.move(days=1)
            town.work(seed=10 + number)
        for _ in range(2):
            count_usage(town.house.ctx)
        known[first + timedelta(days=number)] = {by: town.expected(by, "there") for by in By}
    town.work(seed=20)  # after the last count
    for by in By:
        found = split(town.reports.report_usage(town.people["chief"], by, first=first), town)
        assert list(found) == sorted(known)
        for day, (lines, total) in found.items():
            assert (some(lines), total) == (some(known[day][by][0]), known[day][by][1])
    yesterday = first + timedelta(days=1)
    assert list(split(town.reports.report_usage(SYSTEM, By.KIND, last=yesterday), town)) == [yesterday]
    assert list(town.reports.report_usage(SYSTEM, By.KIND, last=first - timedelta(days=1))) == []


def test_the_last_count_of_a_day_stands(town: Town) -> None:
    count_usage(town.house.ctx)
    town.house.clock.move(hours=3)
    town.work(seed=5)
    count_usage(town.house.ctx)
    today = town.house.clock.now().date()
    found = split(town.reports.report_usage(SYSTEM, By.ACCOUNT, last=today), town)
    lines, total = town.expected(By.ACCOUNT, None)
    assert (some(found[today][0]), found[today][1]) == (some(lines), total)


def test_pages_of_accounts_are_joined(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = list(town.reports.report_usage(SYSTEM, By.ACCOUNT))
    monkeypatch.setattr("perdure.archives.reporting._ACCOUNTS_AT_ONCE", 2)
    assert list(town.reports.report_usage(SYSTEM, By.ACCOUNT)) == whole


def test_strangers_get_no_report(town: Town) -> None:
    for actor in (town.people["ada"], ANONYMOUS):
        for by in By:
            with pytest.raises(NotAllowedError):
                town.reports.report_usage(actor, by)


def test_days_make_a_period(town: Town) -> None:
    today = town.house.clock.now().date()
    for first, last in ((today, today - timedelta(days=1)), (today - timedelta(days=4000), today)):
        with pytest.raises(BadPeriodError):
            town.reports.report_usage(SYSTEM, By.KIND, first=first, last=last)
