"""Roles on organisations, and the role of curator."""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_constraint("ck_grants_on_kind", "grants")
    op.create_check_constraint("on_kind", "grants", "on_kind IN ('archive', 'account', 'organisation')")
    op.drop_constraint("ck_grants_role", "grants")
    op.create_check_constraint("role", "grants", "role IN ('owner', 'manager', 'contributor', 'reader', 'curator')")
    fitting = "on_kind <> 'organisation' OR role IN ('manager', 'curator')"
    op.create_check_constraint("role_fits", "grants", fitting)
