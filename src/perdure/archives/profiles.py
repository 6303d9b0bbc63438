"""Profiles: the contracts that accounts choose from."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import Connection, func, select
from sqlalchemy.dialects.postgresql import insert

from perdure.archives import events
from perdure.archives.documents import parse_profile, profile_document
from perdure.archives.errors import ProfileNotFoundError, ProfileNotOfferedError
from perdure.archives.model import Profile
from perdure.archives.records import Context
from perdure.archives.rules import check_profile
from perdure.archives.tables import profiles
from perdure.identity.model import Account, Action, InstanceThing
from perdure.kernel.actor import Actor

_GB, _TB = 10**9, 10**12

SHIPPED = (
    Profile(
        name="personal",
        label="A thesis or publication: up to 100 GB an archive, kept ten years",
        lifetime_default_days=3653,
        lifetime_max_days=3653,
        archive_max_bytes=100 * _GB,
        archive_max_files=100_000,
        total_max_bytes=5 * _TB,
        copies=2,
    ),
    Profile(
        name="beamline",
        label="An experiment: up to 10 TB an archive, kept ten years and at most thirty",
        lifetime_default_days=3653,
        lifetime_max_days=10958,
        archive_max_bytes=10 * _TB,
        archive_max_files=1_000_000,
        total_max_bytes=1000 * _TB,
        copies=2,
        withdraw_approvals=2,
    ),
    Profile(
        name="facility",
        label="A data acquisition run: up to 1 PB an archive, kept ten years and at most thirty",
        lifetime_default_days=3653,
        lifetime_max_days=10958,
        archive_max_bytes=1000 * _TB,
        archive_max_files=None,
        total_max_bytes=None,
        copies=2,
        digests=("sha256",),
        withdraw_approvals=2,
    ),
)


class Profiles:
    """What profiles there are, and which an account may choose."""

    def __init__(self, context: Context) -> None:
        self._ctx = context

    def list_profiles(self, actor: Actor, account_id: UUID | None = None) -> list[Profile]:
        """The offered profiles in their order; with an account, those that it may choose."""
        with self._ctx.db.begin() as tx:
            account = self._find_account(tx, actor, account_id)
            return [profile for profile in list_offered(tx) if account is None or may_choose(account, profile.name)]

    def get(self, actor: Actor, name: str) -> Profile:
        """One profile; raises ProfileNotFoundError. Everybody may read what the contracts say."""
        with self._ctx.db.begin() as tx:
            return get_profile(tx, name)

    def define_profile(self, actor: Actor, profile: Profile, *, offered: bool = True) -> Profile:
        """Make a profile, or change what archives opened later get; for administrators. Open ones keep theirs."""
        with self._ctx.db.begin() as tx:
            self._ctx.identity.require(tx, actor, Action.ADMINISTER, InstanceThing())
            save_profile(tx, check_profile(profile), offered=offered)
            self._ctx.events.record(
                tx, events.PROFILE_DEFINED, None, actor, {"profile": profile.name, "offered": offered}
            )
        return profile

    def _find_account(self, tx: Connection, actor: Actor, account_id: UUID | None) -> Account | None:
        if account_id is None:
            return None
        account = self._ctx.identity.get_account_in(tx, account_id)
        self._ctx.identity.require(tx, actor, Action.READ_ACCOUNT, account.thing)
        return account


def seed_shipped(tx: Connection) -> None:
    """Put the three shipped profiles into an instance that does not have them; what an operator changed stays."""
    for ordinal, profile in enumerate(SHIPPED, start=1):
        row = {"name": profile.name, "contract": profile_document(check_profile(profile)), "ordinal": ordinal}
        tx.execute(insert(profiles).values(row).on_conflict_do_nothing())


def save_profile(tx: Connection, profile: Profile, *, offered: bool) -> None:
    """Write a profile; a new one comes last in the list."""
    last = select(func.coalesce(func.max(profiles.c.ordinal), 0) + 1).scalar_subquery()
    row = {"name": profile.name, "contract": profile_document(profile), "offered": offered}
    statement = insert(profiles).values(**row, ordinal=last)
    changes = {"contract": row["contract"], "offered": offered}
    tx.execute(statement.on_conflict_do_update(index_elements=["name"], set_=changes))


def get_profile(tx: Connection, name: str) -> Profile:
    """One profile, offered or not; raises ProfileNotFoundError."""
    contract = tx.execute(select(profiles.c.contract).where(profiles.c.name == name)).scalar_one_or_none()
    if contract is None:
        raise ProfileNotFoundError(f"There is no profile {name[:100]!r}.")
    return parse_profile(contract)


def list_offered(tx: Connection) -> list[Profile]:
    """The profiles that are offered, in their order."""
    query = select(profiles.c.contract).where(profiles.c.offered).order_by(profiles.c.ordinal, profiles.c.name)
    return [parse_profile(contract) for contract in tx.execute(query).scalars()]


def choose_profile(tx: Connection, account: Account, name: str | None) -> Profile:
    """The named profile, or the first that the account may choose; raises ProfileNotOfferedError."""
    choices = [profile for profile in list_offered(tx) if may_choose(account, profile.name)]
    for profile in choices:
        if name in (None, profile.name):
            return profile
    if name is not None:
        get_profile(tx, name)
    names = [profile.name for profile in choices]
    raise ProfileNotOfferedError(f"The account {account.name} may choose: {', '.join(names) or 'none'}.", choices=names)


def may_choose(account: Account, name: str) -> bool:
    """Whether the account's own list, if it has one, names the profile."""
    return account.allowed_profiles is None or name in account.allowed_profiles
