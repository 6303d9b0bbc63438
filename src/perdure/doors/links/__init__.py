"""The bytes behind links, for programs such as curl and wget: served wherever bytes or pages are."""

from perdure.doors.links.routes import open_links

__all__ = ["open_links"]
