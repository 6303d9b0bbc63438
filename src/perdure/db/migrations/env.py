"""What Alembic runs for each command; the connection comes from the runner, inside its transaction."""

from __future__ import annotations

from alembic import context

from perdure.db.migrations.runner import collect_tables


def _run() -> None:
    context.configure(
        connection=context.config.attributes["connection"],
        target_metadata=collect_tables(),
        compare_type=True,
        compare_server_default=True,
        include_name=lambda name, kind, _: not (kind == "table" and (name or "").startswith("procrastinate_")),
    )
    with context.begin_transaction():
        context.run_migrations()


_run()
