"""Nothing is served from a database that does not know what the stores hold."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import text

from perdure.app.supervisor import DatabaseLostError, _require_whole
from perdure.archives.errors import DatabaseBehindError
from perdure.db import Database
from perdure.db.migrations import SchemaState
from perdure.doors.admin import doctor
from perdure.settings import Settings, StoreSettings, settings_from


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    made = settings_from({"data_dir": str(tmp_path)})
    return replace(
        made, stores=(StoreSettings("first", tmp_path / "first"), StoreSettings("second", tmp_path / "second"))
    )


def put_object(store: StoreSettings) -> None:
    folder = store.path / "root" / "abc" / "object"
    folder.mkdir(parents=True)
    (folder / "0=ocfl_object_1.1").touch()


def test_a_new_installation_and_one_that_knows_its_stores_are_served(settings: Settings, db: Database) -> None:
    _require_whole(settings, db.url)
    put_object(settings.stores[1])
    with db.begin() as tx:
        tx.execute(text("INSERT INTO objects VALUES ('urn:a', 'part', NULL, 1, '00', 0)"))
    _require_whole(settings, db.url)


def test_a_new_database_over_stores_in_use_is_refused(settings: Settings, db: Database) -> None:
    put_object(settings.stores[1])
    with pytest.raises(DatabaseLostError, match="second"):
        _require_whole(settings, db.url)


def test_a_database_that_is_half_rebuilt_is_refused(settings: Settings, db: Database) -> None:
    with db.begin() as tx:
        tx.execute(text("INSERT INTO export_state (name, position) VALUES ('rebuild', 0)"))
    with pytest.raises(DatabaseLostError, match="interrupted"):
        _require_whole(settings, db.url)


def test_a_database_older_than_its_stores_is_refused(
    settings: Settings, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "schema_state", lambda url: SchemaState.CURRENT)
    settings.stores[1].path.mkdir()
    (settings.stores[1].path / "position.json").write_bytes(b'{"events":1,"format":1}')
    with pytest.raises(DatabaseBehindError, match="The store second knows of events up to 1"):
        _require_whole(settings, db.url)
    (finding,) = [one for one in doctor.examine(replace(settings, database_url=db.url)) if one.name == "database age"]
    assert (finding.is_well, "rebuild" in finding.mend) == (False, True)
    (settings.stores[1].path / "position.json").write_bytes(b'{"events":0,"format":1}')
    _require_whole(settings, db.url)
