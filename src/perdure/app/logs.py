"""Structured logs: one line an event, for machines as JSON or for eyes at a terminal."""

from __future__ import annotations

import logging
import sys

import structlog
from structlog.typing import Processor

from perdure.kernel.tally import find_tally


def configure_logging(*, level: str, style: str, process: str) -> None:
    """Send our lines and every library's to standard error; `style` is json, console or auto: by the terminal."""
    console = style == "console" or (style == "auto" and sys.stderr.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,  # job_id and job_kind
        _for_whom,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _named(process),
                *_rendering(console),
            ],
        )
    )
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    for noisy in ("uvicorn.access", "alembic", "procrastinate", "psycopg.pool"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)


def _for_whom(logger: object, method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
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
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]


def _named(process: str) -> Processor:
    def name(logger: object, method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        event["process"] = process
        return event

    return name
