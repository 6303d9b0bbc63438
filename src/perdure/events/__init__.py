"""What happened: recorded inside the caller's transaction, numbered and chained after it, read in order."""

from perdure.events.model import Event, Segment, render_cloudevent, verify_chain
from perdure.events.service import EventLog

__all__ = ["Event", "EventLog", "Segment", "render_cloudevent", "verify_chain"]
