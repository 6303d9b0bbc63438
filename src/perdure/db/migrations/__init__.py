"""The schema's revisions, and how a database is brought to the newest one."""

from perdure.db.migrations.runner import (
    SchemaState,
    collect_tables,
    migrate,
    require_current_schema,
    schema_state,
)

__all__ = ["SchemaState", "collect_tables", "migrate", "require_current_schema", "schema_state"]
