"""Pages for people, rendered here; all of them work without a script but for passkeys and dropping files.

The front page, the landing page of each archive and who has access to it, links, logging in, one's account, passkeys,
invitations and what mails lead to, service accounts, and what accounts use of their quotas; for those who manage
organisations their people, applications and the audit trail.
"""

from __future__ import annotations

from perdure.doors.ui.access import open_access_page
from perdure.doors.ui.account import open_account_page
from perdure.doors.ui.invitations import open_invitations_page
from perdure.doors.ui.links import open_link_pages
from perdure.doors.ui.login import open_login_pages
from perdure.doors.ui.machines import open_machine_pages
from perdure.doors.ui.mail import open_mail_pages
from perdure.doors.ui.oneself import open_pages_of_oneself
from perdure.doors.ui.passkeys import open_passkey_pages
from perdure.doors.ui.people import open_people_pages
from perdure.doors.ui.routes import open_pages
from perdure.doors.ui.trail import open_trail_page
from perdure.doors.ui.usage import open_usage_pages

__all__ = [
    "open_access_page",
    "open_account_page",
    "open_invitations_page",
    "open_link_pages",
    "open_login_pages",
    "open_machine_pages",
    "open_mail_pages",
    "open_pages",
    "open_pages_of_oneself",
    "open_passkey_pages",
    "open_people_pages",
    "open_trail_page",
    "open_usage_pages",
]
