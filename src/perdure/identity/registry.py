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
from perdure.identity.tables import (
    accounts,
    claim_rules,
    grants,
    group_members,
    groups,
    identities,
    organisations,
    service_accounts,
    terms,
)
from perdure.kernel.clock import format_time, parse_time

Rows = list[dict[str, object]]

_ORGANISATION = ("id", "name", "ror", "quota_bytes")
_IDENTITY = (
    "id", "organisation_id", "kind", "display_name", "orcid", "state", "is_administrator", "accepted_terms",
    "accepted_at", "merged_into", "ended_at", "ended_by",
)  # fmt: skip
# What an older registry or head says nothing of
_LATER: dict[str, dict[str, object]] = {
    "organisations": {"quota_bytes": None},
    "identities": dict.fromkeys(("accepted_terms", "accepted_at", "merged_into", "ended_at", "ended_by")),
    "accounts": {"quota_files": None},
}
_SERVICE = ("identity_id", "responsible_id", "purpose", "verbs", "archives", "addresses", "created_at")
_RULE = ("id", "group_id", "issuer", "entitlement", "starts_at", "ends_at")
_DATES: dict[str, object] = {"starts_at": None, "ends_at": None}  # what an older registry says nothing of
_GROUP = ("id", "organisation_id", "name")
_ACCOUNT = ("id", "organisation_id", "kind", "name", "owner_id", "quota_bytes", "allowed_profiles", "quota_files")


class Registry:
    """Rows as plain JSON-ready dicts, in one order; restoring the same rows again changes nothing."""

    def __init__(self, grants: Grants) -> None:
        self._grants = grants

    def export_registry(self, tx: Connection) -> dict[str, Rows]:
        """What all archives share, in the order in which the rows need each other.

        Groups come with members and rules, grants are those on organisations and accounts.
        """
        return {
            "organisations": _export(tx, organisations, _ORGANISATION),
            "identities": _export(tx, identities, _IDENTITY),
            "service_accounts": _export_services(tx),
            "terms": _export_terms(tx),
            "groups": [
                {**group, "members": _members(tx, group["id"]), "rules": _rules(tx, group["id"])}
                for group in _export(tx, groups, _GROUP)
            ],
            "accounts": _export(tx, accounts, _ACCOUNT),
            "grants": [
                grant
                for places in (organisations, accounts)
                for on_id in tx.execute(select(places.c.id).order_by(places.c.id)).scalars()
                for grant in self.export_grants(tx, on_id)
            ],
        }

    def export_grants(self, tx: Connection, on_id: UUID) -> Rows:
        """The grants on one archive or account, for the store that keeps it."""
        return [render_grant(grant) for grant in self._grants.list_grants_in(tx, on_id)]

    def export_standing(self, tx: Connection, *, archive_id: UUID, account_id: UUID) -> dict[str, Rows]:
        """What one archive stands on: its account and organisation, and whom the grants on them and on itself name.

        An archive that carries this comes back whatever else is lost. Groups come without members and people without
        names: the registry has them, which is written anew when somebody is erased, as no version of a head is.
        """
        account = _export(tx, accounts, _ACCOUNT, {str(account_id)})
        above = [UUID(str(row["organisation_id"])) for row in account]
        shared = [grant for place in (*above, account_id) for grant in self.export_grants(tx, place)]
        given = [*self.export_grants(tx, archive_id), *shared]
        people = {str(grant["identity_id"]) for grant in given} | {str(row["owner_id"]) for row in account}
        named = _export(tx, identities, _IDENTITY, people - {"None"})
        bands = _export(tx, groups, _GROUP, {str(grant["group_id"]) for grant in given} - {"None"})
        homes = {str(row["organisation_id"]) for row in (*account, *named, *bands)}
        return {
            "organisations": _export(tx, organisations, _ORGANISATION, homes),
            "identities": [{**row, "display_name": "", "orcid": None} for row in named],
            "groups": [{**group, "members": [], "rules": []} for group in bands],
            "accounts": [{**row, "name": ""} if row["kind"] == "personal" else row for row in account],
            "grants": shared,
        }

    def restore_standing(self, tx: Connection, standing: Mapping[str, Rows], *, is_registry_known: bool) -> None:
        """Load what `export_standing` gave; rows that are there already, from the registry, stay as they are.

        An archive says what was so when its head was written. Where the registry is known it gives back no role that
        was revoked since.
        """
        for table, name, columns in _STANDING:
            for row in standing[name]:
                values = _take({**_LATER.get(name, {}), **_with_pseudonym(table, row)}, columns)
                if table is not organisations and table is not identities:
                    values["name_folded"] = fold_name(str(values["name"]))
                tx.execute(insert(table).values(values).on_conflict_do_nothing())
        for row in () if is_registry_known else standing["grants"]:
            tx.execute(insert(grants).values(_grant(row)).on_conflict_do_nothing())

    def restore_strangers(self, tx: Connection, organisation_id: UUID, rows: Iterable[Mapping[str, object]]) -> int:
        """Make a disabled identity for each person whom these grants name and nobody knows; returns how many."""
        wanted = {UUID(str(row["identity_id"])) for row in rows if row["identity_id"] is not None}
        known = set(tx.execute(select(identities.c.id).where(identities.c.id.in_(wanted))).scalars())
        for stranger in sorted(wanted - known):
            values = {"id": stranger, "organisation_id": organisation_id, "kind": "person", "state": "disabled"}
            values |= {"display_name": f"unknown person {stranger}", "is_administrator": False}
            tx.execute(insert(identities).values(values))
        return len(wanted - known)

    def restore_registry(self, tx: Connection, registry: Mapping[str, Rows]) -> None:
        """Load all of `export_registry` in the order in which the rows need each other."""
        self.restore_organisations(tx, registry["organisations"])
        self.restore_identities(tx, registry["identities"])
        self.restore_services(tx, registry.get("service_accounts", ()))
        self.restore_terms(tx, registry.get("terms", ()))
        self.restore_groups(tx, registry["groups"])
        self.restore_accounts(tx, registry["accounts"])
        self.restore_grants(tx, registry["grants"])

    def restore_organisations(self, tx: Connection, rows: Iterable[Mapping[str, object]]) -> None:
        """Load organisations."""
        later = _LATER["organisations"]
        _restore(tx, organisations, (_take({**later, **row}, _ORGANISATION) for row in rows))

    def restore_identities(self, tx: Connection, rows: Iterable[Mapping[str, object]]) -> None:
        """Load identities; they have no login until `give_login` or a backup brings one."""
        later = _LATER["identities"]
        complete = [{**later, **row} for row in rows]
        complete.sort(key=lambda row: row["merged_into"] is not None)  # after whom they lead to
        _restore(tx, identities, (_take(row, _IDENTITY) for row in complete))

    def restore_services(self, tx: Connection, rows: Iterable[Mapping[str, object]]) -> None:
        """Load what service accounts may do and who answers for them; their tokens come from a backup, or are new."""
        _restore(tx, service_accounts, map(_service, rows))

    def restore_terms(self, tx: Connection, rows: Iterable[Mapping[str, object]]) -> None:
        """Load the versions of the terms of use."""
        _restore(tx, terms, ({**row, "published_at": _moment(row["published_at"])} for row in rows))

    def restore_groups(self, tx: Connection, rows: Iterable[Mapping[str, object]]) -> None:
        """Load groups, their members, and the rules that lead into them."""
        for row in rows:
            _restore(tx, groups, [{**_take(row, _GROUP), "name_folded": fold_name(str(row["name"]))}])
            members = cast(Rows, row["members"])  # as export_registry writes them
            group_id = UUID(str(row["id"]))
            _restore(tx, group_members, [{**_dated(member), "group_id": group_id} for member in members])
            _restore(tx, claim_rules, map(_dated, cast(Rows, row.get("rules", []))))

    def restore_accounts(self, tx: Connection, rows: Iterable[Mapping[str, object]]) -> None:
        """Load accounts."""
        for row in rows:
            values = _take({**_LATER["accounts"], **row}, _ACCOUNT)
            _restore(tx, accounts, [{**values, "name_folded": fold_name(str(row["name"]))}])

    def restore_grants(self, tx: Connection, rows: Iterable[Mapping[str, object]]) -> None:
        """Load grants, of archives too."""
        _restore(tx, grants, map(_grant, rows))


_STANDING = (
    (organisations, "organisations", _ORGANISATION),
    (identities, "identities", _IDENTITY),
    (groups, "groups", _GROUP),
    (accounts, "accounts", _ACCOUNT),
)


def _export(tx: Connection, table: Table, columns: tuple[str, ...], only: Iterable[str] | None = None) -> Rows:
    query = select(*(table.c[name] for name in columns)).order_by(table.c.id)
    if only is not None:
        query = query.where(table.c.id.in_([UUID(one) for one in only]))
    return [{name: _plain(value) for name, value in row.items()} for row in tx.execute(query).mappings()]


def _members(tx: Connection, group_id: object) -> Rows:
    columns = (group_members.c[name] for name in ("identity_id", "is_manager", "source", "issuer", *_DATES))
    query = select(*columns).where(group_members.c.group_id == UUID(str(group_id)))
    rows = tx.execute(query.order_by(group_members.c.identity_id)).mappings()
    return [{name: _plain(value) for name, value in row.items()} for row in rows]


def _rules(tx: Connection, group_id: object) -> Rows:
    columns = (claim_rules.c[name] for name in _RULE)
    query = select(*columns).where(claim_rules.c.group_id == UUID(str(group_id))).order_by(claim_rules.c.id)
    return [{name: _plain(value) for name, value in row.items()} for row in tx.execute(query).mappings()]


def _export_services(tx: Connection) -> Rows:
    query = select(*(service_accounts.c[name] for name in _SERVICE)).order_by(service_accounts.c.identity_id)
    return [
        {name: [str(one) for one in value] if isinstance(value, list) else _plain(value) for name, value in row.items()}
        for row in tx.execute(query).mappings()
    ]


def _service(row: Mapping[str, object]) -> dict[str, object]:
    archives = cast("list[str] | None", row["archives"])  # as `_export_services` writes them
    return {**_take(row, _SERVICE), "archives": None if archives is None else [UUID(one) for one in archives]}


def _export_terms(tx: Connection) -> Rows:
    rows = tx.execute(select(terms).order_by(terms.c.version)).mappings()
    return [{name: _plain(value) for name, value in row.items()} for row in rows]


def _restore(tx: Connection, table: Table, rows: Iterable[dict[str, object]]) -> None:
    keys = [column.name for column in table.primary_key]
    for row in rows:
        fresh = insert(table).values(row)
        changed = {name: fresh.excluded[name] for name in row if name not in keys}
        tx.execute(fresh.on_conflict_do_update(index_elements=keys, set_=changed))


def _take(row: Mapping[str, object], columns: tuple[str, ...]) -> dict[str, object]:
    values = _ids({name: row[name] for name in columns})
    return values | {name: _moment(values[name]) for name in columns if name.endswith("_at")}


def _grant(row: Mapping[str, object]) -> dict[str, object]:
    moments = {"granted_at": _moment(row["granted_at"]), "expires_at": _moment(row["expires_at"])}
    return {"named": None, "requires": [], "pass_on": None, **_ids(row), **moments}  # an older head has not all


def _dated(row: Mapping[str, object]) -> dict[str, object]:
    values = {**_DATES, **_ids(row)}
    return values | {name: _moment(values[name]) for name in _DATES}


def _ids(row: Mapping[str, object]) -> dict[str, object]:
    return {name: UUID(str(value)) if value is not None and _is_id(name) else value for name, value in row.items()}


def _with_pseudonym(table: Table, row: Mapping[str, object]) -> dict[str, object]:
    """What a head says of a person or his account names nobody."""
    field = "display_name" if table is identities else "name"
    return {**row, field: row[field] or f"unknown person {row['owner_id'] if table is accounts else row['id']}"}


def _is_id(name: str) -> bool:
    return name in ("id", "merged_into") or name.endswith(("_id", "_by"))


def _plain(value: object) -> object:
    return format_time(value) if isinstance(value, datetime) else str(value) if isinstance(value, UUID) else value


def _moment(value: object) -> datetime | None:
    return None if value is None else parse_time(str(value))
