"""Signed documents of an archive: the closing statement, and the receipt that allows a source to be deleted.

A document is a JSON object. Its signature is Ed25519 (RFC 8032) over the canonical JSON of the document without the
member `signature`; `key_id` is among what is signed.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256, sha512
from typing import Any, cast
from uuid import UUID

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from perdure.formats.canonical import canonical_json
from perdure.formats.errors import BadSignatureError
from perdure.formats.merkle import ALGORITHM as MERKLE_ALGORITHM
from perdure.kernel.clock import format_time
from perdure.kernel.ids import short_form

CLOSING_STATEMENT_TYPE = "archive-closing-statement"
RECEIPT_TYPE = "archive-receipt"
FORMAT = 1
SIGNATURE_ALGORITHM = "ed25519"
KEY_ID_DIGITS = 32


@dataclass(frozen=True, slots=True)
class ContentCounts:
    """What an archive holds of its own, the parent's content apart; `size` in bytes."""

    files: int
    directories: int
    symlinks: int
    hidden: int
    size: int


@dataclass(frozen=True, slots=True)
class PartSummary:
    """One part as its head knows it; the digests are of `inventory.json` and of the compressed manifest."""

    number: int
    id: UUID
    files: int
    size: int
    inventory_digest: str
    manifest_digest: str


@dataclass(frozen=True, slots=True)
class MetadataMark:
    """How far the metadata history had grown; the chain digest binds all changes up to `sequence`."""

    sequence: int
    chain_digest: str
    snapshot_digest: str


@dataclass(frozen=True, slots=True)
class MerkleMark:
    """The tree over the manifest lines of the archive's content."""

    size: int
    root: str


@dataclass(frozen=True, slots=True)
class CopyEvidence:
    """One copy that was read back from its medium and compared.

    `evidence` says how: a sentence, or what the store noted while it read, ready for JSON.
    """

    store: str
    location: str
    medium: str
    evidence: str | Mapping[str, object]
    verified_at: datetime
    parts: Sequence[int]


def build_closing_statement(
    *,
    archive_id: UUID,
    parent_id: UUID | None,
    title: str,
    closed_at: datetime,
    profile: str,
    identifier: str | None,
    counts: ContentCounts,
    content_digest: str,
    merkle: MerkleMark,
    parts: Sequence[PartSummary],
    superseded_digest: str | None,
    metadata: MetadataMark,
    event_position: int,
) -> dict[str, object]:
    """The statement of what an archive holds at its closing, ready to be signed.

    `superseded_digest` is the digest of `superseded.ndjson` where there is one; all digests are hexadecimal and of
    the algorithm `content_digest`, the Merkle root apart (`perdure.formats.merkle`).
    """
    return {
        "type": CLOSING_STATEMENT_TYPE,
        "format": FORMAT,
        "archive": archive_id.urn,
        "short_id": short_form(archive_id),
        "parent": parent_id.urn if parent_id else None,
        "title": title,
        "closed_at": format_time(closed_at),
        "profile": profile,
        "identifier": identifier,
        "counts": {
            "files": counts.files,
            "directories": counts.directories,
            "symlinks": counts.symlinks,
            "hidden": counts.hidden,
            "bytes": counts.size,
        },
        "content_digest": content_digest,
        "merkle": {"algorithm": MERKLE_ALGORITHM, "size": merkle.size, "root": merkle.root},
        "parts": [part_document(part) for part in parts],
        "superseded_digest": superseded_digest,
        "metadata": _metadata_document(metadata),
        "event_position": event_position,
    }


def build_receipt(
    *,
    archive_id: UUID,
    statement_digest: str,
    metadata: MetadataMark,
    copies: Sequence[CopyEvidence],
    required_copies: int,
    issued_at: datetime,
) -> dict[str, object]:
    """The receipt that the source of an archive may be deleted, ready to be signed.

    Raises ValueError when fewer copies are given than the profile requires: such a receipt must not exist.
    """
    stores = {copy.store for copy in copies}
    if required_copies < 1 or len(stores) < required_copies:
        raise ValueError(f"the profile requires {required_copies} copies in as many stores, {len(stores)} are given")
    return {
        "type": RECEIPT_TYPE,
        "format": FORMAT,
        "archive": archive_id.urn,
        "short_id": short_form(archive_id),
        "issued_at": format_time(issued_at),
        "statement_digest": statement_digest,
        "metadata": _metadata_document(metadata),
        "required_copies": required_copies,
        "copies": [_copy_document(copy) for copy in copies],
        "source_may_be_deleted": True,
    }


def find_metadata_mark(statement: Mapping[str, object]) -> MetadataMark:
    """The mark of the metadata in a closing statement; raises KeyError or TypeError for another document."""
    return MetadataMark(**cast(Mapping[str, Any], statement["metadata"]))  # Any: three members of two types


def _metadata_document(mark: MetadataMark) -> dict[str, object]:
    return {
        "sequence": mark.sequence,
        "chain_digest": mark.chain_digest,
        "snapshot_digest": mark.snapshot_digest,
    }


def part_document(part: PartSummary) -> dict[str, object]:
    """A part as it stands in the statement and in `parts.json`."""
    return {
        "number": part.number,
        "id": part.id.urn,
        "files": part.files,
        "bytes": part.size,
        "inventory_digest": part.inventory_digest,
        "manifest_digest": part.manifest_digest,
    }


def build_parts_document(parts: Sequence[PartSummary]) -> dict[str, object]:
    """The document `parts.json` of a head object."""
    return {"type": "archive-parts", "format": FORMAT, "parts": [part_document(part) for part in parts]}


def statement_digest(document: Mapping[str, object]) -> str:
    """SHA-512 over the canonical JSON of a document, its signature included: what a receipt refers to."""
    return sha512(canonical_json(dict(document))).hexdigest()


# Signing


def key_id(key: Ed25519PublicKey) -> str:
    """The first 32 hexadecimal digits of the SHA-256 of the raw public key."""
    return sha256(key.public_bytes(Encoding.Raw, PublicFormat.Raw)).hexdigest()[:KEY_ID_DIGITS]


def sign(document: Mapping[str, object], key: Ed25519PrivateKey) -> dict[str, object]:
    """A copy of the document with its `key_id` and `signature`; signing it again gives the same bytes."""
    unsigned = {name: value for name, value in document.items() if name != "signature"}
    unsigned["key_id"] = key_id(key.public_key())
    value = base64.b64encode(key.sign(canonical_json(unsigned))).decode("ascii")
    return {**unsigned, "signature": {"algorithm": SIGNATURE_ALGORITHM, "value": value}}


def require_signature(document: Mapping[str, object], key: Ed25519PublicKey) -> None:
    """Raises BadSignatureError, saying why, unless the document is as the owner of the key signed it."""
    if document.get("key_id") != key_id(key):
        raise BadSignatureError(f"the document names the key {document.get('key_id')!r}, given is {key_id(key)}")
    signature = document.get("signature")
    if not isinstance(signature, dict) or signature.keys() != {"algorithm", "value"}:
        raise BadSignatureError("the document has no signature")
    if signature["algorithm"] != SIGNATURE_ALGORITHM or not isinstance(signature["value"], str):
        raise BadSignatureError("the signature is not Ed25519")
    unsigned = {name: value for name, value in document.items() if name != "signature"}
    try:
        key.verify(base64.b64decode(signature["value"], validate=True), canonical_json(unsigned))
    except (InvalidSignature, binascii.Error, ValueError, TypeError) as error:
        raise BadSignatureError("the document was changed after it was signed") from error


def verify_signature(document: Mapping[str, object], key: Ed25519PublicKey) -> bool:
    """Whether the document is as the owner of the key signed it."""
    try:
        require_signature(document, key)
    except BadSignatureError:
        return False
    return True


def private_key_pem(key: Ed25519PrivateKey) -> bytes:
    """The private key as PKCS #8 in PEM, not encrypted: for a file that only its owner reads."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def public_key_pem(key: Ed25519PublicKey) -> bytes:
    """The public key as SubjectPublicKeyInfo in PEM, as `openssl pkey -pubin` reads it."""
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def parse_private_key(pem: bytes) -> Ed25519PrivateKey:
    """Read a private key; raises ValueError when it is not an Ed25519 key in PEM."""
    key = load_pem_private_key(pem, password=None)
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError("not an Ed25519 private key")
    return key


def parse_public_key(pem: bytes) -> Ed25519PublicKey:
    """Read a public key; raises ValueError when it is not an Ed25519 key in PEM."""
    key = load_pem_public_key(pem)
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError("not an Ed25519 public key")
    return key


def _copy_document(copy: CopyEvidence) -> dict[str, object]:
    return {
        "store": copy.store,
        "location": copy.location,
        "medium": copy.medium,
        "evidence": copy.evidence if isinstance(copy.evidence, str) else dict(copy.evidence),
        "verified_at": format_time(copy.verified_at),
        "parts": sorted(copy.parts),
    }
