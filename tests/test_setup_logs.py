"""Logs: one JSON document a line, with the fields of the work under way, from our code and from libraries."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap

PROGRAM = """
    import logging
    import structlog
    from perdure.app.logs import configure_logging
    configure_logging(level="info", style="json", process="web")
    log = structlog.get_logger("perdure.storage")
    with structlog.contextvars.bound_contextvars(request_id="r-1"):
        log.info("copy_verified", store="first", bytes=7)
        logging.getLogger("library").warning("slow %s", "disk")
    log.debug("not_told")
    logging.getLogger("uvicorn.access").info("not told either")
    try:
        raise ValueError("broken")
    except ValueError:
        log.exception("copy_failed")
"""


def test_every_line_is_one_document_with_the_fields_of_the_work() -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM)], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout == ""
    ours, library, failure = (json.loads(line) for line in done.stderr.splitlines())
    assert ours["timestamp"].endswith("Z")
    del ours["timestamp"]
    assert ours == {
        "event": "copy_verified",
        "store": "first",
        "bytes": 7,
        "request_id": "r-1",
        "level": "info",
        "logger": "perdure.storage",
        "process": "web",
    }
    assert (library["event"], library["request_id"], library["level"]) == ("slow disk", "r-1", "warning")
    assert "ValueError: broken" in failure["exception"]
    assert "request_id" not in failure


ODD = """
    import sys
    import uuid
    import structlog
    from perdure.app.logs import configure_logging
    configure_logging(level="info", style="json", process="web")
    log = structlog.get_logger("perdure.storage")
    log.info("odd", large=2**70, half="\\ud800", id=uuid.UUID(int=1), line="a\\nb")
    sys.stderr.close()
    log.info("nobody_listens")
    print("goes on")
"""


def test_a_line_holds_whatever_it_is_given_and_its_loss_harms_nobody() -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(ODD)], capture_output=True, text=True, check=True, timeout=30
    )
    (line,) = done.stderr.splitlines()
    told = json.loads(line)
    assert (told["large"], told["half"], told["line"]) == (2**70, "\ud800", "a\nb")
    assert "00000000-0000-0000-0000-000000000001" in told["id"]
    assert done.stdout == "goes on\n"
