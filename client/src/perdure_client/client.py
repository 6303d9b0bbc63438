"""The Python client: the verbs of the command `perdure`, typed."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, TextIO
from urllib.parse import quote

from perdure_client.errors import ApiError, JobFailedError, UsageError
from perdure_client.local import scan_sources
from perdure_client.paths import to_bytes, to_json, to_url
from perdure_client.progress import Progress
from perdure_client.records import Archive, Entry, GetReport, Job, Metadata, PutReport
from perdure_client.settings import Session, find_session
from perdure_client.transport import Transport

JobWatcher = Callable[[Job], None]
_MERGE_PATCH = "application/merge-patch+json"
_JSON_PATCH = "application/json-patch+json"


def connect(url: str | None = None, *, token: str | None = None, verify: bool | str = True) -> Client:
    """A client for the server at `url`; what is not given comes from the environment or from `perdure login`.

    `verify` False trusts any certificate, a text names a file of trusted ones.
    """
    return Client(find_session(url, token), verify=verify)


class Client:
    """One server and one identity there. Archives are named by their identifier, long or short.

    Safe to use from several threads; `with connect() as client:` closes the connections. Methods raise ApiError for
    the server's refusals and ConnectionLostError when it cannot be reached.
    """

    def __init__(self, session: Session, *, verify: bool | str = True) -> None:
        self.session = session
        self._transport = Transport(session, verify=verify)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close_connections()

    def close_connections(self) -> None:
        self._transport.close()

    # Who

    def information(self) -> dict[str, Any]:
        """Name, version, limits and addresses of the server."""
        return self._object(self._transport.json("GET", ""))

    def log_in(
        self,
        login: str,
        password: str,
        *,
        code: str | None = None,
        accept_terms: int | None = None,
        provider: str | None = None,
    ) -> dict[str, Any]:
        """Open a session with a local account; the answer holds the session's `secret`.

        `code` is that of the second factor, where there is one, `accept_terms` the version of the terms of use,
        `provider` a directory (one of the kind `ldap`) whose name and password these are.
        """
        given = {"login": login, "password": password, "code": code, "accept_terms": accept_terms, "provider": provider}
        body = _without_none(given)
        return self._object(self._transport.json("POST", "/login", json=body))

    def list_providers(self) -> list[dict[str, Any]]:
        """The ways to log in beside a local password."""
        return list(self._pages("/login/providers"))

    def begin_device_login(self, provider: str) -> dict[str, Any]:
        """Begin a login that is confirmed in a browser elsewhere: what to show, and the `ticket` to poll with."""
        return self._object(self._transport.json("POST", "/login/device", json={"provider": provider}))

    def poll_device_login(self, ticket: str) -> dict[str, Any] | None:
        """The session, once somebody has confirmed the login; None before."""
        answer = self._object(self._transport.json("POST", "/login/device/poll", json={"ticket": ticket}))
        return None if answer.get("state") == "pending" else answer

    def log_in_with_token(
        self, provider: str, subject_token: str, *, accept_terms: int | None = None
    ) -> dict[str, Any]:
        """A session for the JWT that a provider made for a machine."""
        body = {"provider": provider, "subject_token": subject_token, "accept_terms": accept_terms}
        return self._object(self._transport.json("POST", "/login/token", json=_without_none(body)))

    def log_in_with_ticket(self, ticket: str, *, accept_terms: int | None = None) -> dict[str, Any]:
        """Go on with a login that was interrupted, as to accept the terms of use."""
        body = _without_none({"ticket": ticket, "accept_terms": accept_terms})
        return self._object(self._transport.json("POST", "/login/ticket", json=body))

    def terms(self, version: int | None = None) -> dict[str, Any]:
        """The terms of use in force, or an earlier version."""
        return self._object(self._transport.json("GET", "/terms" if version is None else f"/terms/{version}"))

    def publish_terms(self, text: str) -> dict[str, Any]:
        return self._object(self._transport.json("POST", "/terms", json={"text": text}, headers=_once()))

    def apply(
        self,
        ticket: str,
        *,
        reason: str = "",
        display_name: str | None = None,
        organisation_id: str | None = None,
        accept_terms: int | None = None,
    ) -> dict[str, Any]:
        """Ask to be let in, with the ticket of a login that is not known yet."""
        wished = {"display_name": display_name, "organisation_id": organisation_id, "accept_terms": accept_terms}
        body = {"ticket": ticket, "reason": reason, **_without_none(wished)}
        return self._object(self._transport.json("POST", "/applications", json=body))

    def apply_with_password(self, login: str, password: str, display_name: str, **more: object) -> dict[str, Any]:
        """Ask for a local account. `more` takes email, reason, organisation_id, accept_terms."""
        body = {"login": login, "password": password, "display_name": display_name, **_without_none(more)}
        return self._object(self._transport.json("POST", "/applications/local", json=body))

    def list_applications(self, *, state: str | None = None) -> Iterator[dict[str, Any]]:
        """Who asks to be let in, for those who decide it."""
        return self._pages("/applications", state=state)

    def approve_application(
        self, application_id: str, *, organisation_id: str | None = None, quota_bytes: int | None = None
    ) -> dict[str, Any]:
        body = _without_none({"organisation_id": organisation_id, "quota_bytes": quota_bytes})
        return self._object(self._transport.json("POST", f"/applications/{application_id}/approve", json=body))

    def refuse_application(self, application_id: str, *, note: str = "") -> None:
        self._transport.request("POST", f"/applications/{application_id}/refuse", json={"note": note})

    def list_passkeys(self) -> list[dict[str, Any]]:
        """One's passkeys. They are made, and used, in a browser."""
        return list(self._pages("/me/passkeys"))

    def rename_passkey(self, passkey_id: str, name: str) -> dict[str, Any]:
        return self._object(self._transport.json("PATCH", f"/me/passkeys/{passkey_id}", json={"name": name}))

    def remove_passkey(self, passkey_id: str) -> None:
        """Take a passkey away; needs a session of the last minutes, not a token."""
        self._transport.request("DELETE", f"/me/passkeys/{passkey_id}")

    def list_logins(self) -> list[dict[str, Any]]:
        """The ways in which one logs in."""
        return list(self._pages("/me/logins"))

    def link_login(self, ticket: str) -> dict[str, Any]:
        """Link the login of a ticket to oneself; needs a session, not a token."""
        return self._object(self._transport.json("POST", "/me/logins", json={"ticket": ticket}))

    def unlink_login(self, login_id: str) -> None:
        self._transport.request("DELETE", f"/me/logins/{login_id}")

    def prove(self, *, password: str | None = None, code: str | None = None) -> dict[str, Any]:
        """Show once more that it is you, as the error `fresh_login_required` asks of a session."""
        return self._object(
            self._transport.json("POST", "/me/proof", json=_without_none({"password": password, "code": code}))
        )

    def merge_own(self, session: str, *, dry_run: bool = False) -> dict[str, Any]:
        """Let another identity of yourself, of which this is a session, end in you; with `dry_run` tell what would be.

        Both sessions have to be from this moment.
        """
        return self._object(self._transport.json("POST", "/me/merge", json={"session": session, "dry_run": dry_run}))

    def merge_identities(
        self, kept_id: str, gone_id: str, *, reason: str = "", dry_run: bool = False
    ) -> dict[str, Any]:
        """Let an identity end in another of the same person; for those who manage the organisations of both."""
        body = {"identity_id": gone_id, "reason": reason, "dry_run": dry_run}
        return self._object(self._transport.json("POST", f"/identities/{kept_id}/merge", json=body))

    def export_own(self) -> dict[str, Any]:
        """All that the server keeps of you, without any secret."""
        return self._object(self._transport.json("GET", "/me/export"))

    def erase_own(self, *, dry_run: bool = False) -> None:
        """Remove for ever what is personal of you; needs a session of this moment."""
        self._transport.json("POST", "/me/erase", json={"dry_run": dry_run})

    def erase_identity(self, identity_id: str, *, reason: str, dry_run: bool = False) -> None:
        """Remove for ever what is personal of somebody; for those who manage his organisation."""
        body = {"reason": reason, "dry_run": dry_run}
        self._transport.json("POST", f"/identities/{identity_id}/erase", json=body)

    def find_identity(self, login: str) -> dict[str, Any]:
        """Who has this login name."""
        return self.identity(self._find_person(login))

    def begin_second_factor(self) -> dict[str, Any]:
        """A fresh `key` for one's device, and its `address` for a picture; in force once it is confirmed."""
        return self._object(self._transport.json("POST", "/me/second-factor"))

    def confirm_second_factor(self, code: str) -> dict[str, Any]:
        """Put the key in force with a first code; the answer holds recovery `codes`, told this once only."""
        return self._object(self._transport.json("PUT", "/me/second-factor", json={"code": code}))

    def renew_recovery_codes(self, code: str) -> dict[str, Any]:
        return self._object(self._transport.json("POST", "/me/second-factor/recovery-codes", json={"code": code}))

    def remove_second_factor(self, code: str) -> None:
        self._transport.request("POST", "/me/second-factor/remove", json={"code": code})

    def log_out(self) -> dict[str, Any] | None:
        """End the session, or revoke the token, that this client acts with.

        Answers the `provider` where it began and the `url` at which a browser logs out there, where that is offered.
        """
        answer = self._transport.request("POST", "/logout")
        return None if answer.status_code == 204 else self._object(answer.json())

    def me(self) -> dict[str, Any]:
        """Who this client acts as."""
        return self._object(self._transport.json("GET", "/me"))

    def set_password(self, old_password: str, new_password: str, *, revoke_tokens: bool = False) -> None:
        """Replace one's password; needs a session, not a token, and ends all other sessions."""
        body = {"old_password": old_password, "new_password": new_password, "revoke_tokens": revoke_tokens}
        self._transport.request("PUT", "/me/password", json=body)

    def ask_for_reset(self, name: str) -> None:
        """Have a link for a new password sent to the confirmed address of a login name, or to that address."""
        self._transport.request("POST", "/password/forgotten", json={"name": name})

    def reset_password(self, key: str, password: str, *, revoke_tokens: bool = False) -> None:
        """Set a new password by the key of a mail."""
        body = {"key": key, "password": password, "revoke_tokens": revoke_tokens}
        self._transport.request("POST", "/password/reset", json=body)

    def address(self) -> dict[str, Any]:
        """One's own e-mail address."""
        return self._object(self._transport.json("GET", "/me/address"))

    def change_address(self, email: str) -> None:
        """Have a mail sent to a new address, which counts once it is confirmed; needs a session with a fresh proof."""
        self._transport.request("PUT", "/me/address", json={"email": email})

    def confirm_address(self, key: str) -> dict[str, Any]:
        """Let the address count that the mail with this key went to."""
        return self._object(self._transport.json("POST", "/address/confirm", json={"key": key}))

    # Invitations

    def invite(
        self,
        email: str,
        *,
        role: str | None = None,
        archive_id: str | None = None,
        account_id: str | None = None,
        organisation_id: str | None = None,
        role_until: str | None = None,
        requires: Iterable[str] = (),
        note: str = "",
    ) -> dict[str, Any]:
        """Invite an address: to a role on one thing, or without a role to a login of the organisation."""
        named = {"archive_id": archive_id, "account_id": account_id, "organisation_id": organisation_id}
        body = {"email": email, "role": role, "role_until": role_until, "note": note, **named}
        wanted = {**_without_none(body), "requires": list(requires)}
        return self._object(self._transport.json("POST", "/invitations", json=wanted, headers=_once()))

    def list_invitations(
        self,
        *,
        archive_id: str | None = None,
        account_id: str | None = None,
        organisation_id: str | None = None,
        state: str | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Invitations that one sent or may decide, or those on one thing; all, or those in one state."""
        return self._pages(
            "/invitations", archive_id=archive_id, account_id=account_id, organisation_id=organisation_id, state=state
        )

    def resend_invitation(self, invitation_id: str) -> dict[str, Any]:
        """Send a new mail; the one before it ends."""
        return self._object(self._transport.json("POST", f"/invitations/{invitation_id}/resend"))

    def revoke_invitation(self, invitation_id: str) -> None:
        self._transport.request("DELETE", f"/invitations/{invitation_id}")

    def look_at_invitation(self, key: str) -> dict[str, Any]:
        """What an invitation is about; `key` is the end of the address in the mail."""
        return self._object(self._transport.json("POST", "/invitations/look", json={"key": key}))

    def accept_invitation(self, key: str) -> dict[str, Any]:
        """Take the role as who this client acts as."""
        return self._object(self._transport.json("POST", "/invitations/accept", json={"key": key}))

    def join_by_invitation(
        self,
        key: str,
        *,
        login: str | None = None,
        password: str | None = None,
        display_name: str | None = None,
        ticket: str | None = None,
        accept_terms: int | None = None,
    ) -> dict[str, Any]:
        """Make a login by an invitation, take the role, and open a session; the answer holds its `secret`."""
        given = {
            "login": login,
            "password": password,
            "display_name": display_name,
            "ticket": ticket,
            "accept_terms": accept_terms,
        }
        body = {"key": key, **_without_none(given)}
        return self._object(self._transport.json("POST", "/invitations/join", json=body))

    def create_token(
        self,
        name: str,
        *,
        verbs: Sequence[str] | None = None,
        archives: Sequence[str] | None = None,
        expires_at: str | None = None,
        in_place_of_session: bool = False,
    ) -> dict[str, Any]:
        """A new API token; its `secret` is told this once only.

        One `in_place_of_session` ends where this session would, when its owner logs out at the provider where it began.
        """
        body: dict[str, object] = {"name": name, "verbs": verbs, "archives": archives, "expires_at": expires_at}
        body["in_place_of_session"] = in_place_of_session or None
        return self._object(self._transport.json("POST", "/tokens", json=_without_none(body), headers=_once()))

    def list_tokens(self) -> list[dict[str, Any]]:
        return list(self._pages("/tokens"))

    def revoke_token(self, token_id: str) -> None:
        self._transport.request("DELETE", f"/tokens/{token_id}")

    # Service accounts

    def list_services(self) -> Iterator[dict[str, Any]]:
        """The service accounts that one answers for, or whose organisation one manages."""
        return self._pages("/services")

    def service(self, service_id: str) -> dict[str, Any]:
        return self._object(self._transport.json("GET", f"/services/{service_id}"))

    def create_service(
        self, name: str, purpose: str, *, responsible: str | None = None, **limits: object
    ) -> dict[str, Any]:
        """Make a service account; `responsible` is a login name, oneself without it.

        `limits` takes verbs, archives, addresses, organisation_id and quota_bytes.
        """
        person = None if responsible is None else self._identity_of(responsible)
        body = _without_none({"name": name, "purpose": purpose, "responsible_id": person, **limits})
        return self._object(self._transport.json("POST", "/services", json=body, headers=_once()))

    def change_service(self, service_id: str, *, responsible: str | None = None, **changes: object) -> dict[str, Any]:
        """Change what is given; `responsible` is a login name.

        `changes` takes purpose, verbs, archives (None: all), addresses and is_active.
        """
        if responsible is not None:
            changes["responsible_id"] = self._identity_of(responsible)
        return self._object(self._transport.json("PATCH", f"/services/{service_id}", json=changes, repeatable=True))

    def list_service_reach(self, service_id: str) -> Iterator[dict[str, Any]]:
        """The archives that a service account reaches, with what it may do there at most."""
        return self._pages(f"/services/{service_id}/archives")

    def list_service_tokens(self, service_id: str) -> list[dict[str, Any]]:
        return list(self._pages(f"/services/{service_id}/tokens"))

    def create_service_token(self, service_id: str, name: str, **narrowed: object) -> dict[str, Any]:
        """A token for the machine; its `secret` is told this once only. `narrowed`: verbs, archives, expires_at."""
        body = _without_none({"name": name, **narrowed})
        return self._object(self._transport.json("POST", f"/services/{service_id}/tokens", json=body, headers=_once()))

    def rotate_service_token(
        self, service_id: str, token_id: str, *, grace_seconds: int | None = None, expires_at: str | None = None
    ) -> dict[str, Any]:
        """A token that takes over from another, which goes on for the time of grace; its `secret` is told this once."""
        body = _without_none({"grace_seconds": grace_seconds, "expires_at": expires_at})
        place = f"/services/{service_id}/tokens/{token_id}/rotate"
        return self._object(self._transport.json("POST", place, json=body, headers=_once()))

    def revoke_service_token(self, service_id: str, token_id: str) -> None:
        self._transport.request("DELETE", f"/services/{service_id}/tokens/{token_id}")

    def list_sessions(self) -> list[dict[str, Any]]:
        """Where one is logged in, the newest first."""
        return list(self._pages("/sessions"))

    def end_session(self, session_id: str) -> None:
        self._transport.request("DELETE", f"/sessions/{session_id}")

    def list_profiles(self) -> list[dict[str, Any]]:
        """The profiles that this identity may choose."""
        return list(self._pages("/profiles"))

    def get_profile(self, name: str) -> dict[str, Any]:
        """One profile, also one that is not on offer."""
        return self._object(self._transport.json("GET", f"/profiles/{quote(name, safe='')}"))

    def define_profile(self, profile: Mapping[str, Any]) -> dict[str, Any]:
        """Make a profile, or change what archives opened later get; for administrators. Fields as `get_profile` has."""
        return self._object(self._transport.json("POST", "/profiles", json=dict(profile), headers=_once()))

    # Accounts and groups

    def list_accounts(self) -> Iterator[dict[str, Any]]:
        """The accounts that this identity may see."""
        return self._pages("/accounts")

    def account(self, account_id: str) -> dict[str, Any]:
        return self._object(self._transport.json("GET", f"/accounts/{account_id}"))

    def account_usage(self, account_id: str) -> dict[str, Any]:
        """What the account uses of its quota."""
        return self._object(self._transport.json("GET", f"/accounts/{account_id}/usage"))

    def create_account(
        self,
        name: str,
        *,
        owner: str,
        kind: str = "group",
        quota_bytes: int | None = None,
        allowed_profiles: Sequence[str] | None = None,
        quota_files: int | None = None,
    ) -> dict[str, Any]:
        """Make an account that the person with the login `owner` owns; for administrators."""
        body = {
            "name": name,
            "kind": kind,
            "owner_id": self._find_person(owner),
            "quota_bytes": quota_bytes,
            "allowed_profiles": None if allowed_profiles is None else list(allowed_profiles),
            "quota_files": quota_files,
        }
        return self._object(self._transport.json("POST", "/accounts", json=_without_none(body), headers=_once()))

    def list_organisations(self) -> Iterator[dict[str, Any]]:
        """One's own organisation, and those on which one has a role."""
        return self._pages("/organisations")

    def create_organisation(self, name: str, *, ror: str | None = None) -> dict[str, Any]:
        """Make an organisation; for administrators."""
        body = _without_none({"name": name, "ror": ror})
        return self._object(self._transport.json("POST", "/organisations", json=body, headers=_once()))

    def set_organisation_quota(self, organisation_id: str, quota_bytes: int | None) -> dict[str, Any]:
        """Limit what all accounts of an organisation hold together (None: no limit); for administrators."""
        body = {"quota_bytes": quota_bytes}
        return self._object(self._transport.json("PATCH", f"/organisations/{organisation_id}", json=body))

    def organisation_usage(self, organisation_id: str) -> dict[str, Any]:
        """What all accounts of an organisation use of its quota; for those who manage it."""
        return self._object(self._transport.json("GET", f"/organisations/{organisation_id}/usage"))

    # Quotas

    def set_quota(self, account_id: str, **quota: int | None) -> dict[str, Any]:
        """Set `quota_bytes`, `quota_files` or both (None: no limit); for those who manage the organisation."""
        return self._object(self._transport.json("PATCH", f"/accounts/{account_id}", json=quota))

    def request_quota(self, account_id: str, asked_bytes: int, *, reason: str = "") -> dict[str, Any]:
        """Ask for another quota of an account."""
        body = {"asked_bytes": asked_bytes, "reason": reason}
        place = f"/accounts/{account_id}/quota-requests"
        return self._object(self._transport.json("POST", place, json=body, headers=_once()))

    def list_quota_requests(
        self, *, account_id: str | None = None, state: str | None = None
    ) -> Iterator[dict[str, Any]]:
        """The requests for an account, or without one those that this identity may decide, oldest first."""
        if account_id is None:
            return self._pages("/quota-requests", state=state)
        found = self._pages(f"/accounts/{account_id}/quota-requests")
        return (one for one in found if state in (None, one["state"]))

    def approve_quota(self, request_id: str, *, quota_bytes: int | None = None, note: str = "") -> dict[str, Any]:
        """Give what was asked for, or another quota."""
        body = _without_none({"quota_bytes": quota_bytes, "note": note})
        return self._object(self._transport.json("POST", f"/quota-requests/{request_id}/approve", json=body))

    def refuse_quota(self, request_id: str, *, note: str) -> dict[str, Any]:
        """Leave the quota as it is, and say why."""
        return self._object(self._transport.json("POST", f"/quota-requests/{request_id}/refuse", json={"note": note}))

    def report_usage(self, *, by: str = "account", first: str | None = None, last: str | None = None) -> dict[str, Any]:
        """What accounts, beamlines, groups, organisations or kinds of accounts use; for those who manage them.

        Without days it tells of this moment; days are as 2026-12-31. `items` are the lines, `totals` one for each day.
        """
        params = _without_none({"by": by, "from": first, "to": last, "format": "json"})
        return self._object(self._transport.json("GET", "/reports/usage", params=params))

    def report_usage_csv(
        self, to: BinaryIO, *, by: str = "account", first: str | None = None, last: str | None = None
    ) -> None:
        """The same as CSV, written as it comes."""
        params = _without_none({"by": by, "from": first, "to": last, "format": "csv"})
        with self._transport.stream("GET", "/reports/usage", params=params, plane="api") as answer:
            for block in answer.iter_bytes():
                to.write(block)

    def list_groups(self) -> list[dict[str, Any]]:
        return list(self._pages("/groups"))

    def create_group(self, name: str) -> dict[str, Any]:
        """Make a group, and manage it."""
        return self._object(self._transport.json("POST", "/groups", json={"name": name}, headers=_once()))

    def group(self, group_id: str) -> dict[str, Any]:
        """One group with its `memberships`."""
        return self._object(self._transport.json("GET", f"/groups/{group_id}"))

    def identity(self, identity_id: str) -> dict[str, Any]:
        """One person or service as others of the instance see it."""
        return self._object(self._transport.json("GET", f"/identities/{identity_id}"))

    def list_identities(self, *, text: str | None = None, state: str | None = None) -> Iterator[dict[str, Any]]:
        """The people and services of the organisations that one manages (administrators: all), by part of a name."""
        return self._pages("/identities", text=text, state=state)

    def list_logins_of(self, identity_id: str) -> list[dict[str, Any]]:
        """In what ways somebody logs in, and when each was last used; for those who manage his organisation."""
        return list(self._pages(f"/identities/{identity_id}/logins"))

    def add_member(
        self,
        group_id: str,
        login: str,
        *,
        is_manager: bool = False,
        starts_at: str | None = None,
        ends_at: str | None = None,
    ) -> dict[str, Any]:
        """Take somebody into a group, or change from when until when, and whether he manages it."""
        place = f"/groups/{group_id}/members/{self._find_person(login)}"
        body = {"is_manager": is_manager, **_without_none({"starts_at": starts_at, "ends_at": ends_at})}
        return self._object(self._transport.json("PUT", place, json=body))

    def remove_member(self, group_id: str, login: str) -> None:
        self._transport.request("DELETE", f"/groups/{group_id}/members/{self._find_person(login)}")

    def list_claim_rules(self, group_id: str) -> list[dict[str, Any]]:
        """Which entitlements of which provider lead into a group."""
        return list(self._pages(f"/groups/{group_id}/rules"))

    def add_claim_rule(
        self,
        group_id: str,
        *,
        issuer: str,
        entitlement: str,
        starts_at: str | None = None,
        ends_at: str | None = None,
    ) -> dict[str, Any]:
        """Let into a group who logs in from the issuer with the entitlement; `*` at its end stands for any ending."""
        dates = _without_none({"starts_at": starts_at, "ends_at": ends_at})
        body = {"issuer": issuer, "entitlement": entitlement, **dates}
        return self._object(self._transport.json("POST", f"/groups/{group_id}/rules", json=body, headers=_once()))

    def remove_claim_rule(self, group_id: str, rule_id: str) -> None:
        self._transport.request("DELETE", f"/groups/{group_id}/rules/{rule_id}")

    def _find_person(self, login: str) -> str:
        for found in self._pages("/identities", login=login):
            return str(found["id"])
        raise UsageError(f"Nobody has the login name {login!r}.", next_step="Check how it is spelt.")

    # The life of an archive

    def open_archive(
        self, *, title: str = "", profile: str | None = None, account_id: str | None = None, **description: object
    ) -> Archive:
        """Open an archive. `description` takes what a record holds: description, creators, publisher, licence, …"""
        body = {"title": title, "profile": profile, "account_id": account_id, **description}
        return self._archive(self._transport.json("POST", "/archives", json=_without_none(body), headers=_once()))

    def archive(self, archive_id: str) -> Archive:
        return self._archive(self._transport.json("GET", f"/archives/{archive_id}"))

    def list_archives(
        self, *, text: str | None = None, state: str | None = None, limit: int = 100
    ) -> Iterator[Archive]:
        """The archives that this identity may read; `text` is looked for in titles, paths and metadata."""
        return (self._archive(record) for record in self._pages("/archives", q=text, state=state, limit=limit))

    def describe(self, archive_id: str, *, revision: int | None = None, **changes: object) -> Archive:
        """Change the record; with `revision` only if it is still at that one. None empties a field."""
        headers = {"If-Match": f'"r{revision}"'} if revision is not None else {}
        headers["Content-Type"] = _MERGE_PATCH
        content = json.dumps(changes).encode("utf-8")
        return self._archive(self._transport.json("PATCH", f"/archives/{archive_id}", content=content, headers=headers))

    def append(self, parent_id: str, **changes: object) -> Archive:
        """Open an archive that appends to a closed one; profile, roles and metadata are inherited."""
        answer = self._transport.json("POST", f"/archives/{parent_id}/append", json=changes, headers=_once())
        return self._archive(answer)

    def close(
        self,
        archive_id: str,
        *,
        wait: bool = True,
        discard_uploads: bool = False,
        on_progress: JobWatcher | None = None,
    ) -> Job:
        """Close an archive; asked again after anything, the same closing goes on."""
        body = {"discard_uploads": discard_uploads}
        return self._start(f"/archives/{archive_id}/close", body, wait=wait, on_progress=on_progress)

    def verify(self, archive_id: str, *, wait: bool = True, on_progress: JobWatcher | None = None) -> Job:
        """Read every copy again on the server and compare it."""
        return self._start(f"/archives/{archive_id}/verify", {}, wait=wait, on_progress=on_progress)

    def withdraw(self, archive_id: str, reason: str, *, wait: bool = True) -> dict[str, Any]:
        """Ask for, or approve, the withdrawal of a closed archive."""
        answer = self._object(self._transport.json("POST", f"/archives/{archive_id}/withdraw", json={"reason": reason}))
        if wait and "kind" in answer:
            return dict(self.wait_job(answer["id"]).raw)
        return answer

    def extend_lifetime(self, archive_id: str, keep_until: str) -> Archive:
        """Keep an archive longer, up to what its profile allows; `keep_until` is a day as 2040-12-31."""
        return self._change(archive_id, "lifetime", {"keep_until": keep_until})

    def set_access(self, archive_id: str, access: str, *, embargo_until: str | None = None) -> Archive:
        """Say who may read: private, public, or embargoed until a day."""
        return self._change(archive_id, "access", _without_none({"access": access, "embargo_until": embargo_until}))

    def change_profile(self, archive_id: str, profile: str, *, revision: int | None = None) -> Archive:
        """Keep an archive by another contract; with `revision` only if the record is still at that one."""
        return self._change(archive_id, "profile", {"profile": profile}, revision=revision)

    def _change(
        self, archive_id: str, what: str, body: Mapping[str, object], *, revision: int | None = None
    ) -> Archive:
        headers = {"If-Match": f'"r{revision}"'} if revision is not None else {}
        return self._archive(self._transport.json("POST", f"/archives/{archive_id}/{what}", json=body, headers=headers))

    def discard(self, archive_id: str) -> None:
        """Discard an open archive with everything in it."""
        self._transport.request("DELETE", f"/archives/{archive_id}")

    def statement(self, archive_id: str) -> dict[str, Any]:
        """The signed closing statement."""
        return self._object(self._transport.json("GET", f"/archives/{archive_id}/statement"))

    def receipt(self, archive_id: str, *, wait_seconds: float = 0) -> dict[str, Any]:
        """The signed receipt that the source may be deleted; a conflict until enough copies are verified.

        It is written soon after closing: `wait_seconds` is how long to wait for it.
        """
        until = time.monotonic() + wait_seconds
        while True:
            try:
                return self._object(self._transport.json("GET", f"/archives/{archive_id}/receipt"))
            except ApiError as error:
                if error.status != 409 or time.monotonic() >= until:
                    raise
            time.sleep(0.2)

    def copies(self, archive_id: str) -> list[dict[str, Any]]:
        """Where the copies are, and when each was last read back."""
        return list(self._pages(f"/archives/{archive_id}/copies"))

    def keys(self) -> list[dict[str, Any]]:
        """The public keys that statements are signed with."""
        return list(self._object(self._transport.json("GET", "/keys"))["keys"])

    # Content

    def put(
        self,
        archive_id: str,
        *sources: str | Path,
        into: str | bytes = b"",
        checksum: bool = False,
        show: TextIO | None = None,
    ) -> PutReport:
        """Send folders (their content) and files; run again, only what is missing or different goes.

        What is there already is told by size and time, or by digest with `checksum`. What cannot be stored is listed in
        the report with its reason. `show` gets lines of progress.
        """
        from perdure_client.upload import FolderUpload

        tree = scan_sources([str(source) for source in sources], to_bytes(into).strip(b"/"))
        progress = Progress("Sent", stream=show)
        report = FolderUpload(self._transport, archive_id, progress=progress, checksum=checksum).run(tree)
        progress.finish()
        return report

    def get(
        self, archive_id: str, to: str | Path, paths: Iterable[str | bytes] = (), *, show: TextIO | None = None
    ) -> GetReport:
        """Fetch the archive, or the named files and folders, into a folder; each file is compared with its digest."""
        from perdure_client.download import FolderDownload

        wanted = [to_bytes(path).strip(b"/") for path in paths]
        entries = list(self._select(archive_id, wanted))
        files = [entry for entry in entries if entry.kind == "file"]
        progress = Progress("Fetched", files=len(files), size=sum(entry.size for entry in files), stream=show)
        report = FolderDownload(self._transport, archive_id, Path(to), progress=progress).run(entries)
        progress.finish()
        return report

    def _select(self, archive_id: str, wanted: list[bytes]) -> Iterator[Entry]:
        if not wanted:
            yield from self.entries(archive_id, recursive=True)
            return
        for path in wanted:
            entry = self.entry(archive_id, path)
            if entry.kind in ("folder", "directory"):
                yield from self.entries(archive_id, path, recursive=True)
            yield entry

    def entries(
        self, archive_id: str, folder: str | bytes = b"", *, recursive: bool = False, layers: str = "union"
    ) -> Iterator[Entry]:
        """The entries of one folder, or of all below it, in the order of their bytes."""
        params = {
            "folder": to_bytes(folder) or None,
            "recursive": "true" if recursive else None,
            "layers": layers,
            "limit": 5000,
        }
        for record in self._pages(f"/archives/{archive_id}/entries", **params):
            yield Entry.from_json(record)

    def entry(self, archive_id: str, path: str | bytes) -> Entry:
        return Entry.from_json(self._transport.json("GET", f"/archives/{archive_id}/entry/{to_url(to_bytes(path))}"))

    def read(self, archive_id: str, path: str | bytes, start: int = 0, end: int | None = None) -> bytes:
        """Bytes of one file from `start` up to `end` (not included; None: to the end of the file)."""
        if end is not None and end <= start:
            return b""
        headers = {"Range": f"bytes={start}-{'' if end is None else end - 1}"} if start or end is not None else {}
        place = f"/archives/{archive_id}/files/{to_url(to_bytes(path))}"
        return self._transport.request("GET", place, headers=headers, plane="data").content

    def remove(self, archive_id: str, paths: Iterable[str | bytes]) -> dict[str, Any]:
        """Remove files and folders from an open archive; inherited ones are hidden."""
        body = {"paths": [_path_item(path) for path in paths]}
        return self._object(self._transport.json("POST", f"/archives/{archive_id}/remove", json=body, repeatable=True))

    def ingest(
        self, archive_id: str, folder: str, *, into: str = "", wait: bool = True, on_progress: JobWatcher | None = None
    ) -> Job:
        """Let the server read a folder that it can reach itself; the operator allows which."""
        body = {"folder": folder, "into": into}
        return self._start(f"/archives/{archive_id}/ingest", body, wait=wait, on_progress=on_progress)

    def download_manifest(
        self, archive_id: str, to: Path, *, form: str = "manifest-sha512.txt", layers: str = "union"
    ) -> None:
        """Write the checksum list (`manifest-sha512.txt`) or the whole manifest (`manifest`) to a file."""
        with (
            self._transport.stream("GET", f"/archives/{archive_id}/{form}", params={"layers": layers}) as answer,
            open(to, "wb") as stream,
        ):
            for piece in answer.iter_raw():
                stream.write(piece)

    def get_proof(self, archive_id: str, to: Path) -> Path:
        """Write what proves a fetched archive to a folder: the checksum list, the public key and, for the archive and
        each one that it appends to, manifest and closing statement."""
        to.mkdir(parents=True, exist_ok=True)
        self.download_manifest(archive_id, to / "manifest-sha512.txt")
        keys = {key["key_id"]: key["public_key"] for key in self.keys()}
        layer: str | None = archive_id
        while layer is not None:
            one = self.archive(layer)
            statement = self.statement(layer)
            (to / f"{one.short_id}.json").write_text(json.dumps(statement, ensure_ascii=False), encoding="utf-8")
            self.download_manifest(layer, to / f"{one.short_id}.ndjson", form="manifest", layers="own")
            (to / f"{statement['key_id']}.pem").write_text(keys[str(statement["key_id"])], encoding="ascii")
            layer = one.parent_id
        return to

    # Metadata

    def read_metadata(
        self, archive_id: str, *, path: str | bytes | None = None, pointer: str | None = None, as_of: str | None = None
    ) -> Metadata:
        """The metadata of an archive or of one file, whole or below a JSON pointer, at present or as of a time."""
        answer = self._transport.request(
            "GET", self._metadata_place(archive_id, path), params={"pointer": pointer, "as_of": as_of}
        )
        return Metadata(answer.json(), answer.headers.get("ETag"), answer.headers.get("X-Metadata-Digest"))

    def patch_metadata(
        self,
        archive_id: str,
        patch: Mapping[str, Any] | Sequence[Any],
        *,
        path: str | bytes | None = None,
        etag: str | None = None,
    ) -> dict[str, Any]:
        """Change metadata in one step: a mapping is a merge patch (RFC 7396), a list a JSON Patch (RFC 6902)."""
        headers = {"Content-Type": _MERGE_PATCH if isinstance(patch, Mapping) else _JSON_PATCH}
        if etag:
            headers["If-Match"] = etag
        content = json.dumps(patch, ensure_ascii=False).encode("utf-8")
        place = self._metadata_place(archive_id, path)
        return self._object(self._transport.json("PATCH", place, content=content, headers=headers))

    def metadata_history(self, archive_id: str, *, path: str | bytes | None = None) -> Iterator[dict[str, Any]]:
        """Who changed what and when, the oldest first."""
        params = {"path": to_bytes(path) if path is not None else None}
        return self._pages(f"/archives/{archive_id}/metadata-history", **params)

    @staticmethod
    def _metadata_place(archive_id: str, path: str | bytes | None) -> str:
        if path is None:
            return f"/archives/{archive_id}/metadata"
        return f"/archives/{archive_id}/file-metadata/{to_url(to_bytes(path))}"

    # Roles, events, jobs

    def list_grants(self, archive_id: str, *, on: str = "archives") -> list[dict[str, Any]]:
        return list(self._pages(f"/{on}/{archive_id}/grants"))

    def grant(
        self,
        archive_id: str,
        role: str,
        *,
        login: str | None = None,
        group_id: str | None = None,
        credential: tuple[str, str] | None = None,
        identity_id: str | None = None,
        expires_at: str | None = None,
        requires: Iterable[str] = (),
        pass_on: tuple[str, str | None] | None = None,
        on: str = "archives",
    ) -> dict[str, Any]:
        """Give a role to a person named by login, to an identity, such as a service account, to a group, or to a
        credential (kind and subject).

        It is given on an archive, or, with the identifier of one, `on` "accounts" or "organisations". `pass_on` limits
        to whom its bearer may give roles by it: ("nobody", None), ("organisation", id) or ("group", id).
        """
        if sum(one is not None for one in (login, identity_id, group_id, credential)) != 1:
            raise UsageError(
                "A role is granted to one person, service account, group or credential.", next_step="Name one of them."
            )
        named = None if credential is None else {"kind": credential[0], "subject": credential[1]}
        to = _without_none({"login": login, "identity_id": identity_id, "group_id": group_id, "credential": named})
        limit = None if pass_on is None else _without_none({"to": pass_on[0], "id": pass_on[1]})
        more = _without_none({"expires_at": expires_at, "pass_on": limit})
        body = {"role": role, "requires": list(requires), **to, **more}
        return self._object(self._transport.json("POST", f"/{on}/{archive_id}/grants", json=body, headers=_once()))

    def explain_access(self, archive_id: str) -> Iterator[dict[str, Any]]:
        """Who reaches the archive, as what and why."""
        return self._pages(f"/archives/{archive_id}/access")

    def list_reach(self, login: str) -> Iterator[dict[str, Any]]:
        """The archives that the person with this login may see, with what he may do there; for administrators."""
        return self._pages(f"/identities/{self._identity_of(login)}/archives")

    def revoke_grant(self, archive_id: str, grant_id: str, *, on: str = "archives") -> None:
        self._transport.request("DELETE", f"/{on}/{archive_id}/grants/{grant_id}")

    def offer_archive(self, archive_id: str, login: str, *, keeps_account: bool = False) -> dict[str, Any]:
        """Offer an archive that you own to somebody, who accepts or declines."""
        body = {"login": login, "keeps_account": keeps_account}
        place = f"/archives/{archive_id}/transfers"
        return self._object(self._transport.json("POST", place, json=body, headers=_once()))

    def transfer_archive(
        self, archive_id: str, login: str, *, keeps_account: bool = False, account_id: str | None = None
    ) -> Archive:
        """Make somebody the owner at once; for those who manage the archive's organisation."""
        body = _without_none({"login": login, "keeps_account": keeps_account, "account_id": account_id})
        return self._archive(self._transport.json("POST", f"/archives/{archive_id}/transfer", json=body))

    def list_transfers(self) -> list[dict[str, Any]]:
        """The offers that wait, to you and your own."""
        return list(self._pages("/transfers"))

    def accept_transfer(self, transfer_id: str, *, account_id: str | None = None) -> Archive:
        """Take over an archive that was offered, into your personal account unless another is named."""
        body = _without_none({"account_id": account_id})
        return self._archive(self._transport.json("POST", f"/transfers/{transfer_id}/accept", json=body))

    def decline_transfer(self, transfer_id: str) -> None:
        """Decline an offer, or take your own back."""
        self._transport.request("DELETE", f"/transfers/{transfer_id}")

    def transfer_account(self, account_id: str, login: str) -> None:
        """Make somebody else the owner of an account of a group or beamline."""
        self._transport.json("POST", f"/accounts/{account_id}/transfer", json={"login": login})

    def list_links(self, archive_id: str) -> list[dict[str, Any]]:
        """The links of an archive without their secrets, newest first, ended ones too."""
        return list(self._pages(f"/archives/{archive_id}/links"))

    def make_link(
        self,
        archive_id: str,
        path: str | bytes = b"",
        *,
        kind: str = "read",
        name: str,
        expires_at: str | None = None,
        password: str | None = None,
        download_limit: int | None = None,
        only_when_closed: bool = False,
        pinned: bool = False,
    ) -> dict[str, Any]:
        """Share an archive, or a folder or file of it, with whoever has the `url` of the answer, told this once.

        `kind` is "read", "drop" (files can be put there, nothing is seen), "metadata" or "review" (as read, without
        the names of people). With `pinned` it shows record and metadata as they are now.
        """
        wanted = {
            "kind": kind,
            "name": name,
            "expires_at": expires_at,
            "password": password,
            "download_limit": download_limit,
            "only_when_closed": only_when_closed,
            "pinned": pinned,
        }
        place = to_json(to_bytes(path)) if path else {}
        body = {**_without_none(wanted), **place}
        return self._object(self._transport.json("POST", f"/archives/{archive_id}/links", json=body, headers=_once()))

    def revoke_link(self, archive_id: str, link_id: str) -> None:
        self._transport.request("DELETE", f"/archives/{archive_id}/links/{link_id}")

    def events(
        self, *, after: int = 0, archive_id: str | None = None, follow: bool = False
    ) -> Iterator[dict[str, Any]]:
        """Events in their order; with `follow` the iterator waits for new ones and does not end."""
        while True:
            params = {"after": after, "archive": archive_id, "limit": 500, "wait": 20 if follow else None}
            items = self._transport.json("GET", "/events", params=params)["items"]
            for item in items:
                after = item["number"]
                yield item
            if not items and not follow:
                return

    def search_audit_trail(
        self,
        *,
        type: str | None = None,  # noqa: A002  # the word of the API
        actor: str | None = None,
        archive_id: str | None = None,
        about: str | None = None,
        since: str | None = None,
        until: str | None = None,
        newest_first: bool = True,
        after: int | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Events of the log that are about this, as `GET /audit` has them; for administrators and managers.

        `actor` is the login name of a person; `type` is whole or a first word with its dot; times are RFC 3339.
        """
        params = {
            "type": type,
            "actor": None if actor is None else self._identity_of(actor),
            "archive": archive_id,
            "about": about,
            "since": since,
            "until": until,
            "order": "newest" if newest_first else "oldest",
            "limit": 500,
        }
        while True:
            page = self._transport.json("GET", "/audit", params={**params, "after": after})
            yield from page["items"]
            after = page["next_after"]
            if after is None:
                return

    def job(self, job_id: str) -> Job:
        return Job.from_json(self._transport.json("GET", f"/jobs/{job_id}"))

    def wait_job(self, job_id: str, *, on_progress: JobWatcher | None = None) -> Job:
        """Wait until a job is over; raises JobFailedError with what went wrong."""
        pause = 0.05
        while True:
            job = self.job(job_id)
            if on_progress:
                on_progress(job)
            if job.is_over:
                break
            time.sleep(pause)
            pause = min(pause * 1.5, 2.0)
        if job.state != "succeeded":
            error = job.error or {}
            detail = str(error.get("detail") or f"The job {job.kind} was {job.state}.")
            raise JobFailedError(detail, next_step=str(error.get("next_step") or ""))
        return job

    def _identity_of(self, login: str) -> str:
        found = self._transport.json("GET", "/identities", params={"login": login})["items"]
        if not found:
            raise UsageError(f"Nobody has the login name {login}.", next_step="Look for a typing error.")
        return str(found[0]["id"])

    def _start(self, place: str, body: Mapping[str, object], *, wait: bool, on_progress: JobWatcher | None) -> Job:
        job = Job.from_json(self._transport.json("POST", place, json=body, repeatable=True))
        return self.wait_job(job.id, on_progress=on_progress) if wait else job

    def _pages(self, place: str, **params: object) -> Iterator[dict[str, Any]]:
        cursor: str | None = None
        while True:
            page = self._transport.json("GET", place, params={**params, "cursor": cursor})
            yield from page["items"]
            cursor = page.get("next_cursor")
            if not cursor:
                return

    @staticmethod
    def _archive(record: Mapping[str, Any]) -> Archive:
        return Archive.from_json(record)

    @staticmethod
    def _object(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise UsageError("The server's answer is not one of Perdure.", next_step="Check the address.")
        return value


def _once() -> dict[str, str]:
    """A key that makes a creating request safe to repeat."""
    return {"Idempotency-Key": secrets.token_urlsafe(18)}


def _without_none(body: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in body.items() if value is not None}


def _path_item(path: str | bytes) -> object:
    item = to_json(to_bytes(path))
    return item.get("path", item)
