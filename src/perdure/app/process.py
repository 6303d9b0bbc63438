"""One process of the tree under `perdure serve`: web, data or worker, or a further one, such as web-2.

The supervisor gives its settings on standard input and keeps that pipe open: when it ends, however that happened, so
does this process.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping

import structlog

from perdure.app.composition import Application, opened
from perdure.app.heap import settle_heap
from perdure.app.logs import configure_logging
from perdure.app.metrics.asking import answer_on
from perdure.app.metrics.telling import to_plain
from perdure.app.priority import give_way
from perdure.db.migrations import require_current_schema
from perdure.doors.worker import work
from perdure.settings import Settings, settings_from

log = structlog.get_logger(__name__)

_GRACE = 20  # seconds for requests and jobs under way
_AFTER_GRACE = 5  # seconds more before a process ends itself the hard way


def run(name: str, settings: Settings, database_url: str, channel: socket.socket) -> None:
    """Do the work of one role until SIGTERM; the supervisor asks for its numbers over the channel."""
    role = name.partition("-")[0]
    if role in _GIVES_WAY:
        give_way()
    configure_logging(level=settings.log_level, style=settings.log_format, process=name)
    require_current_schema(database_url)
    with opened(settings, database_url, process=name, on_sync_failure=_start_anew) as application:
        collect = application.numbers(with_facts=name == _TELLS_FACTS)
        answer_on(channel, lambda: to_plain(collect()))
        _PARTS[role](application)


def _serve(application: Application, *, port: int, planes: frozenset[str], is_shared: bool = False) -> None:
    from perdure.app.web import serve_planes  # noqa: PLC0415  # a worker has no doors, and starts sooner without them

    serve_planes(application, port=port, planes=planes, grace=_GRACE, is_shared=is_shared)


def _web(application: Application) -> None:
    settings = application.settings
    planes = frozenset({"api", "ui"}) if settings.data_port else frozenset({"api", "ui", "data"})
    _serve(application, port=settings.port, planes=planes, is_shared=settings.web_process_count > 1)


def _data(application: Application) -> None:
    _serve(application, port=application.settings.data_port, planes=frozenset({"data"}))


def _worker(application: Application) -> None:
    settle_heap()
    work(lambda stop: application.work(stop, grace=_GRACE))


_PARTS: Mapping[str, Callable[[Application], None]] = {"web": _web, "data": _data, "worker": _worker}
_GIVES_WAY = frozenset({"data", "worker"})  # to those whom people wait for: a flood of bytes shall not slow a page
_TELLS_FACTS = "worker"  # what is true of the whole installation is told by one process of the tree


def _end_with_supervisor() -> None:
    """Wait for the end of standard input, then stop as asked, at the latest after the grace."""
    while os.read(0, 1024):  # not by sys.stdin: its lock, held here for ever, breaks the interpreter's end
        pass
    _stop()


def _start_anew() -> None:
    """Stop, and be started again by the supervisor: only a new process may write to a store that lost writes."""
    log.error("stopping_to_start_anew", reason="the primary store lost writes")
    threading.Thread(target=_stop, name="stop", daemon=True).start()


def _stop() -> None:
    """Stop as asked from outside, at the latest after the grace."""
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE + _AFTER_GRACE)
    os._exit(1)


def _read_line() -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        read = os.read(0, 65536)
        if not read:
            sys.exit("This process is started by `perdure serve`.")
        line += read
    return line


def main() -> None:
    """The entry of a child: its role is the argument, the rest comes on standard input."""
    given = json.loads(_read_line())
    threading.Thread(target=_end_with_supervisor, name="supervisor-watch", daemon=True).start()
    channel = socket.socket(fileno=given["metrics_fd"])
    run(sys.argv[1], settings_from(given["settings"]), given["database_url"], channel)


if __name__ == "__main__":
    main()
