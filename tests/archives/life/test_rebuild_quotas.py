"""The limits of accounts and organisations come back from the stores; requests and counts are the backup's."""

from __future__ import annotations

from sqlalchemy import text

from perdure.archives.exporting import export_events, export_registry
from perdure.archives.rebuild import compare, rebuild
from perdure.archives.records import Context
from perdure.archives.reporting import count_usage
from perdure.kernel.actor import Actor

from .house import House


def test_limits_come_back(house: House, fresh: Context, ada: Actor) -> None:
    identity, root = house.ctx.identity, house.administrator
    account = identity.get_personal_account(ada)
    identity.change_organisation(root, account.organisation_id, quota_bytes=10**6)
    identity.change_account(root, account.id, quota_files=12)
    request = identity.request_quota(ada, account.id, asked_bytes=9000, reason="More.")
    identity.approve_quota_request(root, request.id)
    archive = house.open(ada)
    house.fill(archive, {b"a": b"one"})
    house.close(archive)
    assert count_usage(house.ctx) == 1
    export_registry(house.ctx)
    export_events(house.ctx)
    report = rebuild(fresh)
    assert report.problems == []
    assert compare(house.ctx.db, fresh.db) == []
    with fresh.db.begin() as tx:
        limits = fresh.identity.find_limits_in(tx, account.id)
        kept = [
            tx.execute(text("SELECT count(*) FROM quota_requests")).scalar_one(),
            tx.execute(text("SELECT count(*) FROM usage_snapshots")).scalar_one(),
        ]
    assert (limits.bytes, limits.files, limits.organisation_bytes) == (9000, 12, 10**6)
    assert kept == [0, 0]


def test_a_head_tells_the_limits_where_the_registry_is_lost(house: House, ada: Actor) -> None:
    account = house.ctx.identity.get_personal_account(ada)
    house.ctx.identity.change_organisation(house.administrator, account.organisation_id, quota_bytes=77)
    archive = house.open(ada)
    with house.ctx.db.begin() as tx:
        standing = house.ctx.identity.export_standing(tx, archive_id=archive.id, account_id=account.id)
        assert [row["quota_bytes"] for row in standing["organisations"]] == [77]
        for row in standing["organisations"]:
            del row["quota_bytes"]
        for row in standing["accounts"]:
            del row["quota_files"]
        house.ctx.identity.restore_standing(
            tx, standing, is_registry_known=True
        )  # of an older head; what is there stays
        assert house.ctx.identity.find_limits_in(tx, account.id).organisation_bytes == 77
