"""What the operator says of one institution."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class SamlSettings:
    """One institution. `issuer` is its entity ID, `entity_id` ours (empty: the address of our metadata).

    `subject` is what tells its people apart: pairwise-id, subject-id, eduPersonPrincipalName, or persistent (a NameID).
    """

    name: str
    label: str
    issuer: str
    metadata_file: Path
    metadata_certificate: Path | None = None
    entity_id: str = ""
    subject: str = "pairwise-id"
    entitlement_attributes: tuple[str, ...] = ("eduPersonEntitlement", "eduPersonScopedAffiliation")
