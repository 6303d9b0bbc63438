"""Credentials of many kinds, logins that say how they were proven, and grants that name or demand either."""

from __future__ import annotations

from alembic import op
from sqlalchemy import BigInteger, Column, Text, text
from sqlalchemy.dialects.postgresql import ARRAY

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.alter_column("credentials", "secret", nullable=True)
    op.add_column("credentials", Column("last_step", BigInteger))
    op.drop_constraint("uq_credentials_identity_id_kind", "credentials")
    op.drop_constraint("ck_credentials_kind", "credentials")
    kinds = "kind IN ('password', 'oidc', 'saml', 'x509', 'orcid', 'ldap', 'totp', 'recovery')"
    op.create_check_constraint("kind", "credentials", kinds)
    secret = "(secret IS NOT NULL) = (kind IN ('password', 'totp', 'recovery'))"  # noqa: S105  # a condition
    op.create_check_constraint("secret", "credentials", secret)
    op.create_index("ix_credentials_identity_id", "credentials", ["identity_id"])
    one = text("kind IN ('password', 'totp')")
    op.create_index("uq_credentials_one", "credentials", ["identity_id", "kind"], unique=True, postgresql_where=one)
    for table, column in (("sessions", "proofs"), ("sessions", "entitlements"), ("tokens", "proofs")):
        op.add_column(table, Column(column, ARRAY(Text), nullable=False, server_default="{}"))
    op.execute("UPDATE sessions SET proofs = '{password}'")
    op.add_column("grants", Column("named", Text))
    op.add_column("grants", Column("requires", ARRAY(Text), nullable=False, server_default="{}"))
    op.drop_constraint("ck_grants_one_grantee", "grants")
    op.create_check_constraint("one_grantee", "grants", "num_nonnulls(identity_id, group_id, named) = 1")
    op.create_unique_constraint("uq_grants_named", "grants", ["on_id", "named", "role"])
    op.create_index("ix_grants_named", "grants", ["named", "on_kind"])
