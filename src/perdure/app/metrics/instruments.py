"""Counters, levels and distributions for hot places: one lock, one look-up and one addition an observation.

The library's own instruments take several microseconds an observation, which a request makes a dozen of.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric


class Counts:
    """Counters, or with `is_level` numbers that also fall, one for each combination of labels that was met."""

    def __init__(self, name: str, told: str, labels: Sequence[str] = (), *, is_level: bool = False) -> None:
        self._family = GaugeMetricFamily if is_level else CounterMetricFamily
        self._name, self._told, self._labels = name, told, labels
        self._lock = threading.Lock()
        self._found: dict[tuple[str, ...], float] = {}

    def add(self, amount: float, *labels: str) -> None:
        with self._lock:
            self._found[labels] = self._found.get(labels, 0) + amount

    def collect(self) -> Iterator[Metric]:
        family = self._family(self._name, self._told, labels=self._labels)
        with self._lock:
            found = dict(self._found)
        for labels, value in sorted(found.items()):
            family.add_metric(labels, value)
        yield family


class Distribution:
    """Histograms with the same bounds, one for each combination of labels that was met."""

    def __init__(self, name: str, told: str, labels: Sequence[str] = (), *, bounds: Sequence[float]) -> None:
        self._name, self._told, self._labels = name, told, labels
        self._bounds = tuple(bounds)
        self._lock = threading.Lock()
        self._found: dict[tuple[str, ...], tuple[list[int], list[float]]] = {}

    def observe(self, value: float, *labels: str) -> None:
        place = bisect_left(self._bounds, value)
        with self._lock:
            found = self._found.get(labels)
            if found is None:
                found = self._found[labels] = ([0] * (len(self._bounds) + 1), [0.0])
            found[0][place] += 1
            found[1][0] += value

    def collect(self) -> Iterator[Metric]:
        family = HistogramMetricFamily(self._name, self._told, labels=self._labels)
        with self._lock:
            found = {labels: (list(counts), total[0]) for labels, (counts, total) in self._found.items()}
        for labels, (counts, total) in sorted(found.items()):
            family.add_metric(labels, bucketed(self._bounds, counts), sum_value=total)
        yield family


def bucketed(bounds: Sequence[float], placed: Sequence[int]) -> list[tuple[str, float]]:
    """The buckets of a histogram as Prometheus wants them, each with what lies below its bound, from counts between."""
    return list(zip([*map(str, bounds), "+Inf"], accumulate(map(float, placed)), strict=True))
