"""RO-Crate 1.2 metadata of an archive (https://www.researchobject.org/ro-crate/specification/1.2/).

The crate says what the archive is and where its lists of files stand. It has no entity for each file: a validator
takes minutes for some thousand, and the manifests say more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

from perdure.formats.citation import Affiliation, Citation, Creator, Licence, identifier_url, is_doi

CONTEXT = "https://w3id.org/ro/crate/1.2/context"
CONFORMS_TO = "https://w3id.org/ro/crate/1.2"
METADATA_NAME = "ro-crate-metadata.json"
MAX_FOLDERS = 100


@dataclass(frozen=True, slots=True)
class CrateFile:
    """A file of the head object that the crate describes: its path below the crate, media type and size in bytes."""

    path: str
    name: str
    media_type: str
    size: int | None = None
    sha256: str | None = None


def build_crate(
    citation: Citation, *, files: Sequence[CrateFile] = (), folders: Sequence[str] = (), licence_note: str = ""
) -> dict[str, object]:
    """The document `ro-crate-metadata.json`.

    `files` are those of the head object (manifests, statement); `folders` the names of the topmost folders of the
    content, of which the first 100 are named in the description, as their files lie in the parts. `licence_note`
    stands where no licence was chosen. Raises ValueError when two entities get one identifier.
    """
    licence = citation.licence or Licence(licence_note or "No licence was stated; ask the publisher.")
    entities: list[dict[str, object]] = [
        {
            "@id": METADATA_NAME,
            "@type": "CreativeWork",
            "conformsTo": {"@id": CONFORMS_TO},
            "about": {"@id": "./"},
        },
        _root_entity(citation, licence, files, folders),
        *(_file_entity(file) for file in files),
        *_creator_entities(citation.creators),
        _organisation_entity(citation.publisher),
        _licence_entity(licence),
        _identifier_entity(citation.identifier),
    ]
    if citation.parent:
        parent_url = identifier_url(citation.parent)
        entities.append({"@id": parent_url, "@type": "CreativeWork", "name": f"Parent archive {citation.parent}"})
    return {"@context": CONTEXT, "@graph": _unique(entities)}


def _root_entity(
    citation: Citation, licence: Licence, files: Sequence[CrateFile], folders: Sequence[str]
) -> dict[str, object]:
    root: dict[str, object] = {
        "@id": "./",
        "@type": "Dataset",
        "name": citation.title,
        "description": _describe(citation, folders),
        "datePublished": citation.issued.isoformat(),
        "identifier": {"@id": identifier_url(citation.identifier)},
        "license": {"@id": _licence_id(licence)},
        "creator": [{"@id": _creator_id(number, one)} for number, one in enumerate(citation.creators, start=1)],
        "publisher": {"@id": _organisation_id(citation.publisher)},
        "size": f"{citation.size} bytes",
    }
    if citation.subjects:
        root["keywords"] = list(citation.subjects)
    if citation.created:
        root["dateCreated"] = citation.created.isoformat()
    if files:
        root["hasPart"] = [{"@id": file.path} for file in files]
    if citation.parent:
        root["isBasedOn"] = {"@id": identifier_url(citation.parent)}
    if citation.landing_page:
        root["url"] = citation.landing_page
    return root


def _describe(citation: Citation, folders: Sequence[str]) -> str:
    text = citation.description or citation.title
    counted = f"{citation.file_count} files, {citation.size} bytes, listed in the checksum manifests of this crate."
    if not folders:
        return f"{text}\n\n{counted}"
    more = f" and {len(folders) - MAX_FOLDERS} more" if len(folders) > MAX_FOLDERS else ""
    return f"{text}\n\n{counted} Folders: {', '.join(folders[:MAX_FOLDERS])}{more}."


def _file_entity(file: CrateFile) -> dict[str, object]:
    entity: dict[str, object] = {
        "@id": file.path,
        "@type": "File",
        "name": file.name,
        "encodingFormat": file.media_type,
    }
    if file.size is not None:
        entity["contentSize"] = str(file.size)
    if file.sha256 is not None:
        entity["sha256"] = file.sha256
    return entity


def _creator_entities(creators: Sequence[Creator]) -> list[dict[str, object]]:
    entities: list[dict[str, object]] = []
    for number, creator in enumerate(creators, start=1):
        kind = "Organization" if creator.is_organisation else "Person"
        entity: dict[str, object] = {"@id": _creator_id(number, creator), "@type": kind, "name": creator.name}
        if creator.given_name:
            entity["givenName"] = creator.given_name
        if creator.family_name:
            entity["familyName"] = creator.family_name
        if creator.affiliations:
            entity["affiliation"] = [{"@id": _organisation_id(one)} for one in creator.affiliations]
        entities.append(entity)
        entities.extend(_organisation_entity(affiliation) for affiliation in creator.affiliations)
    return entities


def _organisation_entity(organisation: Affiliation) -> dict[str, object]:
    return {"@id": _organisation_id(organisation), "@type": "Organization", "name": organisation.name}


def _licence_entity(licence: Licence) -> dict[str, object]:
    entity: dict[str, object] = {"@id": _licence_id(licence), "@type": "CreativeWork", "name": licence.name}
    if licence.spdx:
        entity["identifier"] = licence.spdx
    return entity


def _identifier_entity(identifier: str) -> dict[str, object]:
    url = identifier_url(identifier)
    entity: dict[str, object] = {"@id": url, "@type": "PropertyValue", "value": identifier}
    if is_doi(identifier):
        entity |= {
            "propertyID": "https://registry.identifiers.org/registry/doi",
            "value": f"doi:{identifier}",
            "url": url,
        }
    return entity


def _creator_id(number: int, creator: Creator) -> str:
    """By ORCID, or by the place in the list: two people may share a name."""
    return f"https://orcid.org/{creator.orcid}" if creator.orcid else f"#creator-{number}"


def _organisation_id(organisation: Affiliation) -> str:
    return organisation.ror or f"#organisation-{quote(organisation.name, safe='')}"


def _licence_id(licence: Licence) -> str:
    if licence.url:
        return licence.url
    return f"https://spdx.org/licenses/{licence.spdx}" if licence.spdx else "#licence"


def _unique(entities: Sequence[dict[str, object]]) -> list[dict[str, object]]:
    """Each entity once, in order; an institution that is named twice is described by its first naming."""
    graph: dict[str, dict[str, object]] = {}
    for entity in entities:
        known = graph.setdefault(str(entity["@id"]), entity)
        if known["@type"] != entity["@type"]:
            raise ValueError(f"{entity['@id']!r} would be two things in the crate")
    return list(graph.values())
