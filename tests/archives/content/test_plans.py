"""How the database goes through the rows of an archive about which it has no statistics yet."""

from __future__ import annotations

import random
from uuid import UUID

import pytest
from sqlalchemy import Connection, text

from perdure.archives import entries
from perdure.archives.entries import find_own, find_visible, iter_visible

from .workshop import Workshop

ROWS = text(
    """
    INSERT INTO files (archive_id, path, kind, size, mtime_ns, mode, digest, crc32, part, added_at)
    SELECT :archive, convert_to(lpad(n::text, 7, '0'), 'UTF8'), 0, 1, 1, 420, sha512(n::text::bytea), n, 1, now()
    FROM generate_series(1, 20000) AS n
    """
)

READ = text("SELECT sum(idx_tup_fetch + seq_tup_read) FROM pg_stat_xact_user_tables WHERE relname LIKE 'files%'")
QUERY = """
    PREPARE page AS SELECT * FROM files WHERE archive_id = $1 AND path >= $2 ORDER BY path LIMIT $3
"""


def explain(tx: Connection, archive: UUID) -> str:
    """The plan that a page of the archive gets, as the transaction stands."""
    rows = tx.execute(text(f"EXPLAIN EXECUTE page ('{archive}', '0010000', 1001)")).scalars()
    return "\n".join(rows)


def test_a_page_is_read_from_the_index_before_there_are_statistics(shop: Workshop) -> None:
    archive = shop.open()
    with shop.ctx.db.begin() as tx:
        tx.execute(ROWS, {"archive": archive.id})
        tx.execute(text(QUERY))
        assert "Bitmap" in explain(tx, archive.id)  # why it is not left to the planner
        assert next(iter_visible(tx, [archive.id], start=b"0010000", chunk=1001)).path == b"0010000"
        plan = explain(tx, archive.id)
        tx.execute(text("DEALLOCATE page"))
    assert "Index Scan" in plan
    assert "Bitmap" not in plan


def test_many_paths_are_probed_one_by_one_before_there_are_statistics(shop: Workshop) -> None:
    archive = shop.open()
    paths = [b"%07d" % number for number in range(1, 2001)]
    with shop.ctx.db.begin() as tx:
        tx.execute(ROWS, {"archive": archive.id})
    with shop.ctx.db.begin() as tx:
        before = tx.execute(READ).scalar_one()
        assert len(find_own(tx, archive.id, paths)) == len(paths)
        assert len(find_visible(tx, [archive.id], paths)) == len(paths)
        assert tx.execute(READ).scalar_one() - before <= 2 * len(paths) + 100


@pytest.mark.parametrize("stretch", [1, 2, 7, 250])
def test_many_paths_are_found_whatever_lies_between_them(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch, stretch: int
) -> None:
    monkeypatch.setattr(entries, "_STRETCH", stretch)
    archive, other = shop.open(), shop.open()
    chance = random.Random(stretch)
    names = [b"%d/%03d" % (folder, number) for folder in range(3) for number in range(100)]
    there = set(chance.sample(names[:150], 40) + names[240:250])
    shop.put_all(archive, dict.fromkeys(there, b"1"))
    shop.put_all(other, dict.fromkeys(names, b"2"))
    with shop.ctx.db.begin() as tx:
        for count in (0, 1, 30, 299):
            asked = chance.sample(names, count)
            assert find_own(tx, archive.id, asked).keys() == there & set(asked)
            assert find_visible(tx, [archive.id], asked).keys() == there & set(asked)
