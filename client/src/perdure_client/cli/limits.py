"""Limits on the command line: a number, or the word `none`."""

from __future__ import annotations

import click

from perdure_client.progress import format_count, format_size

NO_LIMIT = -1


class _Limit(click.ParamType[int]):
    """A number from zero on; NO_LIMIT for `none`, because None is for what was not given."""

    name = "number|none"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        text = str(value).strip().lower()
        if text == "none":
            return NO_LIMIT
        if not text.isascii() or not text.isdecimal():
            self.fail(f"{value!r} is neither a number nor `none`.", param, ctx)
        return int(text)


LIMIT = _Limit()


def to_limit(given: int) -> int | None:
    """What was given, as the server takes it."""
    return None if given == NO_LIMIT else given


def show_limits(size: int | None, files: int | None) -> str:
    """A quota in words."""
    shown = [format_size(size)] if size is not None else []
    shown += [format_count(files, "file")] if files is not None else []
    return ", ".join(shown) or "no limit"
