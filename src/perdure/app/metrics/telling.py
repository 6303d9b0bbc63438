"""From the processes of a tree to one page.

Each process keeps its own numbers in memory and adds nothing to files; the supervisor asks all of them at each scrape
and marks every sample with the process. A process that died leaves nothing behind, and one that hangs is only absent.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector, CollectorRegistry

from perdure.app.metrics.asking import Asker, Plain

_PATIENCE = 5.0  # seconds for all answers of one scrape; Prometheus waits ten by itself


def render_tree(children: Iterable[tuple[str, Asker | None, int]]) -> bytes:
    """One page with the samples of all processes, each marked with its process.

    The children are given by role, with whom to ask, and with how often they were started.
    """
    named = dict(_named(children))
    asked = {name: asker for name, (asker, _) in named.items() if asker is not None}
    for asker in asked.values():
        asker.ask()
    until = time.monotonic() + _PATIENCE
    answers = {name: asker.answer(until) for name, asker in asked.items()}
    up = GaugeMetricFamily("perdure_process_up", "Whether a process of the tree answers.", labels=("process",))
    starts = CounterMetricFamily("perdure_process_starts", "How often it was started.", labels=("process",))
    for name, (_, count) in named.items():
        up.add_metric((name,), answers.get(name) is not None)
        starts.add_metric((name,), count)
    parts = {name: _from_plain(answer) for name, answer in answers.items() if answer is not None}
    return render([up, starts, *merge(parts)])


def _named(children: Iterable[tuple[str, Asker | None, int]]) -> Iterator[tuple[str, tuple[Asker | None, int]]]:
    """A name of its own for each child: its role, with a number from the second on."""
    seen: Counter[str] = Counter()
    for role, asker, starts in children:
        seen[role] += 1
        yield role if seen[role] == 1 else f"{role}-{seen[role]}", (asker, starts)


def merge(parts: Mapping[str, Iterable[Metric]]) -> list[Metric]:
    """The families of several processes, each family once; every sample gets the label `process`."""
    merged: dict[str, Metric] = {}
    for process, families in parts.items():
        for family in families:
            whole = merged.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            for sample in family.samples:
                whole.add_sample(sample.name, {"process": process, **sample.labels}, sample.value)
    return [merged[name] for name in sorted(merged)]


def render(families: Iterable[Metric]) -> bytes:
    """The page that Prometheus reads, in the text format 0.0.4."""

    class Given(Collector):
        def collect(self) -> Iterable[Metric]:
            return found

    found = list(families)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Given())
    return generate_latest(registry)


def to_plain(families: Iterable[Metric]) -> Plain:
    """Families as a child tells them to its supervisor."""
    return [
        (family.name, family.documentation, family.type, [(s.name, s.labels, float(s.value)) for s in family.samples])
        for family in families
    ]


def _from_plain(plain: Plain) -> list[Metric]:
    return list(_iter_families(plain))


def _iter_families(plain: Plain) -> Iterator[Metric]:
    for name, told, kind, samples in plain:
        family = Metric(name, told, kind)
        for sample, labels, value in samples:
            family.add_sample(sample, labels, value)
        yield family
