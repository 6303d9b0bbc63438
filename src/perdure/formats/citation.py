"""What a citation of an archive is made of: the common source of the RO-Crate and the DataCite record."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Literal

IdentifierScheme = Literal["DOI", "URL", "URN", "Handle", "arXiv", "ISBN", "ISSN", "PMID"]
_ORCID = re.compile(r"\d{4}-\d{4}-\d{4}-\d{3}[\dX]")
_ROR = re.compile(r"https://ror\.org/0[a-hj-km-np-tv-z0-9]{6}\d{2}")


@dataclass(frozen=True, slots=True)
class Affiliation:
    """An institution; `ror` is its full address, `https://ror.org/…`."""

    name: str
    ror: str | None = None

    def __post_init__(self) -> None:
        if self.ror is not None and not _ROR.fullmatch(self.ror):
            raise ValueError(f"{self.ror!r} is not a ROR address")


@dataclass(frozen=True, slots=True)
class Creator:
    """Who made the data. `name` is shown as given; `orcid` is the bare identifier with its hyphens."""

    name: str
    given_name: str | None = None
    family_name: str | None = None
    orcid: str | None = None
    affiliations: Sequence[Affiliation] = ()
    is_organisation: bool = False

    def __post_init__(self) -> None:
        if self.orcid is not None and not is_orcid(self.orcid):
            raise ValueError(f"{self.orcid!r} is not an ORCID")


@dataclass(frozen=True, slots=True)
class Licence:
    """The conditions of use; `spdx` is the identifier of the SPDX list, `url` the text."""

    name: str
    spdx: str | None = None
    url: str | None = None


@dataclass(frozen=True, slots=True)
class RelatedIdentifier:
    """Another thing and how this archive relates to it, in the words of DataCite (`IsSupplementTo`)."""

    identifier: str
    scheme: IdentifierScheme
    relation: str


@dataclass(frozen=True, slots=True)
class Citation:
    """A citable archive. `identifier` is a bare DOI (`10.1234/abc`) or the archive's `urn:uuid:…`.

    `size` is in bytes; `issued` is when the data was made public, and its year is the publication year; `parent` is
    the identifier of the archive that this one was appended to.
    """

    identifier: str
    archive_urn: str
    title: str
    creators: Sequence[Creator]
    publisher: Affiliation
    issued: date
    description: str = ""
    licence: Licence | None = None
    subjects: Sequence[str] = ()
    parent: str | None = None
    related: Sequence[RelatedIdentifier] = ()
    created: datetime | None = None
    collected: tuple[date, date] | None = None
    file_count: int = 0
    size: int = 0
    formats: Sequence[str] = ()
    language: str | None = None
    landing_page: str | None = None

    def __post_init__(self) -> None:
        if not self.title or not self.creators:
            raise ValueError("a citation needs a title and a creator")


def is_orcid(text: str) -> bool:
    """Whether the text is an ORCID with its hyphens and the right check character (ISO 7064, 11-2)."""
    if not _ORCID.fullmatch(text):
        return False
    total = 0
    for digit in text.replace("-", "")[:-1]:
        total = (total + int(digit)) * 2
    check = (12 - total % 11) % 11
    return text[-1] == ("X" if check == 10 else str(check))


def is_doi(identifier: str) -> bool:
    """Whether the identifier is a bare DOI."""
    return bool(re.fullmatch(r"10\.\d{4,9}(\.\d+)*/\S+", identifier))


def identifier_url(identifier: str) -> str:
    """The address or URN of an identifier: a DOI through its resolver, anything else as it is."""
    return f"https://doi.org/{identifier}" if is_doi(identifier) else identifier
