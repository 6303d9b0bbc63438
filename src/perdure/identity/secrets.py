"""Bearer secrets: opaque, told apart by their prefix, stored as a digest only."""

from __future__ import annotations

import secrets
from hashlib import sha256

SESSION_PREFIX = "pds_"
MAIL_PREFIX = "pdm_"
TOKEN_PREFIX = "pdt_"  # noqa: S105  # what every token begins with, no secret
_SHOWN_CHARACTERS = 10


def new_secret(prefix: str) -> str:
    """A fresh secret of 256 random bits."""
    return prefix + secrets.token_urlsafe(32)


def digest_secret(secret: str) -> bytes:
    """What is stored and looked up.

    A plain digest suffices for 256 random bits; and as the search is by digest, its timing tells nothing of a secret.
    """
    return sha256(secret.encode("utf-8", "surrogatepass")).digest()


def shown_part(secret: str) -> str:
    """The beginning, by which an owner recognises his token in a list."""
    return secret[:_SHOWN_CHARACTERS]
