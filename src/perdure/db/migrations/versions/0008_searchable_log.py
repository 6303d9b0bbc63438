"""The log of events is searched by what an event is about, by who acted, by type and by time."""

from __future__ import annotations

from alembic import op
from sqlalchemy import Column, Uuid, text
from sqlalchemy.dialects.postgresql import ARRAY

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

# As perdure.events.model.find_ids finds them in what was recorded before.
_FILL = """
UPDATE events SET about = found.ids
FROM (
    SELECT events.id, array_agg(DISTINCT hit[1]::uuid ORDER BY hit[1]::uuid) AS ids
    FROM events, regexp_matches(
        data::text, '"([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})"', 'g'
    ) AS hit
    GROUP BY events.id
) AS found
WHERE events.id = found.id
"""


def upgrade() -> None:
    op.add_column("events", Column("about", ARRAY(Uuid)))
    op.execute(_FILL)
    told, numbered = text("about IS NOT NULL"), text("number IS NOT NULL")
    op.create_index("ix_events_about", "events", ["about"], postgresql_using="gin", postgresql_where=told)
    op.create_index("ix_events_recorded_at", "events", ["recorded_at"], postgresql_using="brin")
    op.create_index("ix_events_type_number", "events", ["type", "number"], postgresql_where=numbered)
    op.create_index("ix_events_actor_number", "events", ["actor_id", "number"], postgresql_where=numbered)
