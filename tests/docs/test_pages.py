"""The manual says what the program does: generated pages are fresh, links lead somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from perdure.archives import events as archive_events
from perdure.identity import events as identity_events

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("docs/**/*.md"), ROOT / "README.md"])


def test_generated_pages_are_fresh() -> None:
    generator = [sys.executable, str(ROOT / "docs" / "generate.py"), "--check"]  # alone: other tests define errors
    ran = subprocess.run(generator, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert not missing


@pytest.mark.parametrize("module", [identity_events, archive_events], ids=["identity", "archives"])
def test_every_event_is_in_the_page_of_the_audit_trail(module: ModuleType) -> None:
    page = (ROOT / "docs" / "operate" / "audit.md").read_text(encoding="utf-8")
    types = [value for name, value in vars(module).items() if name.isupper() and isinstance(value, str)]
    assert len(types) > 20
    assert [one for one in types if f"`{one}`" not in page] == []
