"""The system's N-th call fails: below a store in folders, where most of the danger lies.

Every module of such an adapter reaches the system by the names `os` and, for what Python has no name for, `_libc`.
`failing_system` puts others in their places for as long as a block runs; threads that run meanwhile are met, too.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from perdure.testing.faults import Fault, FaultPlan

POSIX_ADAPTER = "perdure.adapters.posix"
WRITES = frozenset({"write", "pwrite", "writev", "pwritev"})
GROWS = WRITES | {"mkdir", "link", "rename", "renameat2", "fsync", "fdatasync", "syncfs", "open", "close"}
CALLS = GROWS | {
    "fstat",
    "ftruncate",
    "lstat",
    "pread",
    "preadv",
    "read",
    "readv",
    "rmdir",
    "scandir",
    "stat",
    "statvfs",
    "unlink",
}
_NUMBERS = {Fault.FAILED: errno.EIO, Fault.FULL: errno.ENOSPC}


@contextmanager
def failing_system(plan: FaultPlan, package: str = POSIX_ADAPTER) -> Iterator[None]:
    """Let the plan decide over each of CALLS that the modules of a package make; they are named as in `os`.

    A short write writes half of what was asked for, as the system may at any time; on other calls `short` is `failed`.
    A failing `close` closes, as the system's does.
    """
    system: Any = _FailingSystem(plan)  # Any: stands for the module `os`
    found = [module for name, module in sys.modules.items() if name.startswith(f"{package}.")]
    places = [(module, "os", os, system) for module in found if getattr(module, "os", None) is os]
    places += [(m, "_libc", m._libc, _FailingLibrary(plan, m._libc)) for m in found if getattr(m, "_libc", None)]
    if not places:
        raise LookupError(f"no module of {package} that reaches the system is loaded")
    for module, name, _, failing in places:
        setattr(module, name, failing)
    try:
        yield
    finally:
        for module, name, real, _ in places:
            setattr(module, name, real)


class _FailingSystem:
    """The module `os`, some of whose calls fail."""

    def __init__(self, plan: FaultPlan) -> None:
        self._plan = plan

    def __getattr__(self, name: str) -> Any:  # Any: whatever `os` has by this name
        real = getattr(os, name)
        return self._between(name, real) if name in CALLS else real

    def _between(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            fault = None if name == "close" and _only_reads(arguments[0]) else self._plan.meet(name)
            if fault is None:
                return real(*arguments, **options)
            if fault is Fault.SHORT and name in WRITES:
                return real(arguments[0], _half(arguments[1]), *arguments[2:], **options)
            if name == "close":
                real(*arguments)
            arguments = ()  # a traceback shall not keep a caller's buffer
            number = _NUMBERS.get(fault, errno.EIO)
            raise OSError(number, os.strerror(number))

        return call


class _FailingLibrary:
    """The C library, some of whose calls fail as they do for ctypes: by -1 and the error's number."""

    def __init__(self, plan: FaultPlan, library: Any) -> None:  # Any: a library of ctypes
        self._plan = plan
        self._library = library

    def __getattr__(self, name: str) -> Any:  # Any: a function of the library
        real = getattr(self._library, name)
        if name not in CALLS:
            return real

        def call(*arguments: Any) -> Any:
            fault = self._plan.meet(name)
            if fault is None:
                return real(*arguments)
            ctypes.set_errno(_NUMBERS.get(fault, errno.EIO))
            return -1

        return call


def _only_reads(fd: int) -> bool:
    """Whether there is nothing that closing could fail to write."""
    return fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY


def _half(data: Any) -> Any:  # Any: a buffer, or a list of buffers as writev takes it
    """At least a byte of it, because a write of nothing would be asked for again for ever."""
    if isinstance(data, (list, tuple)):
        return [_half(data[0])]
    view = memoryview(data)
    return view[: max(1, len(view) // 2)]
