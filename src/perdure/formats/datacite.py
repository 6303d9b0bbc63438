"""A DataCite record of an archive, metadata schema 4.6, as the attributes of its REST API and as XML.

https://datacite-metadata-schema.readthedocs.io/en/4.6/ ; the XML keeps the order of elements of its XSD.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from perdure.formats.citation import Affiliation, Citation, Creator, IdentifierScheme, RelatedIdentifier, is_doi

NAMESPACE = "http://datacite.org/schema/kernel-4"
SCHEMA_LOCATION = "https://schema.datacite.org/meta/kernel-4.6/metadata.xsd"
RELATION_TYPES = frozenset({
    "IsCitedBy", "Cites", "IsCollectedBy", "Collects", "IsSupplementTo", "IsSupplementedBy", "IsContinuedBy",
    "Continues", "IsDescribedBy", "Describes", "HasMetadata", "IsMetadataFor", "HasVersion", "IsVersionOf",
    "IsNewVersionOf", "IsPartOf", "IsPreviousVersionOf", "IsPublishedIn", "HasPart", "IsReferencedBy", "References",
    "IsDocumentedBy", "Documents", "IsCompiledBy", "Compiles", "IsVariantFormOf", "IsOriginalFormOf", "IsIdenticalTo",
    "IsReviewedBy", "Reviews", "IsDerivedFrom", "IsSourceOf", "IsRequiredBy", "Requires", "Obsoletes",
    "IsObsoletedBy", "HasTranslation", "IsTranslationOf",
})  # fmt: skip
_XSI = "http://www.w3.org/2001/XMLSchema-instance"
_XML_LANG = "{http://www.w3.org/XML/1998/namespace}lang"
_ORCID_SCHEME = {"nameIdentifierScheme": "ORCID", "schemeUri": "https://orcid.org"}
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def datacite_attributes(citation: Citation) -> dict[str, object]:
    """The record as the `attributes` of the REST API, without what is empty; `url` only where there is a page."""
    issued = citation.issued.isoformat()
    attributes: dict[str, object] = {
        "alternateIdentifiers": [{"alternateIdentifier": citation.archive_urn, "alternateIdentifierType": "URN"}],
        "creators": [_creator_attributes(creator) for creator in citation.creators],
        "titles": [{"title": citation.title}],
        "publisher": _publisher_attributes(citation.publisher),
        "publicationYear": citation.issued.year,
        "types": {"resourceTypeGeneral": "Dataset", "resourceType": "Dataset"},
        "subjects": [{"subject": subject} for subject in citation.subjects],
        "dates": [{"date": date, "dateType": kind} for kind, date in _dates(citation, issued)],
        "language": citation.language,
        "relatedIdentifiers": [_related_attributes(related) for related in _related(citation)],
        "sizes": _sizes(citation),
        "formats": list(citation.formats),
        "rightsList": [_rights(citation)] if citation.licence else [],
        "descriptions": _description_attributes(citation),
        "url": citation.landing_page,
        "schemaVersion": NAMESPACE,
    }
    if is_doi(citation.identifier):
        attributes["doi"] = citation.identifier
    return {name: value for name, value in attributes.items() if value not in (None, [], "")}


def datacite_xml(citation: Citation) -> bytes:
    """The record as XML; raises ValueError without a DOI, which the schema requires.

    Characters that XML cannot carry are replaced by U+FFFD.
    """
    if not is_doi(citation.identifier):
        raise ValueError(f"{citation.identifier!r} is not a DOI")
    resource = Element("resource", {"xmlns": NAMESPACE, "xmlns:xsi": _XSI})
    resource.set("xsi:schemaLocation", f"{NAMESPACE} {SCHEMA_LOCATION}")
    _put(resource, "identifier", citation.identifier, identifierType="DOI")
    _put_creators(resource, citation.creators)
    _put(SubElement(resource, "titles"), "title", citation.title)
    _put(resource, "publisher", citation.publisher.name, **_publisher_xml(citation.publisher))
    _put(resource, "publicationYear", f"{citation.issued.year:04d}")
    _put(resource, "resourceType", "Dataset", resourceTypeGeneral="Dataset")
    _put_all(resource, "subjects", "subject", ((subject, {}) for subject in citation.subjects))
    dates = _dates(citation, citation.issued.isoformat())
    _put_all(resource, "dates", "date", ((date, {"dateType": kind}) for kind, date in dates))
    if citation.language:
        _put(resource, "language", citation.language)
    urn = (citation.archive_urn, {"alternateIdentifierType": "URN"})
    _put_all(resource, "alternateIdentifiers", "alternateIdentifier", [urn])
    _put_all(resource, "relatedIdentifiers", "relatedIdentifier", map(_related_xml, _related(citation)))
    _put_all(resource, "sizes", "size", ((size, {}) for size in _sizes(citation)))
    _put_all(resource, "formats", "format", ((name, {}) for name in citation.formats))
    _put_rights(resource, citation)
    if citation.description:
        abstract = SubElement(resource, "descriptions")
        _put(abstract, "description", citation.description, descriptionType="Abstract")
    indent(resource)
    text: bytes = tostring(resource, encoding="utf-8", xml_declaration=True)
    return text + b"\n"


# What both forms say


def _dates(citation: Citation, issued: str) -> list[tuple[str, str]]:
    dates = [("Issued", issued)]
    if citation.collected:
        first, last = citation.collected
        dates.insert(0, ("Collected", f"{first.isoformat()}/{last.isoformat()}"))
    if citation.created:
        dates.append(("Created", citation.created.isoformat()))
    return dates


def _related(citation: Citation) -> list[RelatedIdentifier]:
    related = list(citation.related)
    if citation.parent:
        scheme = _scheme_of(citation.parent)
        related.insert(0, RelatedIdentifier(citation.parent, scheme, "IsSupplementTo"))
    unknown = {one.relation for one in related} - RELATION_TYPES
    if unknown:
        raise ValueError(f"{min(unknown)!r} is not a relation of DataCite")
    return related


def _scheme_of(identifier: str) -> IdentifierScheme:
    if is_doi(identifier):
        return "DOI"
    return "URN" if identifier.startswith("urn:") else "URL"


def _sizes(citation: Citation) -> list[str]:
    return [f"{citation.size} bytes", f"{citation.file_count} files"]


# JSON


def _creator_attributes(creator: Creator) -> dict[str, object]:
    attributes: dict[str, object] = {"name": _datacite_name(creator), "nameType": _name_type(creator)}
    if creator.given_name:
        attributes["givenName"] = creator.given_name
    if creator.family_name:
        attributes["familyName"] = creator.family_name
    if creator.orcid:
        attributes["nameIdentifiers"] = [{"nameIdentifier": f"https://orcid.org/{creator.orcid}", **_ORCID_SCHEME}]
    if creator.affiliations:
        attributes["affiliation"] = [_affiliation_attributes(affiliation) for affiliation in creator.affiliations]
    return attributes


def _affiliation_attributes(affiliation: Affiliation) -> dict[str, str]:
    if affiliation.ror is None:
        return {"name": affiliation.name}
    return {
        "name": affiliation.name,
        "affiliationIdentifier": affiliation.ror,
        "affiliationIdentifierScheme": "ROR",
        "schemeUri": "https://ror.org",
    }


def _publisher_attributes(publisher: Affiliation) -> dict[str, str]:
    if publisher.ror is None:
        return {"name": publisher.name}
    return {
        "name": publisher.name,
        "publisherIdentifier": publisher.ror,
        "publisherIdentifierScheme": "ROR",
        "schemeUri": "https://ror.org",
    }


def _related_attributes(related: RelatedIdentifier) -> dict[str, str]:
    return {
        "relatedIdentifier": related.identifier,
        "relatedIdentifierType": related.scheme,
        "relationType": related.relation,
    }


def _rights(citation: Citation) -> dict[str, str]:
    licence = citation.licence
    if licence is None:
        return {}
    rights = {"rights": licence.name}
    if licence.url:
        rights["rightsUri"] = licence.url
    if licence.spdx:
        rights |= {
            "rightsIdentifier": licence.spdx,
            "rightsIdentifierScheme": "SPDX",
            "schemeUri": "https://spdx.org/licenses/",
        }
    return rights


def _description_attributes(citation: Citation) -> list[dict[str, str]]:
    return [{"description": citation.description, "descriptionType": "Abstract"}] if citation.description else []


def _datacite_name(creator: Creator) -> str:
    """Family, Given where both are known."""
    if creator.given_name and creator.family_name and not creator.is_organisation:
        return f"{creator.family_name}, {creator.given_name}"
    return creator.name


def _name_type(creator: Creator) -> str:
    return "Organizational" if creator.is_organisation else "Personal"


# XML


def _put(parent: Element, tag: str, text: str, **attributes: str) -> Element:
    element = SubElement(parent, tag, {name: _clean(value) for name, value in attributes.items()})
    element.text = _clean(text)
    return element


def _put_all(parent: Element, wrapper: str, tag: str, values: Iterable[tuple[str, Mapping[str, str]]]) -> None:
    listed = list(values)
    if listed:
        element = SubElement(parent, wrapper)
        for text, attributes in listed:
            _put(element, tag, text, **attributes)


def _put_creators(resource: Element, creators: Iterable[Creator]) -> None:
    wrapper = SubElement(resource, "creators")
    for creator in creators:
        element = SubElement(wrapper, "creator")
        _put(element, "creatorName", _datacite_name(creator), nameType=_name_type(creator))
        if creator.given_name:
            _put(element, "givenName", creator.given_name)
        if creator.family_name:
            _put(element, "familyName", creator.family_name)
        if creator.orcid:
            scheme = {"nameIdentifierScheme": "ORCID", "schemeURI": "https://orcid.org"}
            _put(element, "nameIdentifier", f"https://orcid.org/{creator.orcid}", **scheme)
        for affiliation in creator.affiliations:
            attributes = _affiliation_attributes(affiliation)
            name = attributes.pop("name")
            _put(element, "affiliation", name, **_xml_names(attributes))


def _put_rights(resource: Element, citation: Citation) -> None:
    rights = _rights(citation)
    if rights:
        name = rights.pop("rights")
        _put(SubElement(resource, "rightsList"), "rights", name, **_xml_names(rights))


def _publisher_xml(publisher: Affiliation) -> dict[str, str]:
    attributes = _publisher_attributes(publisher)
    del attributes["name"]
    return _xml_names(attributes)


def _related_xml(related: RelatedIdentifier) -> tuple[str, dict[str, str]]:
    return related.identifier, {"relatedIdentifierType": related.scheme, "relationType": related.relation}


def _xml_names(attributes: Mapping[str, str]) -> dict[str, str]:
    """JSON says `schemeUri` and `rightsUri` where XML says `schemeURI` and `rightsURI`."""
    return {name.replace("Uri", "URI"): value for name, value in attributes.items()}


def _clean(text: str) -> str:
    return _NOT_XML.sub("\ufffd", text)
