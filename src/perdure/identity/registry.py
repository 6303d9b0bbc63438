"""The registry that the stores keep of this domain, and its way back after the database was lost (D2).

It holds no credential, session or token, and no e-mail address: those come from the database's backup.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import cast
from uuid import UUID

from sqlalchemy import Connection, Table, select
from sqlalchemy.dialects.postgresql import insert

from perdure.identity.grants import Grants, render_grant
from perdure.identity.model import fold_name
from perdure.identity.tables import accounts, grants, group_members, groups, identities, organisations
from perdure.kernel.clock import parse_time

Rows = list[dict[str, object]]

_ORGANISATION = ("id", "name", "ror")
_IDENTITY = ("id", "organisation_id", "kind", "display_name", "orcid", "state", "is_administrator")
_GROUP = ("id", "organisation_id", "name")
_ACCOUNT = ("id", "organisation_id", "kind", "name", "owner_id", "quota_bytes", "allowed_profiles")


class Registry:
    """Rows as plain JSON-ready dicts, in one order; restoring the same rows again changes nothing."""

    def __init__(self, grants: Grants) -> None:
        self._grants = grants

    def export_registry(self, tx: Connection) -> dict[str, Rows]:
        """Organisations, identities, groups with members, accounts and the grants on them; in one order."""
        return {
            "organisations": _export(tx, organisations, _ORGANISATION),
            "identities": _export(tx, identities, _IDENTITY),
            "groups": [{**group, "members": _members(tx, group["id"])} for group in _export(tx, groups, _GROUP)],
            "accounts": _export(tx, accounts, _ACCOUNT),
            "grants": [
                grant
                for on_id in tx.execute(select(accounts.c.id).order_by(accounts.c.id)).scalars()
                for grant in self.export_grants(tx, on_id)
            ],
        }

    def export_grants(self, tx: Connection, on_id: UUID) -> Rows:
        """The grants on one archive or account, for the store that keeps it."""
        return [render_grant(grant) for grant in self._grants.list_grants_in(tx, on_id)]

    def restore_registry(self, tx: Connection, registry: Mapping[str, Rows]) -> None:
        """Load all of `export_registry` in the order in which the rows need each other."""
        self.restore_organisations(tx, registry["organisations"])
        self.restore_identities(tx, registry["identities"])
        self.restore_groups(tx, registry["groups"])
        self.restore_accounts(tx, registry["accounts"])
        self.restore_grants(tx, registry["grants"])

    def restore_organisations(self, tx: Connection, rows: Iterable[Mapping[str, object]]) -> None:
        """Load organisations."""
        _restore(tx, organisations, (_take(row, _ORGANISATION) for row in rows))

    def restore_identities(self, tx: Connection, rows: Iterable[Mapping[str, object]]) -> None:
        """Load identities; they have no login until `give_login` or a backup brings one."""
        _restore(tx, identities, (_take(row, _IDENTITY) for row in rows))

    def restore_groups(self, tx: Connection, rows: Iterable[Mapping[str, object]]) -> None:
        """Load groups and their members."""
        for row in rows:
            _restore(tx, groups, [{**_take(row, _GROUP), "name_folded": fold_name(str(row["name"]))}])
            members = cast(Rows, row["members"])  # as export_registry writes them
            _restore(tx, group_members, [{**_ids(member), "group_id": UUID(str(row["id"]))} for member in members])

    def restore_accounts(self, tx: Connection, rows: Iterable[Mapping[str, object]]) -> None:
        """Load accounts."""
        _restore(tx, accounts, ({**_take(row, _ACCOUNT), "name_folded": fold_name(str(row["name"]))} for row in rows))

    def restore_grants(self, tx: Connection, rows: Iterable[Mapping[str, object]]) -> None:
        """Load grants, of archives too."""
        _restore(
            tx,
            grants,
            (
                {**_ids(row), "granted_at": _moment(row["granted_at"]), "expires_at": _moment(row["expires_at"])}
                for row in rows
            ),
        )


def _export(tx: Connection, table: Table, columns: tuple[str, ...]) -> Rows:
    query = select(*(table.c[name] for name in columns)).order_by(table.c.id)
    return [{name: _plain(value) for name, value in row.items()} for row in tx.execute(query).mappings()]


def _members(tx: Connection, group_id: object) -> Rows:
    query = select(group_members.c.identity_id, group_members.c.is_manager).where(
        group_members.c.group_id == UUID(str(group_id))
    )
    rows = tx.execute(query.order_by(group_members.c.identity_id)).mappings()
    return [{name: _plain(value) for name, value in row.items()} for row in rows]


def _restore(tx: Connection, table: Table, rows: Iterable[dict[str, object]]) -> None:
    keys = [column.name for column in table.primary_key]
    for row in rows:
        fresh = insert(table).values(row)
        changed = {name: fresh.excluded[name] for name in row if name not in keys}
        tx.execute(fresh.on_conflict_do_update(index_elements=keys, set_=changed))


def _take(row: Mapping[str, object], columns: tuple[str, ...]) -> dict[str, object]:
    return _ids({name: row[name] for name in columns})


def _ids(row: Mapping[str, object]) -> dict[str, object]:
    return {
        name: UUID(str(value)) if value is not None and (name == "id" or name.endswith(("_id", "_by"))) else value
        for name, value in row.items()
    }


def _plain(value: object) -> object:
    return str(value) if isinstance(value, UUID) else value


def _moment(value: object) -> datetime | None:
    return None if value is None else parse_time(str(value))
