"""What this domain needs from outside: somebody who gives out persistent identifiers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Registration:
    """What the registrar knows of one identifier.

    `identifier` is a DOI without a resolver (`10.5072/…`); `state` is `reserved`, `registered` or `tombstone`;
    `is_test` says that nobody outside this installation resolves it.
    """

    identifier: str
    state: str
    is_test: bool


class Registrar(Protocol):
    """Gives each archive at most one identifier, for ever. Every call may be repeated with the same effect.

    An implementation that cannot reach its service raises a TryAgainError and has then changed nothing, or the same
    call repeated finds what it changed.
    """

    def reserve(self, archive_id: UUID) -> Registration:
        """The identifier of this archive, made at the first call; it leads nowhere yet."""
        ...

    def register(self, identifier: str, record: Mapping[str, object], url: str) -> Registration:
        """Let a reserved identifier lead to `url`, described by the DataCite record; again to update either.

        Raises UnknownIdentifierError for an identifier that was never reserved.
        """
        ...

    def tombstone(self, identifier: str, record: Mapping[str, object], url: str) -> Registration:
        """Keep the identifier and let it lead to the tombstone at `url`; it is found by no search any more.

        Raises UnknownIdentifierError for an identifier that was never reserved.
        """
        ...

    def get(self, identifier: str) -> Registration:
        """What is known of the identifier; raises UnknownIdentifierError."""
        ...


class Signer(Protocol):
    """Signs documents with the installation's key; only workers are given one.

    Any implementation that is out of reach raises a TryAgainError.
    """

    def sign(self, document: Mapping[str, object]) -> dict[str, object]:
        """The document with its `key_id` and `signature` (`perdure.formats.statement`)."""
        ...

    def public_keys(self) -> list[dict[str, object]]:
        """Every key that ever signed, oldest first: `key_id`, `algorithm`, `public_key` (PEM), `since`, `until`."""
        ...
