"""People who come from outside: terms of use, applications, and groups that follow from claims."""

from __future__ import annotations

from alembic import op
from sqlalchemy import Column, ForeignKey, Integer, Text, Uuid
from sqlalchemy.dialects.postgresql import TIMESTAMP

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    moment = TIMESTAMP(timezone=True)
    op.add_column("identities", Column("accepted_terms", Integer))
    op.add_column("identities", Column("accepted_at", moment))
    op.add_column("group_members", Column("source", Text, nullable=False, server_default="local"))
    op.add_column("group_members", Column("issuer", Text))
    op.create_check_constraint("source", "group_members", "source IN ('local', 'claim')")
    op.create_check_constraint("issuer", "group_members", "(source = 'claim') = (issuer IS NOT NULL)")
    op.create_table(
        "claim_rules",
        Column("id", Uuid, primary_key=True),
        Column("group_id", Uuid, ForeignKey("groups.id"), nullable=False),
        Column("issuer", Text, nullable=False),
        Column("entitlement", Text, nullable=False),
    )
    op.create_index("ix_claim_rules_group_id", "claim_rules", ["group_id"])
    op.create_index("ix_claim_rules_issuer", "claim_rules", ["issuer"])
    op.create_unique_constraint(
        "uq_claim_rules_group_id_issuer_entitlement", "claim_rules", ["group_id", "issuer", "entitlement"]
    )
    op.create_table(
        "terms",
        Column("version", Integer, primary_key=True, autoincrement=False),
        Column("text", Text, nullable=False),
        Column("published_at", moment, nullable=False),
    )
    op.create_table(
        "applications",
        Column("id", Uuid, primary_key=True),
        Column("kind", Text, nullable=False),
        Column("subject", Text, nullable=False),
        Column("secret", Text),
        Column("display_name", Text, nullable=False),
        Column("email", Text),
        Column("orcid", Text),
        Column("organisation_id", Uuid, ForeignKey("organisations.id")),
        Column("reason", Text, nullable=False),
        Column("state", Text, nullable=False),
        Column("accepted_terms", Integer),
        Column("applied_at", moment, nullable=False),
        Column("decided_at", moment),
        Column("decided_by", Uuid),
        Column("note", Text),
        Column("identity_id", Uuid, ForeignKey("identities.id")),
    )
    op.create_index("ix_applications_organisation_id", "applications", ["organisation_id"])
    op.create_unique_constraint("uq_applications_kind_subject", "applications", ["kind", "subject"])
    op.create_check_constraint("state", "applications", "state IN ('pending', 'approved', 'refused')")
