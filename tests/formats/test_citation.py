"""The RO-Crate and the DataCite record of an archive hold what their standards require."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any, cast  # documents are read as the JSON that they are
from xml.etree.ElementTree import Element, fromstring

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.formats.canonical import canonical_json
from perdure.formats.citation import (
    Affiliation,
    Citation,
    Creator,
    Licence,
    RelatedIdentifier,
    identifier_url,
    is_doi,
    is_orcid,
)
from perdure.formats.datacite import datacite_attributes, datacite_xml
from perdure.formats.rocrate import CrateFile, build_crate

DESY = Affiliation("DESY", "https://ror.org/01js2sh04")
URN = "urn:uuid:01936f4e-8a7c-7def-8123-456789abcdef"
FULL = Citation(
    identifier="10.1234/abc",
    archive_urn=URN,
    title="Röntgen <& diffraction>",
    creators=(
        Creator("Josiah Carberry", "Josiah", "Carberry", "0000-0002-1825-0097", (DESY, Affiliation("Brown & Sons"))),
        Creator("The Collaboration", is_organisation=True),
        Creator("A. Smith"),
        Creator("A. Smith", affiliations=(DESY,)),
    ),
    publisher=DESY,
    issued=date(2026, 11, 20),
    description="What was\nmeasured",
    licence=Licence("Creative Commons Attribution 4.0", "CC-BY-4.0", "https://creativecommons.org/licenses/by/4.0/"),
    subjects=("X-ray", "lysozyme"),
    parent="10.1234/parent",
    related=(RelatedIdentifier("10.5555/paper", "DOI", "IsCitedBy"),),
    created=datetime(2026, 11, 19, 8, tzinfo=UTC),
    collected=(date(2026, 11, 1), date(2026, 11, 3)),
    file_count=3,
    size=12,
    formats=("application/x-hdf5",),
    language="en",
    landing_page="https://data.example.org/a",
)
BARE = Citation(URN, URN, "Title", (Creator("A. Smith"),), Affiliation("Lab"), date(2026, 1, 2))
FILES = (
    CrateFile("manifest-sha512.txt", "Checksums", "text/plain", 100, "ab" * 32),
    CrateFile("statement.json", "S", "application/json"),
)
texts = st.text(min_size=1, max_size=30)


def graph(document: Mapping[str, object]) -> dict[str, dict[str, Any]]:
    entities = cast("list[dict[str, Any]]", document["@graph"])
    by_id = {entity["@id"]: entity for entity in entities}
    assert len(by_id) == len(entities)
    return by_id


@pytest.mark.parametrize("citation", [FULL, BARE])
def test_a_crate_has_what_the_specification_requires(citation: Citation) -> None:
    document = build_crate(citation, files=FILES, folders=("scan_1", "scan_2"))
    entities = graph(document)
    assert document["@context"] == "https://w3id.org/ro/crate/1.2/context"
    descriptor, root = entities["ro-crate-metadata.json"], entities["./"]
    assert descriptor["@type"] == "CreativeWork"
    assert descriptor["about"] == {"@id": "./"}
    assert descriptor["conformsTo"] == {"@id": "https://w3id.org/ro/crate/1.2"}
    assert root["@type"] == "Dataset"
    assert root["name"] == citation.title
    assert root["description"]
    assert root["datePublished"] == citation.issued.isoformat()
    assert entities[root["license"]["@id"]]["name"]
    assert [part["@id"] for part in root["hasPart"]] == [file.path for file in FILES]


def references(value: object) -> list[str]:
    if isinstance(value, dict):
        if value.keys() == {"@id"}:
            return [value["@id"]]
        return [found for member in value.values() for found in references(member)]
    return [found for member in value for found in references(member)] if isinstance(value, list) else []


@pytest.mark.parametrize("citation", [FULL, BARE])
def test_a_crate_is_flat_and_describes_all_that_it_names(citation: Citation) -> None:
    document = build_crate(citation, files=FILES)
    entities = graph(json.loads(canonical_json(document)))
    outside = {"https://w3id.org/ro/crate/1.2"}
    assert set(references(document)) - outside <= entities.keys()
    assert all("@type" in entity for entity in entities.values())
    for entity in entities.values():
        for value in entity.values():
            assert not (isinstance(value, dict) and value.keys() != {"@id"})


def test_people_of_one_name_stay_two() -> None:
    entities = graph(build_crate(FULL))
    ids = [one["@id"] for one in entities["./"]["creator"]]
    assert ids == ["https://orcid.org/0000-0002-1825-0097", "#creator-2", "#creator-3", "#creator-4"]
    assert entities["#creator-2"]["@type"] == "Organization"
    assert entities["https://orcid.org/0000-0002-1825-0097"]["affiliation"] == [
        {"@id": "https://ror.org/01js2sh04"},
        {"@id": "#organisation-Brown%20%26%20Sons"},
    ]
    assert entities["./"]["isBasedOn"] == {"@id": "https://doi.org/10.1234/parent"}
    assert entities["https://doi.org/10.1234/abc"]["value"] == "doi:10.1234/abc"


def test_a_crate_stays_small_whatever_the_archive_holds() -> None:
    many = build_crate(replace(FULL, file_count=150_000), files=FILES, folders=[f"scan_{n:06d}" for n in range(10_000)])
    assert len(canonical_json(many)) < 10_000
    assert "9900 more" in graph(many)["./"]["description"]


def test_an_entity_cannot_be_two_things() -> None:
    with pytest.raises(ValueError, match="two things"):
        build_crate(
            replace(BARE, publisher=Affiliation("x", "https://ror.org/01js2sh04"), licence=Licence("y", url=DESY.ror))
        )


def test_datacite_attributes() -> None:
    attributes = datacite_attributes(FULL)
    assert attributes["doi"] == "10.1234/abc"
    assert attributes["types"] == {"resourceTypeGeneral": "Dataset", "resourceType": "Dataset"}
    assert attributes["publicationYear"] == 2026
    assert attributes["relatedIdentifiers"] == [
        {"relatedIdentifier": "10.1234/parent", "relatedIdentifierType": "DOI", "relationType": "IsSupplementTo"},
        {"relatedIdentifier": "10.5555/paper", "relatedIdentifierType": "DOI", "relationType": "IsCitedBy"},
    ]
    assert attributes["dates"] == [
        {"date": "2026-11-01/2026-11-03", "dateType": "Collected"},
        {"date": "2026-11-20", "dateType": "Issued"},
        {"date": "2026-11-19T08:00:00+00:00", "dateType": "Created"},
    ]
    creators = cast("list[dict[str, Any]]", attributes["creators"])
    assert creators[0]["name"] == "Carberry, Josiah"
    assert creators[0]["nameIdentifiers"][0]["nameIdentifier"] == "https://orcid.org/0000-0002-1825-0097"
    assert creators[0]["affiliation"][0]["affiliationIdentifier"] == "https://ror.org/01js2sh04"
    assert [one["nameType"] for one in creators] == ["Personal", "Organizational", "Personal", "Personal"]
    bare = datacite_attributes(BARE)
    assert not bare.keys() & {"doi", "url", "rightsList", "descriptions", "subjects", "relatedIdentifiers"}
    canonical_json(attributes)


def tags(element: Element) -> list[str]:
    return [child.tag.removeprefix("{http://datacite.org/schema/kernel-4}") for child in element]


# The elements of the schema 4.6, and the order of those inside a creator, which is fixed.
KNOWN = {
    "identifier", "creators", "titles", "publisher", "publicationYear", "resourceType", "subjects", "dates", "language",
    "alternateIdentifiers", "relatedIdentifiers", "sizes", "formats", "rightsList", "descriptions",
}  # fmt: skip
CREATOR = ["creatorName", "givenName", "familyName", "nameIdentifier", "affiliation", "affiliation"]


def test_datacite_xml_has_the_elements_of_the_schema() -> None:
    resource = fromstring(datacite_xml(FULL))  # noqa: S314 - our own output
    space = {"d": "http://datacite.org/schema/kernel-4"}
    assert resource.tag == "{http://datacite.org/schema/kernel-4}resource"
    assert len(tags(resource)) == len(set(tags(resource)))
    assert set(tags(resource)) == KNOWN
    creator = resource.find("d:creators/d:creator", space)
    assert creator is not None
    assert tags(creator) == CREATOR
    assert resource.findtext("d:titles/d:title", namespaces=space) == FULL.title
    rights = resource.find("d:rightsList/d:rights", space)
    assert rights is not None
    assert rights.attrib == {
        "rightsURI": "https://creativecommons.org/licenses/by/4.0/",
        "rightsIdentifier": "CC-BY-4.0",
        "rightsIdentifierScheme": "SPDX",
        "schemeURI": "https://spdx.org/licenses/",
    }
    required = set(tags(fromstring(datacite_xml(replace(BARE, identifier="10.1234/x")))))  # noqa: S314 - our own output
    assert required >= {"identifier", "creators", "titles", "publisher", "publicationYear", "resourceType"}


@given(texts, texts, texts)
def test_any_text_makes_well_formed_xml(title: str, name: str, subject: str) -> None:
    citation = replace(FULL, title=title, creators=(Creator(name),), subjects=(subject,), description=title)
    assert fromstring(datacite_xml(citation)) is not None  # noqa: S314 - our own output


def test_a_record_without_doi_has_no_xml_and_wrong_relations_are_refused() -> None:
    with pytest.raises(ValueError, match="DOI"):
        datacite_xml(BARE)
    with pytest.raises(ValueError, match="relation"):
        datacite_attributes(replace(BARE, related=(RelatedIdentifier("x", "URL", "Likes"),)))


@pytest.mark.parametrize(
    ("parent", "scheme"), [("10.1/x", "URL"), ("10.1234/x", "DOI"), (URN, "URN"), ("https://example.org", "URL")]
)
def test_the_scheme_of_the_parent(parent: str, scheme: str) -> None:
    related = cast("list[dict[str, str]]", datacite_attributes(replace(BARE, parent=parent))["relatedIdentifiers"])
    assert related[0]["relatedIdentifierType"] == scheme


def test_identifiers() -> None:
    assert is_orcid("0000-0002-1694-233X")
    assert not is_orcid("0000-0002-1694-2339")
    assert not is_orcid("0000000218250097")
    assert is_doi("10.1234/a(b)c")
    assert not is_doi("doi:10.1234/x")
    assert identifier_url("10.1234/x") == "https://doi.org/10.1234/x"
    assert identifier_url(URN) == URN
    with pytest.raises(ValueError, match="ORCID"):
        Creator("x", orcid="0000-0002-1825-0098")
    with pytest.raises(ValueError, match="ROR"):
        Affiliation("x", "ror.org/01js2sh04")
    with pytest.raises(ValueError, match="title"):
        replace(BARE, title="")
    with pytest.raises(ValueError, match="creator"):
        replace(BARE, creators=())
