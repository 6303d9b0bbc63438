"""Structured logs: one line an event, for machines as JSON or for eyes at a terminal.

Our own lines go straight to standard error. What libraries tell by the standard library's logging takes that way and
comes out alike; it costs three times as much, which for the line of each request was a sixth of its time.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from typing import Any

import orjson
import structlog
from structlog.typing import EventDict, Processor

from perdure.kernel.tally import find_tally

_WHOLE = orjson.OPT_PASSTHROUGH_DATACLASS  # a data class may hide a secret from its repr


def configure_logging(*, level: str, style: str, process: str) -> None:
    """Send our lines and every library's to standard error; `style` is json, console or auto: by the terminal."""
    console = style == "console" or (style == "auto" and sys.stderr.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,  # job_id and job_kind
        _for_whom,
        structlog.processors.add_log_level,
        _named(process),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[_name_logger, *shared, *_rendering(console)],
        logger_factory=_Line,
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=True,
    )
    _take_in_libraries(level, [*shared, structlog.stdlib.ExtraAdder()], _rendering(console))


def _take_in_libraries(level: str, shared: list[Processor], rendering: list[Processor]) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    for noisy in ("uvicorn.access", "alembic", "procrastinate", "psycopg.pool"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)


class _Line:
    """Writes each line as a whole: one call, whatever other threads write meanwhile."""

    def __init__(self, name: str = "") -> None:
        self.name = name

    def msg(self, line: str) -> None:
        try:
            sys.stderr.write(line + "\n")
        except (OSError, ValueError):  # a full disk or a reader that went away is no reason to refuse a request
            return

    debug = info = warning = warn = error = critical = fatal = exception = log = msg


def _for_whom(logger: object, method: str, event: EventDict) -> EventDict:
    """Name the request or the job that a line belongs to: `request_id` or `job_id`."""
    tally = find_tally()
    if tally is not None:
        event.setdefault(tally.kind, tally.name)
    return event


def _rendering(console: bool) -> list[Processor]:
    if console:
        # Not the renderer's own choice: where rich is installed, that prints the values of local variables
        plain = structlog.dev.plain_traceback
        return [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)]
    return [structlog.processors.format_exc_info, _to_json]


def _to_json(logger: object, method: str, event: Mapping[str, Any]) -> str:  # Any: whatever a line tells
    try:
        return orjson.dumps(event, default=repr, option=_WHOLE).decode()
    except TypeError:  # a number beyond 64 bits, or half of a character
        return json.dumps(event, default=repr)


def _name_logger(logger: _Line, method: str, event: EventDict) -> EventDict:
    event["logger"] = logger.name
    return event


def _named(process: str) -> Processor:
    def name(logger: object, method: str, event: EventDict) -> EventDict:
        event["process"] = process
        return event

    return name
