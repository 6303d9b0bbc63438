"""What a record may say: descriptions, access, lifetimes, profiles (pure)."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import date
from typing import Any

from perdure.archives.documents import TEXT_FIELDS, parse_description
from perdure.archives.errors import (
    BadAccessError,
    BadDescriptionError,
    BadLifetimeError,
    BadProfileError,
    ProfileDoesNotFitError,
)
from perdure.archives.model import (
    Access,
    Archive,
    ArchiveState,
    Creator,
    Description,
    Profile,
    latest_keep_until,
)
from perdure.formats.citation import Affiliation, is_orcid
from perdure.identity.model import Role
from perdure.kernel.digests import CONTENT_DIGESTS, DIGEST_NAMES

MAX_TITLE_CHARACTERS = 1000
MAX_LINE_CHARACTERS = 1000
MAX_TEXT_CHARACTERS = 100_000
MAX_CREATORS = 10_000  # a large collaboration signs with some thousand names
MAX_WORDS = 1000
WARNING_DAYS = (90, 30, 7)
_ORCID_PREFIXES = ("https://orcid.org/", "http://orcid.org/", "orcid.org/")
_ROR_PREFIXES = ("https://ror.org/", "http://ror.org/", "ror.org/")
_CREATOR_FIELDS = frozenset({"name", "orcid", "affiliation", "affiliation_ror"})


# Descriptions


def check_description(description: Description) -> Description:
    """The description with identifiers in one spelling; raises BadDescriptionError naming the field."""
    _check_text("title", description.title, MAX_TITLE_CHARACTERS)
    _check_text("description", description.description, MAX_TEXT_CHARACTERS, lines=True)
    _check_text("publisher", description.publisher, MAX_LINE_CHARACTERS)
    _check_text("licence", description.licence, MAX_LINE_CHARACTERS)
    _check_words("subjects", description.subjects)
    _check_words("tags", description.tags)
    if len(description.creators) > MAX_CREATORS:
        raise _bad("creators", f"there are more than {MAX_CREATORS}")
    creators = tuple(_check_creator(number, creator) for number, creator in enumerate(description.creators))
    return replace(description, title=description.title.strip(), creators=creators)


def merge_description(description: Description, patch: Mapping[str, Any]) -> Description:
    """Apply a JSON merge patch (RFC 7396) to a description: null empties a field, a list replaces the whole list.

    Raises BadDescriptionError for unknown fields, wrong types and what `check_description` refuses.
    """
    unknown = patch.keys() - Description.__dataclass_fields__.keys()
    if unknown:
        raise _bad(min(unknown), "the record has no such field")
    changed: dict[str, Any] = {}
    for name, value in patch.items():
        changed[name] = _read_field(name, value)
    return check_description(replace(description, **changed))


def read_description(document: Mapping[str, Any]) -> Description:
    """A description from JSON that somebody sent; raises BadDescriptionError."""
    return merge_description(parse_description({}), document)


def _read_field(name: str, value: object) -> object:
    if name in TEXT_FIELDS:
        if value is not None and not isinstance(value, str):
            raise _bad(name, "it is not a text")
        return value or ""
    if value is None:
        return ()
    if not isinstance(value, list | tuple):
        raise _bad(name, "it is not a list")
    if name == "creators":
        return tuple(_read_creator(number, item) for number, item in enumerate(value))
    if not all(isinstance(item, str) for item in value):
        raise _bad(name, "it holds something else than texts")
    return tuple(value)


def _read_creator(number: int, value: object) -> Creator:
    field = f"creators/{number}"
    if not isinstance(value, Mapping):
        raise _bad(field, "a creator is an object with a name")
    unknown = value.keys() - _CREATOR_FIELDS
    if unknown:
        raise _bad(f"{field}/{min(unknown)}", "a creator has no such field")
    texts = {name: text for name, text in value.items() if text is not None}
    if not isinstance(texts.get("name"), str) or not all(isinstance(text, str) for text in texts.values()):
        raise _bad(field, "a creator has a name, and texts only")
    return Creator(**texts)


def _check_creator(number: int, creator: Creator) -> Creator:
    field = f"creators/{number}"
    if not creator.name.strip():
        raise _bad(f"{field}/name", "it is empty")
    _check_text(f"{field}/name", creator.name, MAX_LINE_CHARACTERS)
    _check_text(f"{field}/affiliation", creator.affiliation or "", MAX_LINE_CHARACTERS)
    orcid = _bare(creator.orcid, _ORCID_PREFIXES).upper() if creator.orcid else None
    if orcid and not is_orcid(orcid):
        raise _bad(f"{field}/orcid", f"{creator.orcid!r} is not an ORCID (0000-0002-1825-0097)")
    ror = (
        "https://ror.org/" + _bare(creator.affiliation_ror, _ROR_PREFIXES).lower() if creator.affiliation_ror else None
    )
    if ror:
        _check_ror(f"{field}/affiliation_ror", ror)
    return Creator(creator.name.strip(), orcid, creator.affiliation or None, ror)


def _check_ror(field: str, ror: str) -> None:
    try:
        Affiliation("institution", ror)
    except ValueError as error:
        raise _bad(field, str(error)) from None


def _check_words(field: str, words: Sequence[str]) -> None:
    if len(words) > MAX_WORDS:
        raise _bad(field, f"there are more than {MAX_WORDS}")
    for number, word in enumerate(words):
        if not word.strip():
            raise _bad(f"{field}/{number}", "it is empty")
        _check_text(f"{field}/{number}", word, MAX_LINE_CHARACTERS)


def _check_text(field: str, text: str, limit: int, *, lines: bool = False) -> None:
    if len(text) > limit:
        raise _bad(field, f"it has {len(text)} characters; {limit} are allowed")
    allowed = "\n\t" if lines else ""
    text = text.replace("\r\n", "\n") if lines else text
    if any(unicodedata.category(letter) in ("Cc", "Cs") and letter not in allowed for letter in text):
        raise _bad(field, "it holds control characters or half a surrogate pair")


def _bare(text: str | None, prefixes: Iterable[str]) -> str:
    cleaned = (text or "").strip()
    return next((cleaned[len(prefix) :] for prefix in prefixes if cleaned.lower().startswith(prefix)), cleaned)


def _bad(field: str, problem: str) -> BadDescriptionError:
    return BadDescriptionError(f"{field}: {problem}.", field=field)


# Access and lifetime


def check_access(access: Access, embargo_until: date | None, *, today: date) -> None:
    """Raises BadAccessError unless an embargo, and nothing else, has an end, which lies ahead."""
    if (access is Access.EMBARGOED) != (embargo_until is not None):
        raise BadAccessError(
            "An embargo needs the date of its end, and only an embargo has one.", field="embargo_until"
        )
    if embargo_until is not None and embargo_until <= today:
        raise BadAccessError("The end of an embargo lies in the future.", field="embargo_until")


def check_keep_until(profile: Profile, archive: Archive, keep_until: date) -> None:
    """Raises BadLifetimeError unless the date is between the present end and the latest that the profile allows."""
    latest = latest_keep_until(profile, archive.opened_at)
    if not archive.keep_until <= keep_until <= latest:
        raise BadLifetimeError(
            f"The archive is kept until {archive.keep_until}; its profile {profile.name} allows dates up to {latest}.",
            earliest=archive.keep_until.isoformat(),
            latest=latest.isoformat(),
        )


def due_notices(keep_until: date, given: Iterable[int], *, today: date) -> list[int]:
    """The warnings, in days before the end, that are due and were not given; 0 is the proposal to withdraw.

    After a standstill of the service only the nearest warning is due, not all that were missed.
    """
    left = (keep_until - today).days
    reached = [days for days in (*WARNING_DAYS, 0) if left <= days]
    nearest = reached[-1:] if reached else []
    return [days for days in nearest if days not in set(given)]


# Profiles


def check_profile(profile: Profile) -> Profile:
    """The profile if it does not contradict itself; raises BadProfileError naming the field."""
    for field, problem in _profile_problems(profile):
        raise BadProfileError(f"{field}: {problem}.", field=field)
    return profile


def check_profile_fits(archive: Archive, profile: Profile) -> None:
    """Raises ProfileDoesNotFitError when an archive with content breaks a rule of the profile."""
    closed = archive.state is not ArchiveState.OPEN
    if (closed or archive.file_count) and profile.digests[0] != archive.profile.digests[0]:
        raise ProfileDoesNotFitError(
            f"The content has {archive.profile.digests[0]} digests; the profile demands {profile.digests[0]}."
        )
    if closed and _is_easier_to_withdraw(archive.profile, profile):
        raise ProfileDoesNotFitError(f"The profile {profile.name} would let fewer persons withdraw what is closed.")
    if profile.archive_max_bytes is not None and archive.byte_count > profile.archive_max_bytes:
        raise ProfileDoesNotFitError(f"The archive holds more than the profile's {profile.archive_max_bytes} bytes.")
    if profile.archive_max_files is not None and archive.file_count > profile.archive_max_files:
        raise ProfileDoesNotFitError(f"The archive holds more than the profile's {profile.archive_max_files} files.")
    if archive.keep_until > latest_keep_until(profile, archive.opened_at):
        raise ProfileDoesNotFitError(
            f"The archive is promised until {archive.keep_until}, longer than the profile allows."
        )


def _is_easier_to_withdraw(present: Profile, wanted: Profile) -> bool:
    """Whether one person, by choosing this profile first, could do what the present one keeps for several."""
    fewer = wanted.withdraw_approvals < present.withdraw_approvals
    return fewer or (present.children_block_withdrawal and not wanted.children_block_withdrawal)


def _profile_problems(profile: Profile) -> Iterable[tuple[str, str]]:
    if not profile.name or not profile.name.isascii() or not profile.name.replace("-", "").replace("_", "").isalnum():
        yield "name", "use letters, digits, hyphens and underscores"
    if not 1 <= profile.lifetime_default_days <= profile.lifetime_max_days:
        yield "lifetime_default_days", "it is between one day and lifetime_max_days"
    if profile.copies < 1:
        yield "copies", "at least one copy is kept"
    if profile.stores and len(set(profile.stores)) < profile.copies:
        yield "stores", "as many stores as copies are needed"
    if len(set(profile.locations)) != len(profile.locations) or not all(profile.locations):
        yield "locations", "one is empty or named twice"
    if not profile.digests or profile.digests[0] not in CONTENT_DIGESTS:
        yield "digests", "the first one is sha512 or sha256"
    if set(profile.digests) - DIGEST_NAMES or len(set(profile.digests)) != len(profile.digests):
        yield "digests", "one is unknown or named twice"
    if profile.verify_interval_days < 1:
        yield "verify_interval_days", "it is at least one day"
    if set(profile.mandatory_roles) - {role.value for role in Role}:
        yield "mandatory_roles", "one is no role"
    if set(profile.required_at_close) - Description.__dataclass_fields__.keys():
        yield "required_at_close", "one is no field of the record"
    if not {"title", "creators"} <= set(profile.required_at_close):
        yield "required_at_close", "a citable record needs title and creators"
    if profile.withdraw_approvals < 1:
        yield "withdraw_approvals", "somebody must approve"
    for field in ("archive_max_bytes", "archive_max_files", "total_max_bytes"):
        limit = getattr(profile, field)
        if limit is not None and limit < 1:
            yield field, "a limit is above zero"
