"""Pages for people: front page, landing page of each archive, links, logging in; rendered here, without scripts."""

from __future__ import annotations

from perdure.doors.ui.account import open_account_page
from perdure.doors.ui.links import open_link_pages
from perdure.doors.ui.login import open_login_pages
from perdure.doors.ui.routes import open_pages

__all__ = ["open_account_page", "open_link_pages", "open_login_pages", "open_pages"]
