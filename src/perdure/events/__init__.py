"""What happened: recorded inside the caller's transaction, numbered and chained after it, read in order."""

from perdure.events.model import Event, Segment, render_cloudevent, verify_chain
from perdure.events.searching import Search, search_events
from perdure.events.service import EventLog

__all__ = ["Event", "EventLog", "Search", "Segment", "render_cloudevent", "search_events", "verify_chain"]
