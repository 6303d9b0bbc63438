"""Identifiers are made in order, and a typing error in their short form is found."""

from __future__ import annotations

import threading
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.kernel.ids import new_id, parse_id, short_form

SYMBOLS = "0123456789abcdefghjkmnpqrstvwxyz"


def test_new_ids_are_version_7_and_grow() -> None:
    made = [new_id() for _ in range(2000)]
    assert made == sorted(set(made))
    assert {one.version for one in made} == {7}
    assert {one.variant for one in made} == {"specified in RFC 4122"}


def test_new_ids_of_several_threads_are_distinct() -> None:
    made: list[UUID] = []
    threads = [threading.Thread(target=lambda: made.extend(new_id() for _ in range(500))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 2000


@given(st.uuids())
def test_every_form_reads_back(identifier: UUID) -> None:
    for text in (
        short_form(identifier),
        str(identifier),
        identifier.urn,
        identifier.hex,
        short_form(identifier).upper(),
    ):
        assert parse_id(text) == identifier
    assert len(short_form(identifier)) == 29


@given(st.uuids())
def test_the_letters_that_people_confuse_read_as_digits(identifier: UUID) -> None:
    typed = short_form(identifier).replace("0", "O").replace("1", "l")
    assert parse_id(f"  {typed} ") == identifier


@given(st.uuids(), st.integers(0, 26), st.sampled_from(SYMBOLS))
def test_one_wrong_character_is_refused(identifier: UUID, place: int, symbol: str) -> None:
    right = short_form(identifier).replace("-", "")
    wrong = right[:place] + symbol + right[place + 1 :]
    if wrong != right:
        with pytest.raises(ValueError, match=r"typing error|not an identifier"):
            parse_id(wrong)


@given(st.uuids(), st.integers(0, 26), st.integers(0, 26))
def test_two_swapped_characters_are_refused(identifier: UUID, one: int, other: int) -> None:
    symbols = list(short_form(identifier).replace("-", ""))
    symbols[one], symbols[other] = symbols[other], symbols[one]
    wrong = "".join(symbols)
    if wrong != short_form(identifier).replace("-", ""):
        with pytest.raises(ValueError, match=r"typing error"):
            parse_id(wrong)


def test_the_short_form_stays_what_it_is() -> None:
    assert short_form(UUID("01936f4e-8a7c-7def-8123-456789abcdef")) == "01jdqmx2k-wfqqr28t5-cy4tqkffy"


@pytest.mark.parametrize("text", ["", "archive", "urn:uuid:", "u" * 27, "0" * 26, "z" * 27, "é" * 27])
def test_what_is_no_identifier_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"identifier|typing error"):
        parse_id(text)
