"""Pages for people, rendered here, with one script.

The front page, the landing page of each archive, links, logging in, passkeys, what mails lead to, and service accounts.
"""

from __future__ import annotations

from perdure.doors.ui.account import open_account_page
from perdure.doors.ui.links import open_link_pages
from perdure.doors.ui.login import open_login_pages
from perdure.doors.ui.machines import open_machine_pages
from perdure.doors.ui.mail import open_mail_pages
from perdure.doors.ui.passkeys import open_passkey_pages
from perdure.doors.ui.routes import open_pages

__all__ = [
    "open_account_page",
    "open_link_pages",
    "open_login_pages",
    "open_machine_pages",
    "open_mail_pages",
    "open_pages",
    "open_passkey_pages",
]
