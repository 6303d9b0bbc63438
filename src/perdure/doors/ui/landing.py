"""What a landing page shows, made of what the use cases say may be shown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

from perdure.archives.finding import ArchiveView, PublicPage
from perdure.archives.listing import EntryPage
from perdure.archives.model import Access, Archive, ArchiveState, Creator, Entry, EntryKind
from perdure.archives.reading import CopyView
from perdure.doors.http.paths import encode_logical_path
from perdure.doors.http.services import Place
from perdure.doors.ui.words import COPY_TONES, say_copies, say_day
from perdure.identity import Action
from perdure.kernel.ids import short_form
from perdure.kernel.paths import display_path

_STATES = {
    ArchiveState.OPEN: ("moving", "◐", "Open: content is still being added, and nothing is final yet."),
    ArchiveState.CLOSING: ("moving", "◐", "Being closed: copies are written and read back."),
    ArchiveState.CLOSED: ("kept", "●", "Closed: the content never changes."),
    ArchiveState.WITHDRAWN: ("rest", "○", "Withdrawn: the content is gone, its record stays."),
    ArchiveState.DISCARDED: ("rest", "○", "Discarded before it was closed."),
}
_WORST_FIRST = ("lost", "suspect", "writing", "written", "verified")
_SPDX = "https://spdx.org/licenses/"

_NOT_SEEN = "This archive is not public. Its identifier is kept; ask its owner for access."
_NOT_READ = "You may see what this archive is, not what it holds. Ask its owner if you need to read it."


@dataclass(frozen=True, slots=True)
class Row:
    """One name at the top of the archive; `url` only for files."""

    name: str
    kind: str
    size: int | None
    url: str | None
    inherited: bool


@dataclass(frozen=True, slots=True)
class Stratum:
    """All copies in one store as one layer of the picture, in the state of the worst of them."""

    store: str
    place: str
    state: str
    tone: str
    shape: str
    verified_at: datetime | None


@dataclass(frozen=True, slots=True)
class Landing:
    """The content of the page. Whatever may not be shown is empty here, so that the template cannot show it."""

    short_id: str
    title: str
    state: str
    tone: str
    shape: str
    state_words: str
    identifier: str | None
    is_test_identifier: bool
    may_read: bool
    is_indexed: bool
    closed_door: str = ""
    tombstone: Mapping[str, str] | None = None
    description: str = ""
    creators: Sequence[Creator] = ()
    subjects: Sequence[str] = ()
    publisher: str = ""
    licence: str = ""
    licence_url: str | None = None
    access: str = ""
    access_url: str | None = None
    opened_at: datetime | None = None
    closed_at: datetime | None = None
    keep_until: date | None = None
    files: int | None = None
    size: int | None = None
    citation: str = ""
    parent_url: str | None = None
    children: Sequence[str] = ()
    folders: Sequence[Row] = ()
    has_more: bool = False
    copies: Sequence[Stratum] = ()
    copies_words: str = ""
    download_url: str | None = None
    entries_url: str = ""
    manifest_url: str = ""
    root: str = ""
    proofs: Sequence[Mapping[str, str]] = field(default_factory=tuple)


def make_landing(
    page: PublicPage, view: ArchiveView | None, entries: EntryPage | None, copies: Sequence[CopyView], place: Place
) -> Landing:
    """The page of an archive; without `view` only what everybody may know of it, without `entries` no content."""
    tone, shape, words = _STATES[page.state]
    shown: dict[str, Any] = {  # Any: fields of Landing, each with its own type
        "short_id": short_form(page.id),
        "title": page.title,
        "state": page.state.value,
        "tone": tone,
        "shape": shape,
        "state_words": words,
        "identifier": page.identifier,
        "is_test_identifier": page.is_test_identifier,
        "may_read": page.may_read,
        "is_indexed": False,
        "closed_door": _NOT_SEEN if view is None else _NOT_READ,
        "tombstone": _tombstone(page.tombstone),
    }
    if view is not None:
        shown |= _record(view, place)
    if view is not None and entries is not None:
        shown |= _content(view.archive, entries, place) | _copies(copies, view.archive)
    return Landing(**shown)


def build_json_ld(landing: Landing, url: str) -> dict[str, object] | None:
    """The page for machines: a Dataset of schema.org; None when nothing may be told."""
    if not landing.may_read:
        return None
    found: dict[str, object] = {
        "@context": "https://schema.org",
        "@type": "Dataset",
        "@id": url,
        "url": url,
        "name": landing.title,
        "description": landing.description,
        "creator": [_person(creator) for creator in landing.creators],
        "keywords": list(landing.subjects),
        "isAccessibleForFree": landing.access.startswith("public"),
    }
    if landing.identifier and not landing.is_test_identifier:
        found["identifier"] = f"https://doi.org/{landing.identifier}"
    elif landing.identifier:
        found["identifier"] = landing.identifier
    if landing.publisher:
        found["publisher"] = {"@type": "Organization", "name": landing.publisher}
    if landing.licence:
        found["license"] = landing.licence_url or landing.licence
    if landing.closed_at:
        found["datePublished"] = say_day(landing.closed_at)
    return found


def _record(view: ArchiveView, place: Place) -> dict[str, Any]:  # Any: fields of Landing
    archive, description = view.archive, view.archive.description
    return {
        "is_indexed": archive.state is ArchiveState.CLOSED and archive.access is Access.PUBLIC,
        "description": description.description,
        "creators": [_linked(creator) for creator in description.creators],
        "subjects": description.subjects,
        "publisher": description.publisher,
        "licence": description.licence,
        "licence_url": _licence_url(description.licence),
        "access": _say_access(archive),
        "access_url": f"/archives/{short_form(archive.id)}/access" if Action.MANAGE in view.actions else None,
        "opened_at": archive.opened_at,
        "closed_at": archive.closed_at,
        "keep_until": archive.keep_until,
        "files": archive.file_count,
        "size": archive.byte_count,
        "citation": _cite(archive, place) if archive.state is ArchiveState.CLOSED else "",
        "parent_url": f"/archives/{short_form(archive.parent_id)}" if archive.parent_id else None,
        "children": [f"/archives/{short_form(child)}" for child in view.children],
    }


def _content(archive: Archive, entries: EntryPage, place: Place) -> dict[str, Any]:  # Any: as above
    base, data = f"/api/v1/archives/{archive.id}", f"{place.data_url}/api/v1/archives/{archive.id}"
    found: dict[str, Any] = {
        "entries_url": f"{base}/entries?recursive=true",
        "manifest_url": f"{base}/manifest",
        "folders": [_row(entry, archive, data) for entry in entries.items],
        "has_more": entries.next_cursor is not None,
    }
    if archive.state is not ArchiveState.CLOSED:
        return found
    return found | {"download_url": f"{data}/download", "root": _merkle_root(archive), "proofs": _proofs(base)}


def _row(entry: Entry, archive: Archive, data: str) -> Row:
    is_file = entry.kind is EntryKind.FILE
    return Row(
        name=display_path(entry.path.rpartition(b"/")[2]),
        kind={EntryKind.DIRECTORY: "folder", EntryKind.SYMLINK: "link"}.get(entry.kind, entry.kind.value),
        size=entry.size if is_file else None,
        url=f"{data}/files/{encode_logical_path(entry.path)}" if is_file else None,
        inherited=entry.archive_id != archive.id,
    )


def _proofs(base: str) -> tuple[Mapping[str, str], ...]:
    return (
        {"name": "Closing statement", "url": f"{base}/statement", "what": "signed; covers every file"},
        {"name": "Manifest", "url": f"{base}/manifest", "what": "one line for each entry"},
        {"name": "manifest-sha512.txt", "url": f"{base}/manifest-sha512.txt", "what": "for sha512sum -c"},
        {"name": "Receipt", "url": f"{base}/receipt", "what": "signed; that the source may go"},
        {"name": "RO-Crate", "url": f"{base}/ro-crate", "what": "the record for machines"},
        {"name": "DataCite record", "url": f"{base}/datacite", "what": "as registered"},
    )


def _merkle_root(archive: Archive) -> str:
    merkle = (archive.statement or {}).get("merkle")
    root = str(merkle.get("root", "")) if isinstance(merkle, Mapping) else ""
    return " ".join(root[start : start + 4] for start in range(0, len(root), 4))


def _copies(copies: Sequence[CopyView], archive: Archive) -> dict[str, Any]:  # Any: as above
    if archive.state is not ArchiveState.CLOSED and not copies:
        return {}
    by_store: dict[str, list[CopyView]] = {}
    for copy in copies:
        by_store.setdefault(copy.store, []).append(copy)
    strata = [_stratum(store, found) for store, found in sorted(by_store.items())]
    strata += [Stratum("no store yet", "", "planned", "rest", "○", None)] * (archive.profile.copies - len(strata))
    verified = sum(stratum.state == "verified" for stratum in strata)
    return {"copies": strata, "copies_words": say_copies(verified, len(strata), wanted=archive.profile.copies)}


def _stratum(store: str, copies: Iterable[CopyView]) -> Stratum:
    found = list(copies)
    state = min((copy.state.value for copy in found), key=_WORST_FIRST.index)
    tone, shape = COPY_TONES[state]
    moments = [copy.verified_at for copy in found if copy.verified_at is not None]
    whole = state == "verified" and len(moments) == len(found)
    return Stratum(store, found[0].medium, state, tone, shape, min(moments) if whole else None)


def _say_access(archive: Archive) -> str:
    if archive.access is Access.EMBARGOED:
        return f"private until {archive.embargo_until}, then public"
    if archive.access is Access.PUBLIC:
        return "public" if archive.state is ArchiveState.CLOSED else "public when it is closed"
    return "private: those with a role"


def _cite(archive: Archive, place: Place) -> str:
    description, moment = archive.description, archive.closed_at or archive.opened_at
    names = "; ".join(creator.name for creator in description.creators)
    known = archive.identifier or f"{place.api_url}/archives/{short_form(archive.id)}"
    said = f"{names} ({moment.year})" if names else f"({moment.year})"
    return ". ".join(filter(None, (said, description.title, description.publisher, known)))


def _linked(creator: Creator) -> Creator:
    orcid = creator.orcid
    if orcid and not orcid.startswith("https://"):
        orcid = f"https://orcid.org/{orcid}"
    return Creator(creator.name, orcid, creator.affiliation, creator.affiliation_ror)


def _licence_url(licence: str) -> str | None:
    if licence.startswith(("https://", "http://")):
        return licence
    is_name = bool(licence) and len(licence) < 60 and all(c.isascii() and (c.isalnum() or c in ".-+") for c in licence)
    return f"{_SPDX}{licence}.html" if is_name else None


def _person(creator: Creator) -> dict[str, object]:
    found: dict[str, object] = {"@type": "Person", "name": creator.name}
    if creator.orcid:
        found["@id"] = creator.orcid
    if creator.affiliation:
        institute: dict[str, str] = {"@type": "Organization", "name": creator.affiliation}
        found["affiliation"] = institute | ({"@id": creator.affiliation_ror} if creator.affiliation_ror else {})
    return found


def _tombstone(tombstone: Mapping[str, object] | None) -> Mapping[str, str] | None:
    if tombstone is None:
        return None
    reasons = tombstone.get("reasons", ())
    said = "; ".join(map(str, reasons)) if isinstance(reasons, list | tuple) else str(reasons)
    return {"at": str(tombstone.get("withdrawn_at", ""))[:10], "reason": said}
