"""What signed XML may look like at all, before anything verifies or reads it.

Whoever wraps a signature, hides a second assertion or asks a verifier for costly transforms needs a document of another
shape than institutions send. So only one shape passes, and what is verified and what is read cannot differ.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from xml.etree.ElementTree import Element, ParseError  # only what defusedxml raises and returns

from defusedxml import ElementTree
from defusedxml.common import DefusedXmlException

DS = "{http://www.w3.org/2000/09/xmldsig#}"
SAML = "{urn:oasis:names:tc:SAML:2.0:assertion}"
SAMLP = "{urn:oasis:names:tc:SAML:2.0:protocol}"
SUCCESS = "urn:oasis:names:tc:SAML:2.0:status:Success"

_DEEPEST = 40
_DECLARATION = re.compile(
    r"""\A\s*<\?xml\s+version=['"]1\.0['"](\s+encoding=['"]utf-8['"])?(\s+standalone=['"](yes|no)['"])?\s*\?>""",
    re.IGNORECASE,
)
_EXCLUSIVE = "http://www.w3.org/2001/10/xml-exc-c14n#"
_ENVELOPED = "http://www.w3.org/2000/09/xmldsig#enveloped-signature"
_INCLUSIVE_NAMESPACES = f"{{{_EXCLUSIVE}}}InclusiveNamespaces"
_MORE = "http://www.w3.org/2001/04/xmldsig-more#"
_SIGNATURE_METHODS = {f"{_MORE}{kind}-sha{bits}" for kind in ("rsa", "ecdsa") for bits in (256, 384, 512)}
_DIGEST_METHODS = {
    "http://www.w3.org/2001/04/xmlenc#sha256",
    "http://www.w3.org/2001/04/xmlenc#sha512",
    f"{_MORE}sha384",
}
_ALONE = ("Response", "Assertion")  # one of each in a document, wherever and in whatever namespace
_NEVER = frozenset({"EncryptedAssertion", "EncryptedID", "EncryptedAttribute", "Advice", "Object", "Extensions"})


class UnexpectedShapeError(ValueError):
    """The document has another shape than it may have; the text says which rule it breaks."""


def parse_xml(text: str) -> Element:
    """The root of a document without a DTD, in UTF-8 and not deeply nested; raises UnexpectedShapeError."""
    declared = _DECLARATION.match(text)
    if re.match(r"\s*<\?xml\s", text) and not declared:
        raise UnexpectedShapeError("the document is not declared as XML 1.0 in UTF-8")
    try:
        root: Element = ElementTree.fromstring(text, forbid_dtd=True)
    except (DefusedXmlException, ParseError, ValueError) as error:
        raise UnexpectedShapeError(f"the document is no plain XML ({type(error).__name__})") from None
    level: Sequence[Element] = [root]
    for _ in range(_DEEPEST):
        level = [child for one in level for child in one]
    if level:
        raise UnexpectedShapeError("the document is nested too deeply")
    return root


def check_response(text: str) -> Element:
    """A response with one assertion, which is signed, or with a status that tells of a failure and no assertion.

    Raises UnexpectedShapeError. The signature itself is not verified here.
    """
    body = _DECLARATION.sub("", text, count=1)
    if "<!" in body or "<?" in body:
        raise UnexpectedShapeError("the document has comments or instructions")
    root = parse_xml(text)
    counted = Counter(_local(one.tag) for one in root.iter())
    is_success = find_status(root) == SUCCESS
    if root.tag != f"{SAMLP}Response" or counted["Response"] != 1 or counted["Assertion"] != int(is_success):
        raise UnexpectedShapeError("it is not one response with one assertion")
    if never := sorted(_NEVER & counted.keys()):
        raise UnexpectedShapeError(f"it holds {', '.join(never)}")
    _require(root, [f"{SAML}Issuer", f"{DS}Signature", f"{SAMLP}Status", f"{SAML}Assertion"])
    identifiers = Counter(value for one in root.iter() for name, value in one.items() if _local(name).lower() == "id")
    if any(count > 1 for count in identifiers.values()):
        raise UnexpectedShapeError("an identifier stands twice")
    signed = [one for one in (root, *root.findall(f"{SAML}Assertion")) if one.find(f"{DS}Signature") is not None]
    if is_success and (not signed or signed[-1].tag != f"{SAML}Assertion"):
        raise UnexpectedShapeError("the assertion is not signed")
    if counted["Signature"] != len(signed):
        raise UnexpectedShapeError("there is a signature where none belongs")
    for one in signed:
        check_signature(one)
    return root


def find_status(root: Element) -> str:
    """The code of the status of a response, empty without one."""
    code = root.find(f"{SAMLP}Status/{SAMLP}StatusCode")
    return "" if code is None else code.get("Value", "")


def check_signature(signed: Element) -> None:
    """Demand that the element holds one signature of itself, and of nothing else; raises UnexpectedShapeError."""
    identifier = signed.get("ID", "")
    signature = _only(signed, f"{DS}Signature")
    info = _only(signature, f"{DS}SignedInfo")
    _require(signature, [f"{DS}SignedInfo", f"{DS}SignatureValue", f"{DS}KeyInfo"])
    _require(info, [f"{DS}CanonicalizationMethod", f"{DS}SignatureMethod", f"{DS}Reference"])
    reference = _only(info, f"{DS}Reference")
    _require(reference, [f"{DS}Transforms", f"{DS}DigestMethod", f"{DS}DigestValue"])
    transforms = list(_only(reference, f"{DS}Transforms"))
    if any(one.tag != f"{DS}Transform" for one in transforms):
        raise UnexpectedShapeError("the signature has transforms of another kind")
    canonical, method, digest = (
        _only(info, f"{DS}CanonicalizationMethod"),
        _only(info, f"{DS}SignatureMethod"),
        _only(reference, f"{DS}DigestMethod"),
    )
    is_usual = (
        identifier
        and reference.get("URI") == f"#{identifier}"
        and [one.get("Algorithm") for one in transforms] == [_ENVELOPED, _EXCLUSIVE]
        and canonical.get("Algorithm") == _EXCLUSIVE
        and method.get("Algorithm") in _SIGNATURE_METHODS
        and digest.get("Algorithm") in _DIGEST_METHODS
        and all(child.tag == _INCLUSIVE_NAMESPACES for one in (canonical, *transforms) for child in one)
        and not len(method) + len(digest)
    )
    if not is_usual:
        raise UnexpectedShapeError("the signature is not one of the whole element by an algorithm that is still good")


def _only(parent: Element, tag: str) -> Element:
    found = parent.findall(tag)
    if len(found) != 1:
        raise UnexpectedShapeError(f"there is not one {_local(tag)}")
    return found[0]


def _require(parent: Element, known: Sequence[str]) -> None:
    """Each child is one of the known, and comes once at most."""
    counted = Counter(one.tag for one in parent)
    for tag, count in counted.items():
        if tag not in known or count > 1:
            raise UnexpectedShapeError(f"{_local(parent.tag)} holds {_local(tag)} where none belongs")


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]
