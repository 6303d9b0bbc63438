"""What people are known by outside, each written in one form, so that it is compared as text."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import idna
from cryptography import x509

from perdure.identity.model import ENTITLEMENT, NAMEABLE, PASSKEY, SECOND_FACTOR, WAYS, CredentialKind
from perdure.kernel.errors import BadInputError

MAX_SUBJECT_CHARACTERS = 1000
_ISSUER = "issuer "
_DIRECTORY = "ldap:"
_LONGEST_ADDRESS = 254  # RFC 5321, section 4.5.3.1.3, without its brackets
_LOCAL_PART = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")  # a dot-atom


def name_of(kind: str, subject: str) -> str:
    """A credential or entitlement as grants and actors have it."""
    return f"{kind} {subject}"


def check_named(kind: str, subject: str) -> str:
    """The name of somebody from outside in its one form; raises BadInputError, which says what is wrong."""
    if kind not in NAMEABLE:
        raise BadInputError(f"A credential that can be named is one of {', '.join(sorted(NAMEABLE))}.", field="kind")
    subject = subject.strip()
    if not subject or len(subject) > MAX_SUBJECT_CHARACTERS or not subject.isprintable():
        raise BadInputError(f"The subject needs 1 to {MAX_SUBJECT_CHARACTERS} printable characters.", field="subject")
    if kind == CredentialKind.X509:
        subject = check_dn(subject)
    elif kind == CredentialKind.ORCID:
        subject = check_orcid(subject)
    elif kind == CredentialKind.OIDC:
        subject = " ".join((check_issuer(subject.partition(" ")[0]), _second_word(subject, "the issuer and the sub")))
    elif kind in (CredentialKind.SAML, CredentialKind.LDAP):
        subject = f"{subject.partition(' ')[0]} {_second_word(subject, 'the institution and the person')}"
    elif kind == ENTITLEMENT and " " in subject:
        raise BadInputError("An entitlement has no blanks.", field="subject")
    return name_of(kind, subject)


def check_requirement(text: str) -> str:
    """One demand on a login: a way, `second_factor`, or `issuer` with an institution; raises BadInputError."""
    text = text.strip()
    if text in WAYS or text in (PASSKEY, SECOND_FACTOR):
        return text
    if text.startswith(_ISSUER) and len(text) <= MAX_SUBJECT_CHARACTERS and text.isprintable():
        issuer = text.removeprefix(_ISSUER).strip()
        if issuer and " " not in issuer:
            return issuer_proof(issuer)
    known = ", ".join(sorted({*WAYS, PASSKEY, SECOND_FACTOR}))
    raise BadInputError(f"A login can be required to be one of {known}, or `issuer` and its address.", field="requires")


def issuer_proof(issuer: str) -> str:
    """The proof that a login came from this institution."""
    return _ISSUER + issuer


def check_dn(text: str) -> str:
    """A distinguished name as RFC 4514 writes it, from that form or from OpenSSL's with slashes."""
    try:
        name = x509.Name.from_rfc4514_string(_from_slashes(text) if text.startswith("/") else text)
    except ValueError as error:
        raise BadInputError(f"This is not a distinguished name: {error}.", field="subject") from None
    if not list(name):
        raise BadInputError("The distinguished name is empty.", field="subject")
    return name.rfc4514_string()


def check_orcid(text: str) -> str:
    """An ORCID iD as bare digits and hyphens, its check character right (ISO 7064, 11-2)."""
    bare = text.removeprefix("https://orcid.org/")
    digits = bare.replace("-", "")
    total = 0
    for digit in digits[:-1]:
        if not ("0" <= digit <= "9"):
            break
        total = (total + int(digit)) * 2
    check = (12 - total % 11) % 11
    is_right = (
        len(digits) == 16 and digits[:-1].isdecimal() and digits[-1].upper() == ("X" if check == 10 else str(check))
    )
    if not is_right or bare.count("-") not in (0, 3) or not digits.isascii():
        raise BadInputError("This is not an ORCID iD: 16 digits, the last of which checks the others.", field="subject")
    return "-".join(digits[start : start + 4].upper() for start in range(0, 16, 4))


def directory_issuer(name: str) -> str:
    """By what rules and grants call the directory that the operator configured under this name."""
    return f"{_DIRECTORY}{name}"


def check_institution(text: str) -> str:
    """Who says what people are entitled to: a provider's address, the entity ID of an institution of SAML (`http:` and
    `urn:`, too), or `ldap:` and the name of a directory."""
    name = text.removeprefix(_DIRECTORY)
    if name == text and text.startswith(("http://", "urn:")) and text.isprintable() and " " not in text:
        return text
    if name == text:
        return check_issuer(text)
    if not name or not name.isascii() or not name.replace("-", "").isalnum():
        raise BadInputError("A directory is `ldap:` and the name that the operator gave it.", field="issuer")
    return text


def check_issuer(text: str) -> str:
    """The address by which a provider names itself: https, or http on this machine."""
    parts = urlsplit(text)
    is_here = parts.hostname in ("127.0.0.1", "::1", "localhost")
    if not parts.hostname or parts.scheme not in ("https", "http") or (parts.scheme == "http" and not is_here):
        raise BadInputError("An issuer is an https address.", field="subject")
    return text


def check_address(text: str, *, field: str = "email") -> str:
    """An e-mail address as it is sent to: an ASCII local part, and a domain as DNS has it (IDNA 2008).

    Raises BadInputError.
    """
    local, at, domain = text.strip().rpartition("@")
    try:
        plain = idna.encode(domain, uts46=True).decode() if at else ""
    except idna.IDNAError:
        plain = ""
    is_right = len(local) <= 64 and _LOCAL_PART.fullmatch(local) and "." in plain.strip(".")
    if not is_right or plain.endswith(".") or len(local) + 1 + len(plain) > _LONGEST_ADDRESS:
        raise BadInputError("This is not an e-mail address such as ada@example.org.", field=field)
    return f"{local}@{plain}"


def fold_address(address: str) -> str:
    """The form in which checked addresses are compared."""
    return address.casefold()


def _second_word(subject: str, what: str) -> str:
    first, _, second = subject.partition(" ")
    if not first or not second.strip():
        raise BadInputError(f"The subject needs {what}, with a blank between them.", field="subject")
    return second.strip()


def _from_slashes(text: str) -> str:
    """`/C=DE/O=Grid/CN=Ada` as RFC 4514 has it, the most particular name first. A slash in a value stays in it."""
    parts: list[str] = []
    for piece in text[1:].split("/"):
        if "=" in piece.partition(" ")[0] or not parts:
            parts.append(piece)
        else:
            parts[-1] += "/" + piece
    escaped = (_escape(*piece.split("=", 1)) if "=" in piece else piece for piece in parts)
    return ",".join(reversed(list(escaped)))


def _escape(kind: str, value: str) -> str:
    marked = "".join(f"\\{one}" if one in ',+"\\<>;=' else one for one in value)
    return f"{kind}={marked}"
