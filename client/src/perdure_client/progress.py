"""Progress of long work: a line that renews itself on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from typing import TextIO

from perdure_client.errors import StoppedError

_TERMINAL_INTERVAL = 0.2
_PLAIN_INTERVAL = 10.0


def format_size(count: float) -> str:
    """Bytes with the decimal unit people use for storage: `1.8 TB`, `150 kB`, `12 B`."""
    for unit in ("B", "kB", "MB", "GB", "TB", "PB"):
        if count < 999.5 or unit == "PB":
            return f"{count:.0f} {unit}" if unit == "B" or count >= 99.95 else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError("the last unit always returns")


def format_duration(seconds: float) -> str:
    """`3 h 12 min`, `4 min 5 s` or `7 s`."""
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"


def format_count(count: int, noun: str) -> str:
    """`1 file`, `150,000 files`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


class Progress:
    """Counts files and bytes from any thread and shows them with rate and time left.

    `stream` None shows nothing. Rates are of the whole run, so that a pause shows.
    """

    def __init__(self, verb: str, *, files: int = 0, size: int = 0, stream: TextIO | None = None) -> None:
        self.verb, self.total_files, self.total_bytes = verb, files, size
        self.files = self.bytes = 0
        self._stream = stream
        self._is_terminal = stream is not None and stream.isatty()
        self._is_stopped = False
        self._lock = threading.Lock()
        self._started = time.monotonic()
        self._shown = self._started if not self._is_terminal else 0.0

    def add(self, *, files: int = 0, size: int = 0) -> None:
        """Count what is done; negative sizes take back what has to be sent again. Raises StoppedError after `stop`."""
        if self._is_stopped:
            raise StoppedError("Stopped.", next_step="The same command goes on where it stopped.")
        with self._lock:
            self.files += files
            self.bytes += size
            if self._stream is not None:
                self._show_when_due()

    def stop(self) -> None:
        """Let whatever is under way in another thread end at its next piece."""
        self._is_stopped = True

    def finish(self) -> None:
        """Show the last line and leave it standing."""
        with self._lock:
            if self._stream is not None:
                self._write(self.line(), is_last=True)

    def line(self) -> str:
        """What is shown, in words."""
        elapsed = max(time.monotonic() - self._started, 1e-3)
        rate = self.bytes / elapsed
        parts = [f"{self.verb} {self.files:,} of {format_count(self.total_files, 'file')}"]
        parts.append(f"{format_size(self.bytes)} of {format_size(self.total_bytes)}")
        parts.append(f"{format_size(rate)}/s")
        left = self.total_bytes - self.bytes
        if left > 0 and rate > 0 and elapsed > 1:
            parts.append(f"about {format_duration(left / rate)} left")
        return ", ".join(parts)

    def _show_when_due(self) -> None:
        now = time.monotonic()
        if now - self._shown >= (_TERMINAL_INTERVAL if self._is_terminal else _PLAIN_INTERVAL):
            self._shown = now
            self._write(self.line(), is_last=False)

    def _write(self, text: str, *, is_last: bool) -> None:
        stream = self._stream or sys.stderr
        if self._is_terminal:
            stream.write("\r\x1b[K" + text + ("\n" if is_last else ""))
        else:
            stream.write(text + "\n")
        stream.flush()
