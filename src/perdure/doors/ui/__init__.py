"""Pages for people: the front page and the landing page of each archive, rendered here, without scripts."""

from __future__ import annotations

from perdure.doors.ui.links import open_link_pages
from perdure.doors.ui.routes import open_pages

__all__ = ["open_link_pages", "open_pages"]
