"""The door for Prometheus: one page of numbers, on a port of its own."""

from perdure.doors.scrape.server import scraping

__all__ = ["scraping"]
