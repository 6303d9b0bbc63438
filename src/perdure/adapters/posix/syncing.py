"""Durability: one sync for many files where the file system honours it, else one for each file and folder."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from perdure.adapters.posix.system import sync_path, syncfs, translate
from perdure.storage.errors import StoreFailedError


class Syncer:
    """Makes a store durable. After one failed sync every later one fails too.

    The kernel reports a lost write once and then forgets it, so a second try that succeeds proves nothing; only a new
    process that reads everything back may trust the medium again: `on_failure` is told at the first failure.
    """

    def __init__(
        self, store: str, folder_fd: int, *, batch: bool, on_failure: Callable[[], None] | None = None
    ) -> None:
        self._store = store
        self._fd = folder_fd  # open since the start: an error is reported to descriptors older than it
        self.batch = batch
        self._on_failure = on_failure
        self._lock = threading.Lock()
        self._running = threading.Lock()
        self._started = 0
        self._finished = 0
        self._failure: StoreFailedError | None = None
        self._dirty: set[bytes] = set()

    @property
    def is_sound(self) -> bool:
        """Whether no sync has failed."""
        return self._failure is None

    def require_sound(self) -> None:
        """Raises StoreFailedError if an earlier sync failed."""
        if self._failure is not None:
            raise self._failure

    def note(self, folder: bytes) -> None:
        """Remember a folder whose entries changed; needed only where there is no batch sync."""
        if not self.batch:
            with self._lock:
                self._dirty.add(folder)

    def sync(self) -> None:
        """Make everything durable that was finished before the call; calls at one time share one sync."""
        self.require_sound()
        if not self.batch:
            self._sync_folders()
            return
        with self._lock:
            wanted = self._started + 1  # a sync that began earlier may have passed our files already
        with self._running:
            if self._finished >= wanted:
                self.require_sound()
                return
            with self._lock:
                self._started += 1
                number = self._started
            self._run(lambda: syncfs(self._fd), shared=True)
            self._finished = number

    def sync_file(self, fd: int) -> None:
        """fsync one open file, with the same memory of failures."""
        self.require_sound()
        self._run(lambda: os.fsync(fd))

    def sync_folder(self, folder: bytes) -> None:
        self.require_sound()
        self._run(lambda: sync_path(folder))

    def _sync_folders(self) -> None:
        with self._lock:
            folders, self._dirty = self._dirty, set()
        for folder in sorted(folders, key=len, reverse=True):
            try:
                self.sync_folder(folder)
            except FileNotFoundError:
                continue  # removed meanwhile, with all that was in it

    def _run(self, call: Callable[[], None], *, shared: bool = False) -> None:
        try:
            call()
        except FileNotFoundError:
            raise
        except OSError as error:
            detail = f"The store {self._store} cannot be synced: {error.strerror}."
            known = translate(error, self._store) or StoreFailedError(detail)
            if shared or isinstance(known, StoreFailedError):
                # also when the medium was full: what a batch lost may belong to callers that have not asked yet
                self._fail(StoreFailedError(detail))
            raise known from error

    def _fail(self, failure: StoreFailedError) -> None:
        with self._lock:
            is_first = self._failure is None
            self._failure = failure
        if is_first and self._on_failure is not None:
            self._on_failure()
