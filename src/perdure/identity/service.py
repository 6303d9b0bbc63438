"""The use cases of this domain under one name; each group of them is a module of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial

from perdure.db import Database
from perdure.events import EventLog
from perdure.identity import throttle
from perdure.identity.access import Access
from perdure.identity.accounts import Accounts
from perdure.identity.addresses import Addresses
from perdure.identity.applications import Applications
from perdure.identity.arrivals import Arrivals
from perdure.identity.claims import Claims
from perdure.identity.directories import Directories
from perdure.identity.erasing import Erasing
from perdure.identity.federation import Federation
from perdure.identity.grants import Grants
from perdure.identity.grid import GridTokens
from perdure.identity.groups import Groups
from perdure.identity.joining import Joining
from perdure.identity.locks import Locks
from perdure.identity.merging import Merging
from perdure.identity.notices import Notices
from perdure.identity.origins import ProviderLogouts
from perdure.identity.passkeys import NoPasskeys, Passkeys
from perdure.identity.passwords import PasswordCost, Passwords
from perdure.identity.people import People
from perdure.identity.ports import Directory, Mailer, PasskeyReader, Provider, Sealer, TokenIssuer
from perdure.identity.post import Post
from perdure.identity.quotas import Quotas
from perdure.identity.recovery import Recovery
from perdure.identity.registry import Registry
from perdure.identity.rights import Rights
from perdure.identity.second_factor import SecondFactor
from perdure.identity.service_accounts import ServiceAccounts, ServiceLimits
from perdure.identity.sessions import Sessions
from perdure.identity.terms import TermsOfUse
from perdure.identity.tickets import Tickets
from perdure.identity.tokens import Tokens
from perdure.jobs import Jobs
from perdure.kernel.clock import Clock


@dataclass(frozen=True, slots=True)
class IdentitySettings:
    """What an operator may choose here."""

    session_lifetime: timedelta = timedelta(days=7)
    token_lifetime: timedelta = timedelta(days=365)
    longest_token_lifetime: timedelta = timedelta(days=2 * 365)
    password_cost: PasswordCost = field(default_factory=PasswordCost)
    services: ServiceLimits = field(default_factory=ServiceLimits)
    url: str = "http://localhost"  # where the pages are that mails lead to, without a slash at its end
    forget_refused: timedelta = timedelta(days=90)
    forget_pending: timedelta = timedelta(days=180)


class Identity:
    """Who is calling and what he may do; safe to share between threads.

    Mail is sent where there are both a queue and a mailer.
    """

    def __init__(
        self,
        db: Database,
        clock: Clock,
        events: EventLog,
        sealer: Sealer,
        settings: IdentitySettings | None = None,
        *,
        providers: Sequence[Provider] = (),
        directories: Sequence[Directory] = (),
        issuers: Sequence[TokenIssuer] = (),
        passkeys: PasskeyReader | None = None,
        jobs: Jobs | None = None,
        mailer: Mailer | None = None,
    ) -> None:
        settings = settings or IdentitySettings()
        passwords = Passwords(settings.password_cost)
        rights = Rights(clock)
        post = Post(db, clock, events, sealer, jobs, mailer, settings.url)
        notices = Notices(post)
        grants = Grants(db, clock, events, rights)
        accounts = Accounts(db, clock, events, rights, grants)
        people = People(db, clock, events, rights, accounts, passwords, notices)
        second_factor = SecondFactor(db, clock, events, sealer, rights, notices)
        terms = TermsOfUse(db, clock, events, rights)
        sessions = Sessions(db, clock, events, passwords, second_factor, terms, settings.session_lifetime)
        tokens = Tokens(db, clock, events, settings.token_lifetime, settings.longest_token_lifetime)
        groups = Groups(db, clock, events, rights)
        addresses = Addresses(db, clock, events, post)
        recovery = Recovery(db, clock, events, passwords, post, notices, jobs)
        joining = Joining(clock, people, passwords, terms, sessions, addresses)
        applications = Applications(
            db,
            clock,
            events,
            rights,
            people,
            passwords,
            terms,
            addresses,
            post,
            forget_refused=settings.forget_refused,
            forget_pending=settings.forget_pending,
        )
        claims = Claims(db, clock, events, rights, groups)
        arrivals = Arrivals(db, clock, events, people, sessions, applications, claims, notices)
        grid = GridTokens(db, clock, sessions, issuers)
        tickets = Tickets(clock, sealer)
        federation = Federation(clock, tickets, providers, partial(throttle.use_once_at, db))
        logouts = ProviderLogouts(db, clock, events, federation)
        keys = Passkeys(db, clock, events, sessions, tickets, passkeys or NoPasskeys(), notices)
        at_directories = Directories(db, clock, sessions, directories)
        registry = Registry(grants)
        quotas = Quotas(db, clock, events, rights, accounts)
        access = Access(clock, rights)
        locks = Locks(db, clock, passwords, sealer)
        services = ServiceAccounts(db, clock, events, rights, people, tokens, settings.services)
        merging = Merging(clock, events, grants)
        erasing = Erasing(clock, events)

        self.require = rights.require
        self.require_with = rights.require_with
        self.can = rights.can
        self.actions = rights.actions
        self.survey = rights.survey
        self.actions_on_each = rights.actions_on_each
        self.find_roles = rights.find_roles
        self.visible = rights.visible
        self.managed_organisations = rights.managed_organisations
        self.select_people_of = rights.select_people_of

        self.bootstrap_administrator = people.bootstrap_administrator
        self.has_administrator = people.has_administrator
        self.create_local_account = people.create_local_account
        self.set_password = people.set_password
        self.give_login = people.give_login
        self.disable_identity = people.disable_identity
        self.enable_identity = people.enable_identity
        self.rename_identity = people.rename_identity
        self.set_administrator = people.set_administrator
        self.manages_any = people.manages_any
        self.find_identity = people.find_identity
        self.get_identity = people.get_identity
        self.find_names = people.find_names
        self.find_names_in = people.find_names_in
        self.list_identities = people.list_identities
        self.list_logins_of = people.list_logins_of
        self.create_organisation = people.create_organisation
        self.get_organisation = people.get_organisation
        self.list_organisations = people.list_organisations

        self.lock_identities_in = merging.lock_in
        self.plan_merge_in = merging.plan_merge_in
        self.merge_in = merging.merge_in
        self.list_aliases_in = merging.list_aliases_in
        self.find_granted_archives_in = merging.find_granted_archives_in
        self.move_grants_in = grants.move_grants_in
        self.drop_grants_of_in = grants.drop_grants_of_in
        self.export_person_in = erasing.export_person_in
        self.require_person_in = erasing.require_person_in
        self.find_sole_accounts_in = erasing.find_sole_accounts_in
        self.find_services_in = erasing.find_services_in
        self.erase_in = erasing.erase_in
        self.repeat_erasures_in = erasing.repeat_erasures_in
        self.require_over = rights.require_over

        self.begin_second_factor = second_factor.begin_second_factor
        self.confirm_second_factor = second_factor.confirm_second_factor
        self.renew_recovery_codes = second_factor.renew_recovery_codes
        self.remove_second_factor = second_factor.remove_second_factor

        self.begin_passkey = keys.begin_passkey
        self.add_passkey = keys.add_passkey
        self.list_passkeys = keys.list_passkeys
        self.rename_passkey = keys.rename_passkey
        self.remove_passkey = keys.remove_passkey
        self.begin_passkey_login = keys.begin_login
        self.log_in_by_passkey = keys.log_in
        self.prove_by_passkey = keys.prove

        self.make_lock = locks.make_lock
        self.open_lock = locks.open_lock
        self.seal_pass = locks.seal_pass
        self.is_pass = locks.is_pass

        self.log_in = sessions.log_in
        self.log_out = sessions.log_out
        self.prove = sessions.prove
        self.authenticate = sessions.authenticate
        self.is_grid_token = grid.is_grid_token
        self.authenticate_grid = grid.authenticate_grid
        self.find_actor_in = sessions.find_actor_in
        self.best_login_in = sessions.best_login_in
        self.list_sessions = sessions.list_sessions
        self.revoke_session = sessions.revoke_session
        self.forget_ended = sessions.forget_ended

        self.list_providers = federation.list_providers
        self.list_directories = at_directories.list_directories
        self.check_password_at = at_directories.check_password
        self.begin_login = federation.begin_login
        self.finish_login = federation.finish_login
        self.describe_us = federation.describe_us
        self.begin_device = federation.begin_device
        self.poll_device = federation.poll_device
        self.accept_token = federation.accept_token
        self.begin_logout = federation.begin_logout
        self.find_logout = federation.find_logout
        self.finish_logout = federation.finish_logout
        self.end_at_provider = logouts.end_at_provider
        self.seal_arrival = federation.seal_arrival
        self.open_arrival = federation.open_arrival
        self.arrive = arrivals.arrive
        self.prove_by = arrivals.prove
        self.link = arrivals.link
        self.unlink = arrivals.unlink
        self.list_credentials = arrivals.list_credentials
        self.apply = applications.apply_from_outside
        self.apply_with_password = applications.apply_with_password
        self.list_applications = applications.list_applications
        self.approve_application = applications.approve_application
        self.refuse_application = applications.refuse_application
        self.forget_refused = applications.forget_refused

        self.get_address = addresses.get_address
        self.change_address = addresses.change_address
        self.confirm_address = addresses.confirm_address
        self.require_address_key = addresses.require_key
        self.ask_for_reset = recovery.ask_for_reset
        self.require_reset_key = recovery.require_key
        self.reset_password = recovery.reset_password
        self.joins_with_password = joining.joins_with_password
        self.joins_from_outside = joining.joins_from_outside
        self.join_in = joining.join_in
        self.tell_deciders = applications.tell_deciders
        self.require_post = post.require_open
        self.send_mail_in = post.send_in
        self.drop_mail_in = post.drop_about_in
        self.find_mail_troubles_in = post.find_troubles_in
        self.send_test_mail = post.send_test
        self.forget_ended_mail = post.forget_ended

        self.publish_terms = terms.publish_terms
        self.get_terms = terms.get_terms

        self.create_token = tokens.create_token
        self.list_tokens = tokens.list_tokens
        self.revoke_token = tokens.revoke_token

        self.create_service = services.create_service
        self.get_service = services.get_service
        self.list_services = services.list_services
        self.change_service = services.change_service
        self.create_service_token = services.create_service_token
        self.rotate_service_token = services.rotate_service_token
        self.list_service_tokens = services.list_service_tokens
        self.revoke_service_token = services.revoke_service_token
        self.require_service_seen_in = services.require_seen_in

        self.create_account = accounts.create_account
        self.get_account = accounts.get_account
        self.get_account_in = accounts.get_account_in
        self.get_personal_account = accounts.get_personal_account
        self.get_personal_account_in = accounts.get_personal_account_in
        self.list_accounts = accounts.list_accounts
        self.change_account = accounts.change_account
        self.transfer_account = accounts.transfer_account

        self.change_organisation = quotas.change_organisation
        self.find_limits_in = quotas.find_limits_in
        self.require_manager_in = quotas.require_manager_in
        self.request_quota = quotas.request_quota
        self.list_quota_requests_of = quotas.list_requests_of
        self.list_quota_requests = quotas.list_requests
        self.approve_quota_request = quotas.approve_request
        self.refuse_quota_request = quotas.refuse_request
        self.require_reportable_in = quotas.require_reportable_in
        self.select_reportable_accounts = quotas.select_accounts
        self.find_organisation_names_in = quotas.find_organisation_names_in
        self.find_group_accounts_in = quotas.find_group_accounts_in

        self.grant = grants.grant
        self.grant_in = grants.grant_in
        self.require_passing_on_in = grants.require_passing_on_in
        self.require_giver_in = grants.require_giver_in
        self.hand_over_in = grants.hand_over_in
        self.check_grant_in = grants.check_grant_in
        self.give_first_owner_in = grants.give_first_owner_in
        self.revoke_grant = grants.revoke_grant
        self.revoke_grant_in = grants.revoke_grant_in
        self.list_grants = grants.list_grants
        self.list_grants_in = grants.list_grants_in
        self.copy_grants = grants.copy_grants
        self.drop_grants_in = grants.drop_grants_in

        self.explain_access_in = access.explain_in

        self.create_group = groups.create_group
        self.add_member = groups.add_member
        self.remove_member = groups.remove_member
        self.forget_ended_memberships = groups.forget_ended
        self.get_group = groups.get_group
        self.list_groups = groups.list_groups
        self.list_own_groups = groups.list_own_groups
        self.add_claim_rule = claims.add_claim_rule
        self.remove_claim_rule = claims.remove_claim_rule
        self.list_claim_rules = claims.list_claim_rules

        self.export_registry = registry.export_registry
        self.export_grants = registry.export_grants
        self.export_standing = registry.export_standing
        self.restore_registry = registry.restore_registry
        self.restore_organisations = registry.restore_organisations
        self.restore_identities = registry.restore_identities
        self.restore_groups = registry.restore_groups
        self.restore_accounts = registry.restore_accounts
        self.restore_grants = registry.restore_grants
        self.restore_standing = registry.restore_standing
        self.restore_strangers = registry.restore_strangers
