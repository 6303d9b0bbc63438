"""What every registrar promises; each implementation passes the same tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from perdure.adapters.registrar import FolderRegistrar, MemoryRegistrar
from perdure.archives.errors import UnknownIdentifierError
from perdure.archives.ports import Registrar
from perdure.formats.citation import is_doi
from perdure.kernel.ids import new_id

RECORD = {"titles": [{"title": "Scan of a leaf"}]}


@pytest.fixture(params=[lambda folder: MemoryRegistrar(), lambda folder: FolderRegistrar(folder / "dois")])
def registrar(request: pytest.FixtureRequest, tmp_path: Path) -> Registrar:
    make: Callable[[Path], Registrar] = request.param
    return make(tmp_path)


def test_one_identifier_for_each_archive(registrar: Registrar) -> None:
    one, other = new_id(), new_id()
    first = registrar.reserve(one)
    assert is_doi(first.identifier)
    assert (first.state, registrar.reserve(one)) == ("reserved", first)
    assert registrar.reserve(other).identifier != first.identifier


def test_states_follow_each_other_and_may_be_repeated(registrar: Registrar) -> None:
    identifier = registrar.reserve(new_id()).identifier
    for _ in range(2):
        assert registrar.register(identifier, RECORD, "https://example.org/a").state == "registered"
    for _ in range(2):
        assert registrar.tombstone(identifier, RECORD, "https://example.org/a").state == "tombstone"
    assert registrar.get(identifier).state == "tombstone"


def test_reserving_again_forgets_nothing(registrar: Registrar) -> None:
    archive = new_id()
    identifier = registrar.reserve(archive).identifier
    registrar.register(identifier, RECORD, "https://example.org/a")
    assert registrar.reserve(archive).state == "registered"


def test_unknown_identifiers_are_refused(registrar: Registrar) -> None:
    with pytest.raises(UnknownIdentifierError):
        registrar.get("10.5072/nothing")
    with pytest.raises(UnknownIdentifierError):
        registrar.register("10.5072/nothing", RECORD, "https://example.org")
    with pytest.raises(UnknownIdentifierError):
        registrar.tombstone("10.5072/nothing", RECORD, "https://example.org")


def test_local_identifiers_are_marked_as_tests(registrar: Registrar) -> None:
    made = registrar.reserve(new_id())
    assert made.is_test
    assert made.identifier.startswith("10.5072/")


def test_a_folder_remembers(tmp_path: Path) -> None:
    archive = new_id()
    identifier = FolderRegistrar(tmp_path).reserve(archive).identifier
    FolderRegistrar(tmp_path).register(identifier, RECORD, "https://example.org/a")
    assert FolderRegistrar(tmp_path).get(identifier).state == "registered"
