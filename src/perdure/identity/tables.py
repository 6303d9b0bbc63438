"""This domain's tables. Credentials, sessions, tokens and attempts are only here; the rest rebuilds from the stores."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, TIMESTAMP

from perdure.db import metadata

_moment = TIMESTAMP(timezone=True)


def _begun_at_provider() -> tuple[Column[str], Column[bytes], Column[bytes]]:
    """What ends when its provider says so: whose it was there and in which session, as digests that only match."""
    return (
        Column("provider", Text),
        Column("provider_subject", LargeBinary, index=True),
        Column("provider_session", LargeBinary, index=True),
    )


organisations = Table(
    "organisations",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("ror", Text),
    Column("quota_bytes", BigInteger),
    CheckConstraint("quota_bytes >= 0", name="quota"),
)

identities = Table(
    "identities",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("organisation_id", Uuid, ForeignKey("organisations.id"), nullable=False),
    Column("kind", Text, nullable=False),
    Column("display_name", Text, nullable=False),
    Column("email", Text),
    Column("orcid", Text),
    Column("state", Text, nullable=False, server_default="active"),
    Column("is_administrator", Boolean, nullable=False, server_default="false"),
    Column("accepted_terms", Integer),
    Column("accepted_at", _moment),
    Column("email_folded", Text),  # of a confirmed address only
    Column("email_confirmed_at", _moment),
    Column("merged_into", Uuid, ForeignKey("identities.id"), index=True),
    Column("ended_at", _moment),  # of who is there in history only
    Column("ended_by", Uuid),
    Column("ended_reason", Text),
    CheckConstraint("kind IN ('person', 'service')", name="kind"),
    CheckConstraint("state IN ('active', 'disabled', 'merged', 'erased')", name="state"),
    CheckConstraint("(state = 'merged') = (merged_into IS NOT NULL)", name="merged"),
    CheckConstraint("(email_folded IS NULL) = (email_confirmed_at IS NULL)", name="email"),
    Index("ix_identities_email_folded", "email_folded"),
)

credentials = Table(
    "credentials",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("identity_id", Uuid, ForeignKey("identities.id"), nullable=False),
    Column("kind", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("secret", Text),  # of a password its hash, of a second factor what is sealed; of others none
    Column("created_at", _moment, nullable=False),
    Column("last_used_at", _moment),
    Column("last_step", BigInteger),  # of a second factor: the time step whose code was used last
    UniqueConstraint("kind", "subject"),
    CheckConstraint("kind IN ('password', 'oidc', 'saml', 'x509', 'orcid', 'ldap', 'totp', 'recovery')", name="kind"),
    CheckConstraint("(secret IS NOT NULL) = (kind IN ('password', 'totp', 'recovery'))", name="secret"),
    Index("ix_credentials_identity_id", "identity_id"),
)

passkeys = Table(
    "passkeys",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("identity_id", Uuid, ForeignKey("identities.id"), nullable=False),
    Column("credential_id", LargeBinary, nullable=False, unique=True),
    Column("public_key", LargeBinary, nullable=False),  # as COSE writes it
    Column("sign_count", BigInteger, nullable=False),
    Column("is_synced", Boolean, nullable=False),
    Column("name", Text, nullable=False),
    Column("created_at", _moment, nullable=False),
    Column("last_used_at", _moment),
    UniqueConstraint("identity_id", "name"),
)

Index(
    "uq_credentials_one",
    credentials.c.identity_id,
    credentials.c.kind,
    unique=True,
    postgresql_where=credentials.c.kind.in_(["password", "totp"]),
)

login_attempts = Table(
    "login_attempts",
    metadata,
    Column("key", LargeBinary, primary_key=True),  # a digest, so that typed names (or passwords) are not kept
    Column("failures", Integer, nullable=False),
    Column("last_at", _moment, nullable=False),
)

sessions = Table(
    "sessions",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("digest", LargeBinary, nullable=False, unique=True),
    Column("identity_id", Uuid, ForeignKey("identities.id"), nullable=False, index=True),
    Column("client_address", Text, nullable=False, server_default=""),
    Column("client_agent", Text, nullable=False, server_default=""),
    Column("proofs", ARRAY(Text), nullable=False, server_default="{}"),
    Column("entitlements", ARRAY(Text), nullable=False, server_default="{}"),  # as `known_as` has them
    Column("created_at", _moment, nullable=False),
    Column("expires_at", _moment, nullable=False, index=True),
    Column("last_used_at", _moment, nullable=False),
    Column("proven_at", _moment),  # when the person last showed who he is; NULL: nobody can tell
    *_begun_at_provider(),
)

tokens = Table(
    "tokens",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("digest", LargeBinary, nullable=False, unique=True),
    Column("identity_id", Uuid, ForeignKey("identities.id"), nullable=False, index=True),
    Column("name", Text, nullable=False),
    Column("prefix", Text, nullable=False),
    Column("verbs", ARRAY(Text), nullable=False),
    Column("archives", ARRAY(Uuid)),
    Column("proofs", ARRAY(Text), nullable=False, server_default="{}"),
    Column("created_at", _moment, nullable=False),
    Column("expires_at", _moment, nullable=False),
    Column("revoked_at", _moment),
    Column("last_used_at", _moment),
    Column("last_used_from", Text, nullable=False, server_default=""),
    Column("replaces", Uuid, ForeignKey("tokens.id")),  # of a service account: the one that it takes over from
    Index("ix_tokens_replaces", "replaces", postgresql_where=text("replaces IS NOT NULL")),
    *_begun_at_provider(),
)

# What a machine may do at most, and who answers for it. The stores keep it, the tokens they do not.
service_accounts = Table(
    "service_accounts",
    metadata,
    Column("identity_id", Uuid, ForeignKey("identities.id"), primary_key=True),
    Column("responsible_id", Uuid, ForeignKey("identities.id"), nullable=False, index=True),
    Column("purpose", Text, nullable=False),
    Column("verbs", ARRAY(Text), nullable=False),
    Column("archives", ARRAY(Uuid)),
    Column("addresses", ARRAY(Text), nullable=False, server_default="{}"),
    Column("created_at", _moment, nullable=False),
)

groups = Table(
    "groups",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("organisation_id", Uuid, ForeignKey("organisations.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("name_folded", Text, nullable=False),
    UniqueConstraint("organisation_id", "name_folded"),
)

group_members = Table(
    "group_members",
    metadata,
    Column("group_id", Uuid, ForeignKey("groups.id"), primary_key=True),
    Column("identity_id", Uuid, ForeignKey("identities.id"), primary_key=True, index=True),
    Column("is_manager", Boolean, nullable=False, server_default="false"),
    Column("source", Text, nullable=False, server_default="local"),
    Column("issuer", Text),  # of members by a claim: whose logins say so
    Column("starts_at", _moment),  # the membership counts from then, NULL: always
    Column("ends_at", _moment),  # and until then
    CheckConstraint("source IN ('local', 'claim')", name="source"),
    CheckConstraint("(source = 'claim') = (issuer IS NOT NULL)", name="issuer"),
    CheckConstraint("starts_at < ends_at", name="dates"),
    Index("ix_group_members_ends_at", "ends_at", postgresql_where=text("ends_at IS NOT NULL")),
)

claim_rules = Table(
    "claim_rules",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("group_id", Uuid, ForeignKey("groups.id"), nullable=False, index=True),
    Column("issuer", Text, nullable=False, index=True),
    Column("entitlement", Text, nullable=False),  # with a `*` at its end: a beginning
    Column("starts_at", _moment),
    Column("ends_at", _moment),
    UniqueConstraint("group_id", "issuer", "entitlement"),
    CheckConstraint("starts_at < ends_at", name="dates"),
)

terms = Table(
    "terms",
    metadata,
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("text", Text, nullable=False),
    Column("published_at", _moment, nullable=False),
)

applications = Table(
    "applications",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("secret", Text),
    Column("display_name", Text, nullable=False),
    Column("email", Text),
    Column("orcid", Text),
    Column("organisation_id", Uuid, ForeignKey("organisations.id"), index=True),
    Column("reason", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("accepted_terms", Integer),
    Column("applied_at", _moment, nullable=False),
    Column("decided_at", _moment),
    Column("decided_by", Uuid),
    Column("note", Text),
    Column("identity_id", Uuid, ForeignKey("identities.id")),
    Column("told_at", _moment),  # when those who may decide were told by mail
    UniqueConstraint("kind", "subject"),
    CheckConstraint("state IN ('pending', 'approved', 'refused')", name="state"),
)

# Mail that waits to be sent, whole and sealed; a row goes when its mail is sent, at the latest when it ends.
mails = Table(
    "mails",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("about", Uuid, index=True),
    Column("sealed", Text, nullable=False),
    Column("problem", Text),  # why it was given up; nothing of it is kept then
    Column("created_at", _moment, nullable=False),
    Column("expires_at", _moment, nullable=False, index=True),
)

# What was sent by mail to prove an address or to reset a password; a row goes when it is used.
mail_keys = Table(
    "mail_keys",
    metadata,
    Column("digest", LargeBinary, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("identity_id", Uuid, ForeignKey("identities.id"), nullable=False, index=True),
    Column("address", Text, nullable=False),
    Column("created_at", _moment, nullable=False),
    Column("expires_at", _moment, nullable=False, index=True),
    CheckConstraint("kind IN ('reset', 'address')", name="kind"),
)

accounts = Table(
    "accounts",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("organisation_id", Uuid, ForeignKey("organisations.id"), nullable=False),
    Column("kind", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("name_folded", Text, nullable=False),
    Column("owner_id", Uuid, ForeignKey("identities.id"), nullable=False),
    Column("quota_bytes", BigInteger),
    Column("allowed_profiles", ARRAY(Text)),
    Column("quota_files", BigInteger),
    UniqueConstraint("organisation_id", "name_folded"),
    CheckConstraint("kind IN ('personal', 'group', 'beamline')", name="kind"),
    CheckConstraint("quota_bytes >= 0", name="quota"),
    CheckConstraint("quota_files >= 0", name="quota_files"),
)

Index(
    "uq_accounts_personal",
    accounts.c.owner_id,
    unique=True,
    postgresql_where=accounts.c.kind == "personal",
)

# Wishes for another quota are no truth of the stores: they come back from the database's backup.
quota_requests = Table(
    "quota_requests",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("account_id", Uuid, ForeignKey("accounts.id"), nullable=False, index=True),
    Column("asked_bytes", BigInteger, nullable=False),
    Column("reason", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("asked_by", Uuid),
    Column("asked_at", _moment, nullable=False),
    Column("given_bytes", BigInteger),
    Column("decided_by", Uuid),
    Column("decided_at", _moment),
    Column("note", Text, nullable=False, server_default=""),
    CheckConstraint("state IN ('pending', 'approved', 'refused')", name="state"),
    CheckConstraint("(state = 'pending') = (decided_at IS NULL)", name="decided"),
    CheckConstraint("(state = 'approved') = (given_bytes IS NOT NULL)", name="given"),
    CheckConstraint("asked_bytes >= 0 AND given_bytes >= 0", name="bytes"),
)

Index(
    "uq_quota_requests_pending",
    quota_requests.c.account_id,
    unique=True,
    postgresql_where=quota_requests.c.state == "pending",
)

grants = Table(
    "grants",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("on_kind", Text, nullable=False),
    Column("on_id", Uuid, nullable=False),  # no foreign key: archives are another domain's
    Column("identity_id", Uuid, ForeignKey("identities.id")),
    Column("group_id", Uuid, ForeignKey("groups.id")),
    Column("named", Text),  # a credential or entitlement, seen or not, as `known_as` of an actor has it
    Column("role", Text, nullable=False),
    Column("requires", ARRAY(Text), nullable=False, server_default="{}"),  # of the proofs of the login
    Column("granted_by", Uuid),
    Column("granted_at", _moment, nullable=False),
    Column("expires_at", _moment),
    Column("pass_on", Text),  # to whom roles are given by it: nobody, or a word and an id; NULL: to anybody
    CheckConstraint("on_kind IN ('archive', 'account', 'organisation')", name="on_kind"),
    CheckConstraint("num_nonnulls(identity_id, group_id, named) = 1", name="one_grantee"),
    CheckConstraint("role IN ('owner', 'manager', 'contributor', 'reader', 'curator')", name="role"),
    CheckConstraint("on_kind <> 'organisation' OR role IN ('manager', 'curator')", name="role_fits"),
    # Grants add up: a person may hold a lasting role and a stronger one for a week. The first three columns also
    # serve `require`, whose cost must not follow the number of grants on an archive.
    UniqueConstraint("on_id", "identity_id", "role", name="uq_grants_identity"),
    UniqueConstraint("on_id", "group_id", "role", name="uq_grants_group"),
    UniqueConstraint("on_id", "named", "role", name="uq_grants_named"),
    Index("ix_grants_identity_id", "identity_id", "on_kind"),
    Index("ix_grants_group_id", "group_id", "on_kind"),
    Index("ix_grants_named", "named", "on_kind"),
)
