"""The schema of the first release, as one SQL script: partitions and functions are no table objects of Alembic's."""

from __future__ import annotations

from pathlib import Path

from alembic import op

from perdure.db.engine import run_script

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    script = Path(__file__).with_suffix(".sql")
    run_script(op.get_bind(), script.read_text(encoding="utf-8"))
