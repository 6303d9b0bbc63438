"""How the database itself is: size, connections, what it writes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, text


@dataclass(frozen=True, slots=True)
class DatabaseMeasures:
    """Sizes in bytes, times in seconds; `connections` are counted by state, over all databases that we may see.

    `written_bytes` is the position of the write-ahead log, `dead_rows` what vacuuming has not removed yet.
    """

    byte_count: int
    connections: Mapping[str, int]
    most_connections: int
    oldest_transaction: float
    written_bytes: int
    commits: int
    rollbacks: int
    deadlocks: int
    live_rows: int
    dead_rows: int


def measure_database(tx: Connection) -> DatabaseMeasures:
    """Read the database's own counts."""
    row = tx.execute(_MEASURES).one()
    return DatabaseMeasures(
        byte_count=row.byte_count,
        connections={found.state: found.number for found in tx.execute(_CONNECTIONS)},
        most_connections=row.most_connections,
        oldest_transaction=max(0.0, row.oldest_transaction),
        written_bytes=int(row.written_bytes),
        commits=row.xact_commit,
        rollbacks=row.xact_rollback,
        deadlocks=row.deadlocks,
        live_rows=int(row.live_rows),
        dead_rows=int(row.dead_rows),
    )


_MEASURES = text(
    """
    SELECT pg_database_size(current_database()) AS byte_count,
        current_setting('max_connections')::int AS most_connections,
        (SELECT coalesce(max(extract(epoch FROM clock_timestamp() - xact_start)), 0)::float8 FROM pg_stat_activity
            WHERE datname = current_database() AND pid <> pg_backend_pid()) AS oldest_transaction,
        CASE WHEN pg_is_in_recovery() THEN 0 ELSE pg_current_wal_lsn() - '0/0'::pg_lsn END AS written_bytes,
        (SELECT coalesce(sum(n_live_tup), 0) FROM pg_stat_user_tables) AS live_rows,
        (SELECT coalesce(sum(n_dead_tup), 0) FROM pg_stat_user_tables) AS dead_rows,
        xact_commit, xact_rollback, deadlocks
    FROM pg_stat_database WHERE datname = current_database()
    """
)
_CONNECTIONS = text(
    """
    SELECT coalesce(state, 'unknown') AS state, count(*) AS number FROM pg_stat_activity
    WHERE backend_type = 'client backend' GROUP BY 1
    """
)
