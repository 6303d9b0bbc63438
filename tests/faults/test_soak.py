"""A share of the soak for every run: each crash point and each way to die at least once, then a rebuild."""

from __future__ import annotations

import random
import sys
import tempfile
from pathlib import Path

import pytest

from perdure.testing.soak import FALLBACKS, KILLS, Soak, find_crash_points
from perdure.testing.soak_tree import Tree

pytestmark = pytest.mark.slow


def test_the_crash_points_are_found_by_their_names() -> None:
    found = find_crash_points()
    assert {"open.committed", "journal.appended", "close.committed", "exchange.done"} <= set(found)
    assert set(found) >= FALLBACKS


@pytest.mark.timeout(900)
def test_what_was_acknowledged_survives_every_death() -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("linux: the processes are found in /proc")
    seed = random.SystemRandom().randrange(1 << 32)
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:  # short: a socket lies in it
        soak = Soak(Tree(Path(folder)), seed, say=print)
        print(f"seed {seed}")
        try:
            soak.begin()
            assert soak.tour() == set(), "points that no act comes to"
            soak.riot(soak.chance.sample(sorted(KILLS), len(KILLS)), people=3, deaths_a_look=4)
            soak.finish()
        except BaseException:
            print(soak.tree.last_words(60))
            raise
        finally:
            soak.end()
