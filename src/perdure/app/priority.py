"""Who goes first when there is more to do than there are processors."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

_NICENESS = 10  # a tenth of the share of others, where others want theirs; all of it, where nobody does
_AUTOGROUP = Path("/proc/self/autogroup")
_TRIES = 5
_BETWEEN_TRIES = 0.15  # seconds; Linux lets a user change ten groups a second


def give_way() -> None:
    """Let other processes have the processor first; to be called before there are threads, which inherit it.

    Niceness alone does nothing on a Linux where each session is a scheduling group (`sched_autogroup_enabled`): there
    the group has a niceness, which is changed where this process leads its session. What the system does not know or
    allow is left out.
    """
    with suppress(OSError):
        os.nice(_NICENESS)
    if hasattr(os, "SCHED_BATCH"):
        with suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))  # it never interrupts another one
    if os.getsid(0) == os.getpid():
        _lower_group()


def _lower_group() -> None:
    for _ in range(_TRIES):
        try:
            _AUTOGROUP.write_text(str(_NICENESS), encoding="ascii")
        except BlockingIOError:  # too many groups were changed just now
            time.sleep(_BETWEEN_TRIES)
        except OSError:  # no such groups here
            return
        else:
            return
