"""A signed document proves who signed it and that nothing in it was changed."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from perdure.formats.canonical import canonical_json
from perdure.formats.errors import BadSignatureError
from perdure.formats.merkle import merkle_root
from perdure.formats.statement import (
    ContentCounts,
    CopyEvidence,
    MerkleMark,
    MetadataMark,
    PartSummary,
    build_closing_statement,
    build_parts_document,
    build_receipt,
    find_metadata_mark,
    key_id,
    parse_private_key,
    parse_public_key,
    private_key_pem,
    public_key_pem,
    require_signature,
    sign,
    statement_digest,
    verify_signature,
)

ARCHIVE = UUID("01936f4e-8a7c-7def-8123-456789abcdef")
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
CLOSED = datetime(2026, 11, 20, 12, tzinfo=UTC)
PART = PartSummary(1, UUID(int=7), 2, 30, "aa" * 64, "bb" * 64)
COPY = CopyEvidence("disk", "root/1", "disk", "re-read", CLOSED, [2, 1])


def statement() -> dict[str, object]:
    return build_closing_statement(
        archive_id=ARCHIVE,
        parent_id=None,
        title="Strahlzeit",
        closed_at=CLOSED,
        profile="beamline",
        identifier="10.1234/abc",
        counts=ContentCounts(2, 1, 0, 0, 30),
        content_digest="sha512",
        merkle=MerkleMark(3, merkle_root([b"a", b"b", b"c"])),
        parts=[PART],
        superseded_digest=None,
        metadata=MetadataMark(4, "cc" * 64, "dd" * 64),
        event_position=17,
    )


def test_a_signed_statement_verifies_with_the_public_key_only() -> None:
    signed = sign(statement(), KEY)
    read = json.loads(canonical_json(signed))
    require_signature(read, parse_public_key(public_key_pem(KEY.public_key())))
    assert read["short_id"] == "01jdqmx2k-wfqqr28t5-cy4tqkffy"
    assert read["parts"] == build_parts_document([PART])["parts"]
    assert sign(signed, KEY) == signed


def changes(value: object) -> list[object]:
    """Every document that differs in one member from the given one."""
    if isinstance(value, dict):
        kept = [{name: member for name, member in value.items() if name != gone} for gone in value]
        return [*kept, *({**value, name: new} for name in value for new in changes(value[name])), {**value, "x": 1}]
    if isinstance(value, list):
        return [
            [*value, 1],
            *([*value[:n], new, *value[n + 1 :]] for n in range(len(value)) for new in changes(value[n])),
        ]
    return [f"{value}1", None] if value is not None else [0]


def test_every_change_is_found() -> None:
    signed = sign(statement(), KEY)
    altered = changes(signed)
    assert len(altered) > 60
    assert not [
        document for document in altered if isinstance(document, dict) and verify_signature(document, KEY.public_key())
    ]


def test_every_flipped_bit_of_the_signature_is_found() -> None:
    signed = sign(statement(), KEY)
    signature = signed["signature"]
    assert isinstance(signature, dict)
    raw = bytearray(base64.b64decode(signature["value"]))
    for place in range(0, 512, 7):
        raw[place // 8] ^= 1 << place % 8
        forged = {**signed, "signature": {**signature, "value": base64.b64encode(raw).decode()}}
        assert not verify_signature(forged, KEY.public_key())
        raw[place // 8] ^= 1 << place % 8


def test_another_key_is_named_in_the_refusal() -> None:
    other = Ed25519PrivateKey.generate().public_key()
    with pytest.raises(BadSignatureError, match=key_id(other)):
        require_signature(sign(statement(), KEY), other)


def test_a_document_with_a_value_that_has_no_canonical_form_is_refused() -> None:
    signed = {**sign(statement(), KEY), "title": float("nan")}
    assert not verify_signature(signed, KEY.public_key())


def test_a_receipt_needs_its_copies_in_different_stores() -> None:
    digest = statement_digest(sign(statement(), KEY))
    tape = replace(COPY, store="tape", medium="tape")
    mark = find_metadata_mark(statement())
    build = partial(build_receipt, archive_id=ARCHIVE, statement_digest=digest, metadata=mark, issued_at=CLOSED)
    receipt = build(copies=[COPY, tape], required_copies=2)
    assert receipt["source_may_be_deleted"] is True
    assert receipt["metadata"] == statement()["metadata"]
    assert receipt["statement_digest"] == digest
    for copies, required in (([COPY], 2), ([COPY, COPY], 2), ([], 0)):
        with pytest.raises(ValueError, match="copies"):
            build(copies=copies, required_copies=required)


def test_keys_survive_pem_and_others_are_refused() -> None:
    assert private_key_pem(parse_private_key(private_key_pem(KEY))) == private_key_pem(KEY)
    other = generate_private_key(SECP256R1())
    with pytest.raises(ValueError, match="Ed25519"):
        parse_private_key(other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(ValueError, match="Ed25519"):
        parse_public_key(other.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl: not installed")
def test_openssl_verifies_the_signature(tmp_path: Path) -> None:
    signed = sign(statement(), KEY)
    signature = signed.pop("signature")
    assert isinstance(signature, dict)
    (tmp_path / "key.pem").write_bytes(public_key_pem(KEY.public_key()))
    (tmp_path / "document").write_bytes(canonical_json(signed))
    (tmp_path / "signature").write_bytes(base64.b64decode(signature["value"]))
    command = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", "key.pem", "-rawin", "-in", "document"]
    command += ["-sigfile", "signature"]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode == 0
    (tmp_path / "document").write_bytes(canonical_json({**signed, "title": "other"}))
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode != 0
