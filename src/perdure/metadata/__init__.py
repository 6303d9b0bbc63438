"""Typed values with units and dates, atomic patches, a history that proves itself; for archives and records alike."""

from perdure.metadata.errors import (
    BadMetadataError,
    BrokenHistoryError,
    NoSuchValueError,
    PatchDoesNotFitError,
    PatchTestFailedError,
    RevisionMismatchError,
)
from perdure.metadata.history import Change, change_to_line, line_to_change
from perdure.metadata.nodes import LeafChange
from perdure.metadata.patches import PatchForm
from perdure.metadata.service import (
    ChangeResult,
    Document,
    Metadata,
    PatchItem,
    State,
    SubjectDigest,
    matching,
)

__all__ = [
    "BadMetadataError",
    "BrokenHistoryError",
    "Change",
    "ChangeResult",
    "Document",
    "LeafChange",
    "Metadata",
    "NoSuchValueError",
    "PatchDoesNotFitError",
    "PatchForm",
    "PatchItem",
    "PatchTestFailedError",
    "RevisionMismatchError",
    "State",
    "SubjectDigest",
    "change_to_line",
    "line_to_change",
    "matching",
]
