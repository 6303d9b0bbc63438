"""What an institution's metadata say: its keys, where it logs people in, and the scopes that are its own.

Of a file with many institutions the one that is asked for is taken and handed on alone. A feed of a whole federation is
refused: it would cost every process seconds and gigabytes for the sake of one institution.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from xml.etree.ElementTree import Element

from defusedxml import ElementTree
from saml2.sigver import CryptoBackendXmlSec1, SigverError

from perdure.adapters.saml.shape import DS, UnexpectedShapeError, check_signature, parse_xml

MOST_BYTES = 1024 * 1024
_MD = "{urn:oasis:names:tc:SAML:2.0:metadata}"
_SCOPE = "{urn:mace:shibboleth:metadata:1.0}Scope"
_REDIRECT = "urn:oasis:names:tc:SAML:2.0:bindings:HTTP-Redirect"
_SAML2 = "urn:oasis:names:tc:SAML:2.0:protocol"


class BadMetadataError(ValueError):
    """The metadata cannot be used; the text says why, for the operator."""


@dataclass(frozen=True, slots=True)
class Institution:
    """One identity provider. `scopes` are what may stand behind the @ of its people; none are told by some."""

    text: str
    login_address: str
    scopes: frozenset[str]
    valid_until: datetime | None


def read_metadata(path: Path, entity_id: str, *, certificate: Path | None, xmlsec: str) -> Institution:
    """The institution of this name in the file; with a certificate its signature is verified first.

    Raises BadMetadataError. Whether it is still valid is for the caller to judge by his clock.
    """
    try:
        raw = path.read_bytes() if path.stat().st_size <= MOST_BYTES else None
    except OSError as error:
        raise BadMetadataError(f"{path} cannot be read ({error.strerror})") from None
    if raw is None:
        raise BadMetadataError(f"{path} is larger than {MOST_BYTES} bytes: fetch the metadata of one institution")
    try:
        text = raw.decode()
        root = parse_xml(text)
        if certificate is not None:
            _verify(text, root, certificate, xmlsec)
    except (UnexpectedShapeError, UnicodeDecodeError) as error:
        raise BadMetadataError(f"{path}: {error}") from None
    found = [one for one in root.iter(f"{_MD}EntityDescriptor") if one.get("entityID") == entity_id]
    if len(found) != 1:
        raise BadMetadataError(f"{path} does not tell of {entity_id}, or more than once")
    (role,) = _roles(found[0]) or (None,)
    if role is None:
        raise BadMetadataError(f"{entity_id} is no identity provider of SAML 2.0")
    services = role.findall(f"{_MD}SingleSignOnService")
    places = [one.get("Location", "") for one in services if one.get("Binding") == _REDIRECT]
    if not places or not places[0].startswith(("https://", "http://")):
        raise BadMetadataError(f"{entity_id} takes no login by HTTP-Redirect")
    scopes = [one for one in found[0].iter(_SCOPE) if one.get("regexp", "false").strip() in ("false", "0")]
    untils = [one.get("validUntil") for one in (root, found[0], role)]
    return Institution(
        text=ElementTree.tostring(found[0], encoding="unicode"),
        login_address=places[0],
        scopes=frozenset(one.text.strip().lower() for one in scopes if one.text),
        valid_until=min((moment for one in untils if one and (moment := read_time(one))), default=None),
    )


def read_time(text: str) -> datetime | None:
    """A moment as XML Schema writes it, None unless it says its zone."""
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else None


def _roles(entity: Element) -> list[Element]:
    roles = entity.findall(f"{_MD}IDPSSODescriptor")
    return [one for one in roles if _SAML2 in one.get("protocolSupportEnumeration", "").split()][:1]


def _verify(text: str, root: Element, certificate: Path, xmlsec: str) -> None:
    """The signature of the root over all of the file, by the key of this certificate and no other."""
    check_signature(root)
    if next(root.iter(f"{DS}Signature")) is not root.find(f"{DS}Signature"):
        raise UnexpectedShapeError("its signature is not the first one in it")  # which xmlsec1 would verify
    backend = CryptoBackendXmlSec1(xmlsec)
    named = root.tag.removeprefix("{").replace("}", ":")
    try:
        is_signed = backend.validate_signature(
            text, cert_file=str(certificate), cert_type="pem", node_name=named, node_id=root.get("ID", "")
        )
    except (SigverError, OSError):
        is_signed = False
    if not is_signed:
        raise UnexpectedShapeError(f"it is not signed by the key of {certificate}")
