"""The record's rules, by property and example."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.archives.documents import (
    apply_members,
    changed_members,
    description_document,
    parse_description,
    parse_profile,
    profile_document,
)
from perdure.archives.errors import BadDescriptionError, BadProfileError
from perdure.archives.model import Creator, Description
from perdure.archives.profiles import SHIPPED
from perdure.archives.rules import check_description, check_profile, merge_description, read_description

words = st.lists(st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=9), max_size=3).map(tuple)
descriptions = st.builds(
    Description,
    title=st.text(st.characters(categories=["L", "N"]), max_size=20),
    description=st.text(st.characters(categories=["L", "N", "P"]), max_size=50),
    subjects=words,
    tags=words,
    creators=st.lists(
        st.builds(Creator, st.just("Ada"), orcid=st.sampled_from([None, "0000-0002-1825-0097"])), max_size=2
    ).map(tuple),
)
documents = st.recursive(
    st.none() | st.integers() | st.text(max_size=5) | st.lists(st.integers(), max_size=2),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)


@given(descriptions)
def test_descriptions_survive_their_document(description: Description) -> None:
    assert parse_description(description_document(description)) == description
    assert read_description(description_document(description)) == check_description(description)


@pytest.mark.parametrize("profile", SHIPPED, ids=lambda profile: profile.name)
def test_shipped_profiles_are_sound_and_survive_their_document(profile: Any) -> None:  # Any: a Profile
    assert parse_profile(profile_document(check_profile(profile))) == profile


@given(st.fixed_dictionaries({"a": documents, "b": documents}), st.fixed_dictionaries({"a": documents, "b": documents}))
def test_a_change_applied_gives_the_later_record(before: dict[str, Any], after: dict[str, Any]) -> None:
    same_shape = {name: after[name] if not isinstance(before[name], dict) else before[name] for name in before}
    _, told = changed_members(before, same_shape)
    assert apply_members(before, told) == same_shape


def test_identifiers_get_one_spelling() -> None:
    made = read_description(
        {
            "creators": [
                {
                    "name": " Ada ",
                    "orcid": "https://orcid.org/0000-0002-1825-0097",
                    "affiliation_ror": "ror.org/01js2sh04",
                }
            ]
        }
    )
    assert made.creators == (Creator("Ada", "0000-0002-1825-0097", None, "https://ror.org/01js2sh04"),)


def test_null_empties_and_lists_replace() -> None:
    before = Description(title="A", tags=("x", "y"), publisher="P")
    assert merge_description(before, {"tags": ["z"], "publisher": None}) == Description(title="A", tags=("z",))


@pytest.mark.parametrize(
    "patch",
    [
        {"unknown": 1},
        {"title": 7},
        {"tags": "x"},
        {"tags": [1]},
        {"creators": ["Ada"]},
        {"creators": [{"orcid": "0000-0002-1825-0097"}]},
        {"creators": [{"name": "Ada", "age": "36"}]},
    ],
)
def test_wrong_types_are_refused(patch: dict[str, Any]) -> None:
    with pytest.raises(BadDescriptionError):
        merge_description(Description(), patch)


@pytest.mark.parametrize(
    "change",
    [
        {"name": "two words"},
        {"copies": 0},
        {"stores": ("one",)},
        {"digests": ("md5",)},
        {"digests": ("sha512", "sha512")},
        {"lifetime_default_days": 99_999},
        {"mandatory_roles": ("king",)},
        {"required_at_close": ("title",)},
        {"withdraw_approvals": 0},
        {"total_max_bytes": 0},
    ],
)
def test_profiles_that_contradict_themselves_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(BadProfileError):
        check_profile(parse_profile({**profile_document(SHIPPED[0]), **change}))
