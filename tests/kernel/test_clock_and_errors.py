"""Times keep their zone; every error can be met, named and explained."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.kernel.clock import SystemClock, format_time, parse_time
from perdure.kernel.errors import EXIT_CODES, ErrorKind, PerdureError, iter_error_classes

zones = st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes)))
moments = st.datetimes(min_value=datetime(2, 1, 1), max_value=datetime(9998, 1, 1), timezones=zones)  # noqa: DTZ001 - hypothesis takes naive bounds


@given(moments)
def test_a_time_reads_back_equal_and_in_utc(moment: datetime) -> None:
    text = format_time(moment)
    assert parse_time(text) == moment
    assert parse_time(text).tzinfo is UTC
    assert len(text) == 27


@given(moments, moments)
def test_written_times_sort_as_times_do(one: datetime, other: datetime) -> None:
    assert (format_time(one) < format_time(other)) == (one < other)


def test_a_time_without_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="zone"):
        format_time(datetime(2026, 1, 1))  # noqa: DTZ001 - the refusal is what is tested
    with pytest.raises(ValueError, match="zone"):
        parse_time("2026-01-01T00:00:00")


def test_the_clock_of_the_machine_has_a_zone() -> None:
    assert SystemClock().now().tzinfo is UTC


def test_every_error_says_what_to_do_next() -> None:
    classes = list(iter_error_classes())
    codes = [cls.code for cls in classes]
    assert codes == sorted(set(codes))
    for cls in classes:
        assert cls.next_step.endswith(".")
        assert not cls.title.endswith(".")
        assert 400 <= cls.status < 600
        assert cls.kind in EXIT_CODES


def test_exit_codes_tell_the_kinds_apart() -> None:
    assert sorted(EXIT_CODES) == sorted(ErrorKind)
    assert len(set(EXIT_CODES.values())) == len(EXIT_CODES)
    assert PerdureError("why").exit_code == 1
    assert PerdureError("why", path="a").extra == {"path": "a"}
