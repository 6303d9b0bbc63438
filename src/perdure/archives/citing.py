"""The archive as it is cited: what the RO-Crate, the DataCite record and the registrar are told (pure)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from perdure.archives.model import Archive, Description
from perdure.formats import citation
from perdure.formats.citation import Affiliation, Citation, Licence
from perdure.formats.datacite import datacite_attributes
from perdure.formats.rocrate import CrateFile, build_crate
from perdure.kernel.ids import short_form

UNAVAILABLE = "(:unav)"  # what DataCite wants where a required value is not known
_DESCRIBED = {
    "parts.json": "The parts that hold the files, with the digests of their inventories and manifests",
    "statement.json": "The signed closing statement",
    "superseded.ndjson": "Files in the parts that were replaced or removed before the archive was closed",
}


def landing_page(public_url: str, archive: Archive) -> str:
    """Where people read about the archive."""
    return f"{public_url}/archives/{short_form(archive.id)}"


def is_citable(description: Description) -> bool:
    """Whether a citation can be made: it needs a title and a creator."""
    return bool(description.title and description.creators)


def cite(archive: Archive, *, public_url: str, parent_identifier: str | None) -> Citation:
    """The archive's citation; `issued` is when it was closed, or opened while it is not."""
    description = archive.description
    return Citation(
        identifier=archive.identifier or archive.id.urn,
        archive_urn=archive.id.urn,
        title=description.title,
        creators=[_creator(creator) for creator in description.creators],
        publisher=Affiliation(description.publisher or UNAVAILABLE),
        issued=(archive.closed_at or archive.opened_at).date(),
        description=description.description,
        licence=_licence(description.licence),
        subjects=description.subjects,
        parent=parent_identifier,
        file_count=archive.file_count,
        size=archive.byte_count,
        landing_page=landing_page(public_url, archive),
    )


def build_datacite(archive: Archive, *, public_url: str, parent_identifier: str | None) -> dict[str, Any]:
    """The DataCite record, as the attributes of its REST API."""
    return datacite_attributes(cite(archive, public_url=public_url, parent_identifier=parent_identifier))


def build_tombstone_record(archive: Archive, *, public_url: str) -> dict[str, Any]:
    """What the registrar is told of a withdrawn archive: that it was, not where its data is."""
    record = build_datacite(archive, public_url=public_url, parent_identifier=None)
    return {name: value for name, value in record.items() if name not in ("sizes", "formats", "descriptions")}


def build_archive_crate(
    archive: Archive, *, public_url: str, parent_identifier: str | None, files: Sequence[str], folders: Sequence[str]
) -> dict[str, object]:
    """The RO-Crate of the head; `files` are the head's own, of which those that a reader needs are described."""
    described = [
        CrateFile(name, text, "application/x-ndjson" if name.endswith(".ndjson") else "application/json")
        for name, text in _DESCRIBED.items()
        if name in files
    ]
    return build_crate(
        cite(archive, public_url=public_url, parent_identifier=parent_identifier), files=described, folders=folders
    )


def _creator(creator: Any) -> citation.Creator:  # a model.Creator; both rooms have a class of this name
    affiliations = [Affiliation(creator.affiliation or creator.affiliation_ror, creator.affiliation_ror)]
    has_affiliation = creator.affiliation or creator.affiliation_ror
    return citation.Creator(creator.name, orcid=creator.orcid, affiliations=affiliations if has_affiliation else ())


def _licence(licence: str) -> Licence | None:
    """An address is taken as one, a short word as an identifier of the SPDX list."""
    if not licence:
        return None
    if licence.startswith(("https://", "http://")):
        return Licence(licence, url=licence)
    is_spdx = licence.isascii() and all(letter.isalnum() or letter in "-.+" for letter in licence)
    return Licence(licence, spdx=licence if is_spdx else None)
