"""What is believed of an institution that speaks SAML, and everything that could be said wrongly."""

from __future__ import annotations

import base64
import logging
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from structlog.testing import capture_logs

from perdure.adapters.saml import SamlProvider, SamlSettings
from perdure.adapters.saml.shape import UnexpectedShapeError, check_response
from perdure.adapters.saml.speaking import MOST_CHARACTERS
from perdure.identity.errors import LoginNotConfirmedError, NoSuchProviderError, ProviderUnavailableError
from perdure.identity.model import Arrival, CredentialKind

from .house import SetClock
from .institution import make_key

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("xmlsec1") is None, reason="xmlsec1: not installed"),
]

INSTITUTION = "https://idp.example.org/idp"
ADDRESS = "https://data.example.org/login/hall/callback"
US = "https://data.example.org/login/hall/metadata"
NONCE = "a-nonce"
SHA256 = "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256"
XSLT = "http://www.w3.org/TR/1999/REC-xslt-19991116"
MFA = "https://refeds.org/profile/mfa"
PASSWORD_CONTEXT = "urn:oasis:names:tc:SAML:2.0:ac:classes:PasswordProtectedTransport"

SIGNATURE = """<ds:Signature xmlns:ds="http://www.w3.org/2000/09/xmldsig#"><ds:SignedInfo>
<ds:CanonicalizationMethod Algorithm="http://www.w3.org/2001/10/xml-exc-c14n#"/>
<ds:SignatureMethod Algorithm="{method}"/><ds:Reference URI="#{of}"><ds:Transforms>
<ds:Transform Algorithm="http://www.w3.org/2000/09/xmldsig#enveloped-signature"/>
<ds:Transform Algorithm="http://www.w3.org/2001/10/xml-exc-c14n#"/></ds:Transforms>
<ds:DigestMethod Algorithm="{digest}"/><ds:DigestValue/></ds:Reference></ds:SignedInfo>
<ds:SignatureValue/><ds:KeyInfo><ds:X509Data/></ds:KeyInfo></ds:Signature>"""

ANSWER = """<samlp:Response xmlns:samlp="urn:oasis:names:tc:SAML:2.0:protocol"
 xmlns:saml="urn:oasis:names:tc:SAML:2.0:assertion" ID="_answer" Version="2.0" IssueInstant="{now}"
 {destination} {in_response_to}><saml:Issuer>{response_issuer}</saml:Issuer>{response_signature}
<samlp:Status><samlp:StatusCode Value="urn:oasis:names:tc:SAML:2.0:status:{status}"/></samlp:Status>
<saml:Assertion ID="_assertion" Version="2.0" IssueInstant="{now}"><saml:Issuer>{issuer}</saml:Issuer>{signature}
<saml:Subject><saml:NameID Format="urn:oasis:names:tc:SAML:2.0:nameid-format:{name_format}">{name_id}</saml:NameID>
<saml:SubjectConfirmation Method="urn:oasis:names:tc:SAML:2.0:cm:{method}">
<saml:SubjectConfirmationData {confirmation_ends} Recipient="{recipient}" {confirms}/></saml:SubjectConfirmation>
</saml:Subject><saml:Conditions NotBefore="{begins}" NotOnOrAfter="{ends}">{audience}</saml:Conditions>
<saml:AuthnStatement AuthnInstant="{logged_in}"><saml:AuthnContext>
<saml:AuthnContextClassRef>{context}</saml:AuthnContextClassRef></saml:AuthnContext></saml:AuthnStatement>
<saml:AttributeStatement>{attributes}</saml:AttributeStatement></saml:Assertion></samlp:Response>"""

METADATA = """<md:EntityDescriptor xmlns:md="urn:oasis:names:tc:SAML:2.0:metadata" entityID="{entity_id}" {more}>
{signature}<md:IDPSSODescriptor protocolSupportEnumeration="urn:oasis:names:tc:SAML:2.0:protocol"><md:Extensions>
<shibmd:Scope xmlns:shibmd="urn:mace:shibboleth:metadata:1.0" regexp="false">example.org</shibmd:Scope></md:Extensions>
<md:KeyDescriptor use="signing"><ds:KeyInfo xmlns:ds="http://www.w3.org/2000/09/xmldsig#"><ds:X509Data>
<ds:X509Certificate>{certificate}</ds:X509Certificate></ds:X509Data></ds:KeyInfo></md:KeyDescriptor>
<md:SingleSignOnService Binding="urn:oasis:names:tc:SAML:2.0:bindings:HTTP-Redirect"
 Location="https://idp.example.org/login"/></md:IDPSSODescriptor></md:EntityDescriptor>"""


class Signer:
    """An institution that says whatever a test wants, signed by its key."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key, self.certificate = folder / "institution.key", folder / "institution.crt"
        make_key(self.key, self.certificate)
        make_key(folder / "other.key", folder / "other.crt")

    def answer(self, *, key: str = "institution", signs: str = "Assertion", **changed: str) -> str:
        """An answer in XML; `signs` is what is signed, `changed` what is said otherwise."""
        now = datetime.now(UTC)
        method, digest = changed.pop("algorithms", f"{SHA256} http://www.w3.org/2001/04/xmlenc#sha256").split()
        ends = _time(now + timedelta(minutes=5))
        signatures = {"Assertion": "signature", "Response": "response_signature"}
        told = {
            "now": _time(now),
            "destination": f'Destination="{ADDRESS}"',
            "in_response_to": f'InResponseTo="_{NONCE}"',
            "response_issuer": INSTITUTION,
            "issuer": INSTITUTION,
            "response_signature": "",
            "signature": "",
            "status": "Success",
            "name_format": "persistent",
            "name_id": "kept-for-ever",
            "method": "bearer",
            "confirmation_ends": f'NotOnOrAfter="{ends}"',
            "recipient": ADDRESS,
            "confirms": f'InResponseTo="_{NONCE}"',
            "begins": _time(now - timedelta(minutes=1)),
            "ends": ends,
            "audience": audience(US),
            "logged_in": _time(now - timedelta(hours=2)),
            "context": PASSWORD_CONTEXT,
            "attributes": attribute("pairwise-id", "ada@example.org") + attribute("displayName", "Ada Example"),
        }
        of = {"Assertion": "_assertion", "Response": "_answer"}.get(signs, "")
        if signs in signatures:
            told[signatures[signs]] = SIGNATURE.format(of=of, method=method, digest=digest)
        text = ANSWER.format(**{**told, **changed})
        return self.sign(text, of, key=key) if of else text

    def sign(self, text: str, of: str, *, key: str = "institution") -> str:
        """Fill in the signature of the element with this identifier."""
        given, made = self.folder / "given.xml", self.folder / "made.xml"
        given.write_text(text)
        words = ["xmlsec1", "--sign", "--privkey-pem", f"{self.folder}/{key}.key,{self.folder}/{key}.crt"]
        for name in ("assertion:Assertion", "protocol:Response", "metadata:EntityDescriptor"):
            words += ["--id-attr:ID", f"urn:oasis:names:tc:SAML:2.0:{name}"]
        ran = subprocess.run([*words, "--node-id", of, "--output", str(made), str(given)], capture_output=True)
        assert ran.returncode == 0, ran.stderr
        return made.read_text()

    def metadata(self, entity_id: str = INSTITUTION, *, key: str | None = None, more: str = "") -> str:
        """The institution's metadata, signed by a key if one is named."""
        certificate = "".join(self.certificate.read_text().splitlines()[1:-1])
        signature = SIGNATURE.format(of="_m", method=SHA256, digest="http://www.w3.org/2001/04/xmlenc#sha256")
        text = METADATA.format(
            entity_id=entity_id,
            certificate=certificate,
            more=f'ID="_m" {more}' if key else more,
            signature=signature if key else "",
        )
        return self.sign(text, "_m", key=key) if key else text


def audience(*names: str) -> str:
    inside = "".join(f"<saml:Audience>{one}</saml:Audience>" for one in names)
    return f"<saml:AudienceRestriction>{inside}</saml:AudienceRestriction>"


def attribute(name: str, *values: str) -> str:
    names = {
        "pairwise-id": "urn:oasis:names:tc:SAML:attribute:pairwise-id",
        "subject-id": "urn:oasis:names:tc:SAML:attribute:subject-id",
        "displayName": "urn:oid:2.16.840.1.113730.3.1.241",
        "mail": "urn:oid:0.9.2342.19200300.100.1.3",
        "eduPersonPrincipalName": "urn:oid:1.3.6.1.4.1.5923.1.1.1.6",
        "eduPersonEntitlement": "urn:oid:1.3.6.1.4.1.5923.1.1.1.7",
        "eduPersonScopedAffiliation": "urn:oid:1.3.6.1.4.1.5923.1.1.1.9",
    }
    inside = "".join(f"<saml:AttributeValue>{one}</saml:AttributeValue>" for one in values)
    form = "urn:oasis:names:tc:SAML:2.0:attrname-format:uri"
    return f'<saml:Attribute Name="{names[name]}" NameFormat="{form}">{inside}</saml:Attribute>'


def _time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    return Signer(tmp_path_factory.mktemp("signer"))


@pytest.fixture
def clock() -> SetClock:
    clock = SetClock()
    clock.moment = datetime.now(UTC)
    return clock


@pytest.fixture
def settings(signer: Signer, tmp_path: Path) -> SamlSettings:
    file = tmp_path / "institution.xml"
    file.write_text(signer.metadata())
    return SamlSettings("hall", "Hall", INSTITUTION, file)


@pytest.fixture
def provider(settings: SamlSettings, clock: SetClock) -> SamlProvider:
    return SamlProvider(settings, clock)


def redeem(provider: SamlProvider, answer: str) -> Arrival:
    code = base64.b64encode(answer.encode()).decode()
    return provider.redeem(code, redirect_uri=ADDRESS, nonce=NONCE, verifier="")


# What is believed


def test_an_answer_tells_who_it_is(provider: SamlProvider, signer: Signer, clock: SetClock) -> None:
    said = attribute("pairwise-id", "ada@example.org") + attribute("displayName", "Ada Example")
    said += attribute("mail", "ada@example.com") + attribute("eduPersonEntitlement", "urn:x:team", "with a blank")
    said += attribute("eduPersonScopedAffiliation", "staff@example.org", "staff@elsewhere.org")
    found = redeem(provider, signer.answer(attributes=said))
    assert (found.kind, found.subject) == (CredentialKind.SAML, f"{INSTITUTION} ada@example.org")
    assert (found.display_name, found.email, found.issuer) == ("Ada Example", "ada@example.com", INSTITUTION)
    assert found.entitlements == {"urn:x:team", "staff@example.org"}
    assert found.proofs == {"saml", f"issuer {INSTITUTION}"}
    assert found.proven_at is not None
    assert timedelta(hours=1, minutes=59) < clock.now() - found.proven_at < timedelta(hours=2, minutes=1)
    assert redeem(provider, signer.answer(context=MFA)).proofs >= {"second_factor"}


def test_the_library_keeps_nothing_of_people_in_the_log(
    provider: SamlProvider, signer: Signer, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    redeem(provider, signer.answer())
    with pytest.raises(LoginNotConfirmedError):
        redeem(provider, signer.answer(key="other"))
    told = caplog.text + "".join(capfd.readouterr())
    assert "ada@example.org" not in told
    assert "Ada Example" not in told


@pytest.mark.parametrize(
    ("subject", "value"),
    [
        ("subject-id", "s-1@example.org"),
        ("eduPersonPrincipalName", "ada@example.org"),
        ("persistent", "kept-for-ever"),
    ],
)
def test_the_operator_says_what_tells_people_apart(
    settings: SamlSettings, clock: SetClock, signer: Signer, subject: str, value: str
) -> None:
    said = "" if subject == "persistent" else attribute(subject, value)
    provider = SamlProvider(replace(settings, subject=subject), clock)
    other = attribute("mail", "mail@example.org")
    assert redeem(provider, signer.answer(attributes=said + other)).subject == f"{INSTITUTION} {value}"
    with pytest.raises(LoginNotConfirmedError, match="does not say who you are"):
        redeem(provider, signer.answer(attributes=other, name_format="transient"))


@pytest.mark.parametrize(
    "said",
    [
        attribute("displayName", "Ada"),
        attribute("pairwise-id", "ada@elsewhere.org"),
        attribute("pairwise-id", "ada@example.org", "eve@example.org"),
        attribute("pairwise-id", ""),
    ],
    ids=["nothing", "of-another-scope", "two", "empty"],
)
def test_nobody_is_guessed(provider: SamlProvider, signer: Signer, said: str) -> None:
    with pytest.raises(LoginNotConfirmedError, match="does not say who you are"):
        redeem(provider, signer.answer(attributes=said))


def test_an_institution_is_asked_and_told_who_we_are(provider: SamlProvider) -> None:
    url = provider.authorization_url(redirect_uri=ADDRESS, state="s", nonce=NONCE, verifier="v", anew=True)
    asked = parse_qs(urlsplit(url).query)
    assert url.startswith("https://idp.example.org/login?")
    assert "RelayState" not in asked
    request = _inflate(asked["SAMLRequest"][0])
    assert f'ID="_{NONCE}"' in request
    assert f'AssertionConsumerServiceURL="{ADDRESS}"' in request
    assert f">{US}</" in request
    assert 'ForceAuthn="true"' in request
    again = provider.authorization_url(redirect_uri=ADDRESS, state="s", nonce=NONCE, verifier="v")
    assert 'ForceAuthn="true"' not in _inflate(parse_qs(urlsplit(again).query)["SAMLRequest"][0])
    described = provider.describe(ADDRESS)
    assert f'entityID="{US}"' in described
    assert 'WantAssertionsSigned="true"' in described
    assert "pairwise-id" in described
    assert "md5" not in described
    for act in (provider.begin_device, lambda: provider.accept_token("x"), lambda: provider.redeem_device("x")):
        with pytest.raises(NoSuchProviderError):
            act()


def _inflate(text: str) -> str:
    import zlib

    return zlib.decompress(base64.b64decode(text), -15).decode()


# What is not


def _at(**ago: float) -> str:
    return _time(datetime.now(UTC) + timedelta(**ago))


WRONG: dict[str, tuple[str, Callable[[], dict[str, str]]]] = {
    "signed by another key": ("cannot be believed", lambda: {"key": "other"}),
    "not signed": ("not signed", lambda: {"signs": "nothing"}),
    "only the whole is signed": ("not signed", lambda: {"signs": "Response"}),
    "sha1": (
        "still good",
        lambda: {"algorithms": "http://www.w3.org/2000/09/xmldsig#rsa-sha1 http://www.w3.org/2000/09/xmldsig#sha1"},
    ),
    "for another audience": ("cannot be believed", lambda: {"audience": audience("https://other.example.org")}),
    "for us and not for us": (
        "somebody else",
        lambda: {"audience": audience(US) + audience("https://other.example.org")},
    ),
    "for no audience": ("somebody else", lambda: {"audience": ""}),
    "to another destination": (
        "cannot be believed",
        lambda: {"destination": 'Destination="https://other.example.org/acs"'},
    ),
    "to no destination": ("another address", lambda: {"destination": ""}),
    "to another recipient": ("does not confirm", lambda: {"recipient": "https://other.example.org/acs"}),
    "confirmed without an end": ("does not confirm", lambda: {"confirmation_ends": ""}),
    "confirmed in the past": ("cannot be believed", lambda: {"confirmation_ends": f'NotOnOrAfter="{_at(minutes=-2)}"'}),
    "confirmed by the sender": ("does not confirm", lambda: {"method": "sender-vouches"}),
    "expired": ("cannot be believed", lambda: {"ends": _at(minutes=-2), "begins": _at(minutes=-9)}),
    "not yet valid": ("cannot be believed", lambda: {"begins": _at(minutes=2)}),
    "without an hour that can be read": ("cannot be believed", lambda: {"ends": "tomorrow"}),
    "in answer to another request": ("cannot be believed", lambda: {"in_response_to": 'InResponseTo="_other"'}),
    "confirmed for another request": ("cannot be believed", lambda: {"confirms": 'InResponseTo="_other"'}),
    "confirmed for no request": ("cannot be believed", lambda: {"confirms": ""}),
    "unsolicited": ("cannot be believed", lambda: {"in_response_to": "", "confirms": ""}),
    "by another institution": (
        "cannot be believed",
        lambda: {"issuer": "https://x.org", "response_issuer": "https://x.org"},
    ),
    "sent by another institution": ("another institution", lambda: {"response_issuer": "https://x.org"}),
    "a refusal with an assertion": ("one assertion", lambda: {"status": "Requester"}),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_said_wrongly_is_not_believed(provider: SamlProvider, signer: Signer, wrong: str) -> None:
    told, changed = WRONG[wrong]
    with pytest.raises(LoginNotConfirmedError, match=told):
        redeem(provider, signer.answer(**changed()))


@pytest.mark.parametrize(("seconds", "is_good"), [(-45, True), (45, True), (-75, False), (75, False)])
def test_clocks_may_differ_by_a_minute(
    provider: SamlProvider, signer: Signer, clock: SetClock, seconds: int, is_good: bool
) -> None:
    answer = signer.answer(ends=_at(seconds=30), begins=_at(seconds=-30), confirmation_ends=_ends(seconds=30))
    clock.move(timedelta(seconds=seconds + (30 if seconds > 0 else -30)))
    if is_good:
        redeem(provider, answer)
    else:
        with pytest.raises(LoginNotConfirmedError, match="not valid now"):
            redeem(provider, answer)


def _ends(**ago: float) -> str:
    return f'NotOnOrAfter="{_at(**ago)}"'


def test_a_refusal_of_the_institution_is_told(provider: SamlProvider, signer: Signer) -> None:
    refused = signer.answer(signs="nothing", status="Responder")
    with pytest.raises(LoginNotConfirmedError, match=r"did not log you in \(Responder\)"):
        redeem(provider, re.sub(r"(?s)<saml:Assertion .*</saml:Assertion>", "", refused))


def _forged(answer: str) -> tuple[str, str, str]:
    """The signed assertion, one that says another name and is not signed, and what is around them."""
    signed = re.search(r"(?s)<saml:Assertion .*</saml:Assertion>", answer)
    assert signed is not None
    bare = re.sub(r"(?s)<ds:Signature .*</ds:Signature>", "", signed[0])
    forged = bare.replace("ada@example.org", "eve@example.org").replace('ID="_assertion"', 'ID="_forged"')
    return signed[0], forged, answer.replace(signed[0], "{}")


def _signature_of(assertion: str) -> str:
    found = re.search(r"(?s)<ds:Signature .*</ds:Signature>", assertion)
    assert found is not None
    return found[0]


def _within(forged: str, what: str) -> str:
    """Put something where the signature stands: behind the issuer."""
    return forged.replace("</saml:Issuer>", f"</saml:Issuer>{what}", 1)


def _wrap_all(answer: str) -> Iterator[tuple[str, str]]:
    signed, forged, around = _forged(answer[answer.index("<samlp:Response") :])
    signature = _signature_of(signed)
    bare = signed.replace(signature, "")
    in_object = signature.replace("</ds:Signature>", f"<ds:Object>{bare}</ds:Object></ds:Signature>")
    extensions = f"<samlp:Extensions>{signed}</samlp:Extensions>"
    yield "before it", around.format(forged + signed)
    yield "behind it", around.format(signed + forged)
    yield "around it", around.format(_within(forged, signed))
    yield "around it at the end", around.format(forged.replace("</saml:Assertion>", f"{signed}</saml:Assertion>"))
    yield "in an object of its signature", around.format(_within(forged, in_object))
    yield "in an object beside it", around.format(f"<ds:Object xmlns:ds='x'>{signed}</ds:Object>{forged}")
    yield "in extensions", around.format(extensions + forged)
    yield "with the same identifier", around.format(signed + forged.replace("_forged", "_assertion"))
    yield "with the signature of the other", around.format(_within(forged, signature))
    yield "in advice", around.format(_within(forged, f"<saml:Advice>{signed}</saml:Advice>"))
    yield "in an answer of its own", around.format(around.format(signed).replace("_answer", "_x") + forged)
    yield (
        "in another namespace",
        around.format(forged.replace("<saml:Assertion ", "<saml:Assertion xmlns='x' ") + signed),
    )
    yield (
        "with the answer as what is signed",
        around.format(_within(forged.replace("_forged", "_f"), signature.replace("#_assertion", "#_answer"))),
    )
    yield "with a second signature", around.format(_within(signed, signature))
    yield "in an encrypted one", around.format(f"<saml:EncryptedAssertion>{signed}</saml:EncryptedAssertion>{forged}")


WRAPPED = (
    "before it",
    "behind it",
    "around it",
    "around it at the end",
    "in an object of its signature",
    "in an object beside it",
    "in extensions",
    "with the same identifier",
    "with the signature of the other",
    "in advice",
    "in an answer of its own",
    "in another namespace",
    "with the answer as what is signed",
    "with a second signature",
    "in an encrypted one",
)


@pytest.mark.parametrize("way", WRAPPED)
def test_a_signature_is_of_what_is_read(provider: SamlProvider, signer: Signer, way: str) -> None:
    wrapped = dict(_wrap_all(signer.answer()))
    assert tuple(wrapped) == WRAPPED
    with pytest.raises(LoginNotConfirmedError):
        redeem(provider, wrapped[way])


def test_what_is_changed_after_it_was_signed_is_not_believed(provider: SamlProvider, signer: Signer) -> None:
    answer = signer.answer()
    assert redeem(provider, answer).subject.endswith(" ada@example.org")
    with pytest.raises(LoginNotConfirmedError, match="cannot be believed"):
        redeem(provider, answer.replace("ada@example.org", "eve@example.org"))


LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
BAD_XML: dict[str, Callable[[str], str]] = {
    "entities that grow": lambda xml: f'<!DOCTYPE x [<!ENTITY l0 "ha">{LAUGHS}]>{xml.replace("Ada Example", "&l9;")}',
    "a file of the machine": lambda xml: (
        f'<!DOCTYPE x [<!ENTITY f SYSTEM "file:///etc/passwd">]>{xml.replace("Ada Example", "&f;")}'
    ),
    "a doctype of elsewhere": lambda xml: f'<!DOCTYPE x PUBLIC "-//x" "http://127.0.0.1:9/x.dtd">{xml}',
    "a comment in a name": lambda xml: xml.replace("ada@example.org", "ada@example.org<!-- -->.evil.org"),
    "an instruction": lambda xml: xml.replace("Ada Example", "Ada <?x y?>Example"),
    "a stylesheet": lambda xml: f'<?xml-stylesheet href="http://127.0.0.1:9/x"?>{xml}',
    "another encoding": lambda xml: f'<?xml version="1.0" encoding="utf-7"?>{xml}',
    "no XML": lambda xml: xml[:-20],
    "a deep nest": lambda xml: xml.replace("Ada Example", f"{'<a>' * 3000}{'</a>' * 3000}"),
    "another root": lambda xml: f"<x>{xml}</x>",
    "a transform that runs": lambda xml: xml.replace(
        '<ds:Transform Algorithm="http://www.w3.org/2001/10/xml-exc-c14n#"/>', f'<ds:Transform Algorithm="{XSLT}"/>'
    ),
    "one transform more": lambda xml: xml.replace(
        "</ds:Transforms>", f'<ds:Transform Algorithm="{XSLT}"/></ds:Transforms>'
    ),
    "a secret as the key": lambda xml: xml.replace(SHA256, "http://www.w3.org/2000/09/xmldsig#hmac-sha1"),
    "a reference to elsewhere": lambda xml: xml.replace('URI="#_assertion"', 'URI="http://127.0.0.1:9/x"'),
    "a reference to all": lambda xml: xml.replace('URI="#_assertion"', 'URI=""'),
    "a second reference": lambda xml: re.sub(r"(?s)(<ds:Reference .*</ds:Reference>)", r"\1\1", xml),
}


@pytest.mark.parametrize("bad", BAD_XML)
def test_xml_of_another_shape_reaches_no_verifier(
    provider: SamlProvider, signer: Signer, monkeypatch: pytest.MonkeyPatch, bad: str
) -> None:
    answer = signer.answer()
    changed = BAD_XML[bad](answer[answer.index("<samlp:Response") :])
    redeem(provider, answer)
    monkeypatch.setattr("subprocess.Popen", None)  # xmlsec1 is not even started
    with pytest.raises(LoginNotConfirmedError, match=" is none "):
        redeem(provider, changed)
    with pytest.raises(UnexpectedShapeError):
        check_response(changed)


def test_an_answer_is_judged_to_its_last_character(provider: SamlProvider, signer: Signer) -> None:
    whole = base64.b64encode(signer.answer().encode() + b" " * MOST_CHARACTERS).decode()
    with pytest.raises(LoginNotConfirmedError, match="too long"):
        provider.redeem(whole, redirect_uri=ADDRESS, nonce=NONCE, verifier="")


@pytest.mark.parametrize("code", ["", "!", "x" * 400_000, base64.b64encode(b"\xff\xfe").decode()], ids=range(4))
def test_what_is_no_text_is_refused(provider: SamlProvider, code: str) -> None:
    with pytest.raises(LoginNotConfirmedError):
        provider.redeem(code, redirect_uri=ADDRESS, nonce=NONCE, verifier="")


# What the operator gave


def ask(provider: SamlProvider) -> str:
    return provider.authorization_url(redirect_uri=ADDRESS, state="s", nonce=NONCE, verifier="v")


def test_metadata_that_cannot_be_used_are_told_to_the_operator(
    settings: SamlSettings, provider: SamlProvider, signer: Signer
) -> None:
    good, file = settings.metadata_file.read_text(), settings.metadata_file
    bad = {
        "does not tell of": signer.metadata("https://another.example.org"),
        "or more than once": f"<x>{good}{good}</x>",
        "no identity provider": good.replace("IDPSSODescriptor", "SPSSODescriptor"),
        "no login by HTTP-Redirect": good.replace("HTTP-Redirect", "SOAP"),
        "was valid until": signer.metadata(more='validUntil="2020-01-01T00:00:00Z"'),
        "no plain XML": f"<!DOCTYPE x>{good}",
        "larger than": good + " " * 1024 * 1024,
    }
    for told, text in bad.items():
        file.write_text(text)
        with pytest.raises(ProviderUnavailableError, match="cannot be used now"), capture_logs() as logs:
            ask(provider)
        assert [told in one["reason"] for one in logs] == [True], logs
    file.write_text(f"<m xmlns:md='urn:oasis:names:tc:SAML:2.0:metadata'>{signer.metadata('https://x.org')}{good}</m>")
    assert redeem(provider, signer.answer()).subject.endswith(" ada@example.org")
    file.unlink()
    with pytest.raises(ProviderUnavailableError):
        ask(provider)


def test_metadata_are_believed_by_the_key_that_the_operator_names(
    settings: SamlSettings, signer: Signer, clock: SetClock
) -> None:
    file, trusted = settings.metadata_file, signer.folder / "other.crt"
    provider = SamlProvider(replace(settings, metadata_certificate=trusted), clock)
    signed = signer.metadata(key="other")
    wrapped = signed.replace("<md:IDPSSODescriptor", signer.metadata("https://x.org") + "<md:IDPSSODescriptor", 1)
    changed = signed.replace("https://idp.example.org/login", "https://evil.example.org/login")
    for bad in (signer.metadata(), signer.metadata(key="institution"), changed, wrapped, f"<x>{signed}</x>"):
        file.write_text(bad)
        with pytest.raises(ProviderUnavailableError):
            ask(provider)
    file.write_text(signed)
    assert ask(provider).startswith("https://idp.example.org/login?")
