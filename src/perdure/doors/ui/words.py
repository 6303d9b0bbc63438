"""Sizes, counts, times and states as people read them (pure)."""

from __future__ import annotations

from datetime import datetime

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB", "EB")
# Each state has a word, a shape and a tone: it is never told by colour alone.
SHAPES = {"kept": "●", "moving": "◐", "planned": "○", "broken": "▲", "lost": "✕", "rest": "○"}
COPY_TONES = {
    "verified": ("kept", "●"),
    "written": ("moving", "◐"),
    "writing": ("moving", "◐"),
    "planned": ("rest", "○"),
    "suspect": ("broken", "▲"),
    "lost": ("broken", "✕"),
}
_WHOLE = {1: "The one copy is verified.", 2: "Both copies are verified."}
_NUMBERS = ("No", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine")


def say_size(size: int) -> str:
    """Bytes with three figures and a decimal unit: `1.84 TB`."""
    value, unit = float(size), _UNITS[0]
    for unit in _UNITS:
        if value < 999.5 or unit == _UNITS[-1]:
            break
        value /= 1000
    if unit == "B":
        return f"{size} {'byte' if size == 1 else 'bytes'}"
    return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f} {unit}"


def say_count(count: int, noun: str) -> str:
    """`1 file`, `150,000 files`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def say_moment(moment: datetime) -> str:
    """A time with its zone."""
    return moment.strftime("%Y-%m-%d, %H:%M UTC")


def say_day(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d")


def say_copies(verified: int, total: int, *, wanted: int) -> str:
    """How safe the content is, in a sentence."""
    count = _NUMBERS[verified] if verified < len(_NUMBERS) else str(verified)
    of = total if total >= wanted else wanted
    if verified >= of:
        return _WHOLE.get(of) or f"All {_small(of)} copies are verified."
    return f"{count} of {_small(of)} copies {'is' if verified == 1 else 'are'} verified."


def _small(count: int) -> str:
    return _NUMBERS[count].lower() if count < len(_NUMBERS) else str(count)
