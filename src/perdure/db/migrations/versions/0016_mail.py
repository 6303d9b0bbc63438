"""Mail: what waits to be sent, keys that were sent, confirmed addresses, invitations."""

from __future__ import annotations

from alembic import op
from sqlalchemy import BigInteger, Boolean, Column, ForeignKey, Integer, LargeBinary, Text, Uuid
from sqlalchemy.dialects.postgresql import ARRAY, TIMESTAMP

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    moment = TIMESTAMP(timezone=True)
    op.add_column("identities", Column("email_folded", Text))
    op.add_column("identities", Column("email_confirmed_at", moment))
    op.create_check_constraint("email", "identities", "(email_folded IS NULL) = (email_confirmed_at IS NULL)")
    op.create_index("ix_identities_email_folded", "identities", ["email_folded"])
    op.add_column("applications", Column("told_at", moment))
    op.create_table(
        "mails",
        Column("id", Uuid, primary_key=True),
        Column("kind", Text, nullable=False),
        Column("about", Uuid),
        Column("sealed", Text, nullable=False),
        Column("problem", Text),
        Column("created_at", moment, nullable=False),
        Column("expires_at", moment, nullable=False),
    )
    op.create_index("ix_mails_about", "mails", ["about"])
    op.create_index("ix_mails_expires_at", "mails", ["expires_at"])
    op.create_table(
        "mail_keys",
        Column("digest", LargeBinary, primary_key=True),
        Column("kind", Text, nullable=False),
        Column("identity_id", Uuid, ForeignKey("identities.id"), nullable=False),
        Column("address", Text, nullable=False),
        Column("created_at", moment, nullable=False),
        Column("expires_at", moment, nullable=False),
    )
    op.create_check_constraint("kind", "mail_keys", "kind IN ('reset', 'address')")
    op.create_index("ix_mail_keys_identity_id", "mail_keys", ["identity_id"])
    op.create_index("ix_mail_keys_expires_at", "mail_keys", ["expires_at"])
    op.create_table(
        "invitations",
        Column("id", Uuid, primary_key=True),
        Column("digest", LargeBinary, nullable=False),
        Column("address", Text, nullable=False),
        Column("organisation_id", Uuid, nullable=False),
        Column("on_kind", Text),
        Column("on_id", Uuid),
        Column("label", Text, nullable=False),
        Column("role", Text),
        Column("role_until", moment),
        Column("requires", ARRAY(Text), nullable=False, server_default="{}"),
        Column("note", Text, nullable=False),
        Column("by_manager", Boolean, nullable=False),
        Column("quota_bytes", BigInteger),
        Column("invited_by", Uuid, nullable=False),
        Column("proofs", ARRAY(Text), nullable=False, server_default="{}"),
        Column("entitlements", ARRAY(Text), nullable=False, server_default="{}"),
        Column("invited_at", moment, nullable=False),
        Column("sent_at", moment, nullable=False),
        Column("sent", Integer, nullable=False),
        Column("expires_at", moment, nullable=False),
        Column("revoked_at", moment),
        Column("accepted_at", moment),
        Column("accepted_by", Uuid),
    )
    op.create_unique_constraint("uq_invitations_digest", "invitations", ["digest"])
    op.create_check_constraint("on_kind", "invitations", "on_kind IN ('archive', 'account', 'organisation')")
    op.create_check_constraint("role", "invitations", "num_nonnulls(on_kind, on_id, role) IN (0, 3)")
    op.create_check_constraint("accepted", "invitations", "(accepted_at IS NULL) = (accepted_by IS NULL)")
    op.create_index("ix_invitations_on_id", "invitations", ["on_id"])
    op.create_index("ix_invitations_organisation_id", "invitations", ["organisation_id"])
    op.create_index("ix_invitations_invited_by", "invitations", ["invited_by", "sent_at"])
