"""What is said in SAML to one institution, and what of its answers is believed.

The library verifies signatures and reads attributes. It passes over some of what an answer has to say (a destination
that is another's, an absent audience), so all of that is demanded here again.
"""

from __future__ import annotations

import base64
import logging
import re
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from saml2 import BINDING_HTTP_POST, BINDING_HTTP_REDIRECT
from saml2.client import Saml2Client
from saml2.config import SPConfig
from saml2.metadata import create_metadata_string

from perdure.adapters.saml.metadata import BadMetadataError, Institution, read_metadata, read_time
from perdure.adapters.saml.settings import SamlSettings
from perdure.adapters.saml.shape import SUCCESS, UnexpectedShapeError, check_response, find_status
from perdure.identity.errors import LoginNotConfirmedError, ProviderUnavailableError
from perdure.identity.model import SECOND_FACTOR, Arrival, CredentialKind
from perdure.identity.names import check_orcid, issuer_proof
from perdure.kernel.clock import Clock
from perdure.kernel.errors import BadInputError

log = structlog.get_logger(__name__)
logging.getLogger("saml2").setLevel(logging.CRITICAL + 1)  # it logs whole answers, with all that is said of people

LEEWAY = timedelta(minutes=1)
MOST_CHARACTERS = 192 * 1024
_MOST_CLAIM_CHARACTERS = 255
_BEARER = "urn:oasis:names:tc:SAML:2.0:cm:bearer"
_PERSISTENT = "urn:oasis:names:tc:SAML:2.0:nameid-format:persistent"
_SUBJECT_WISH = "urn:oasis:names:tc:SAML:profiles:subject-id:req"  # saml-subject-id-attr-v1.0, section 2.4
_URI = "urn:oasis:names:tc:SAML:2.0:attrname-format:uri"
_FACTOR_CONTEXT = "https://refeds.org/profile/mfa"
_SCOPED_SUBJECTS = ("pairwise-id", "subject-id", "eduPersonPrincipalName")
_SCOPED = frozenset({*_SCOPED_SUBJECTS, "eduPersonScopedAffiliation"})
_SHOWN = ("displayName", "cn", "givenName", "sn", "mail", "eduPersonOrcid")


@dataclass(frozen=True, slots=True)
class _Known:
    """The institution as its file said when it was of this stamp."""

    stamp: tuple[int, int]
    institution: Institution


class Speaker:
    """Speaks with one institution; safe to share between threads. What the file says is read anew when it changes."""

    def __init__(self, settings: SamlSettings, clock: Clock, xmlsec: str) -> None:
        self._settings = settings
        self._clock = clock
        self._xmlsec = xmlsec
        self._turn = threading.Lock()
        self._known: _Known | None = None

    def ask(self, address: str, request_id: str, *, anew: bool) -> str:
        """Where to send a browser with a request of this identifier."""
        institution = self._find_institution()
        client = self._make_client(address, institution)
        _, request = client.create_authn_request(
            institution.login_address,
            binding=BINDING_HTTP_POST,
            message_id=request_id,
            sign=False,
            force_authn="true" if anew else "false",
        )
        found = client.apply_binding(BINDING_HTTP_REDIRECT, str(request), institution.login_address, sign=False)
        return next(str(value) for name, value in found["headers"] if name == "Location")

    def describe(self, address: str) -> str:
        """Our metadata; the institution's are not needed for them."""
        configuration = self._configure(address, None)
        configuration.xmlsec_binary = None  # which would be asked for algorithms, and offers MD5
        described = create_metadata_string(None, config=configuration)
        return described.decode() if isinstance(described, bytes) else str(described)

    def read(self, encoded: str, address: str, request_id: str) -> Arrival:
        """Whom an answer to this request tells of; raises LoginNotConfirmedError."""
        institution = self._find_institution()
        if len(encoded) > MOST_CHARACTERS:
            raise self._refusal("is too long")
        try:
            text = base64.b64decode(re.sub(r"\s", "", encoded), validate=True).decode()
            status = find_status(check_response(text))
        except (UnexpectedShapeError, ValueError) as error:
            why = str(error) if isinstance(error, UnexpectedShapeError) else type(error).__name__
            raise self._refusal(f"is none ({why})") from None
        if status != SUCCESS:
            raise LoginNotConfirmedError(f"{self._settings.label} did not log you in ({status.rpartition(':')[2]}).")
        client = self._make_client(address, institution)
        try:
            judged = base64.b64encode(text.encode()).decode()  # no other reading of what was posted
            found = client.parse_authn_request_response(judged, BINDING_HTTP_POST, outstanding={request_id: "/"})
        except Exception as error:  # the library raises what it likes; whatever it is, nobody is logged in
            raise self._refusal(f"cannot be believed ({type(error).__name__})") from None
        if found is None or found.assertion is None or not found.assertion.signature:
            raise self._refusal("cannot be believed")
        self._require_ours(found.response, found.assertion, address, request_id)
        return self._to_arrival(found, institution)

    # What is demanded of an answer

    def _require_ours(self, response: Any, assertion: Any, address: str, request_id: str) -> None:  # Any: saml2's
        """That it is from this institution, for us, here, now, and in answer to this request."""
        issuers = [_text_of(one.issuer) for one in (response, assertion)]
        audiences = [one.audience for one in getattr(assertion.conditions, "audience_restriction", [])]
        us = self._our_name(address)
        if issuers != [self._settings.issuer] * 2:
            raise self._refusal("is from another institution")
        if response.destination != address:
            raise self._refusal("was meant for another address")
        if response.in_response_to != request_id:
            raise self._refusal("is no answer to this login")
        if not audiences or not all(us in map(_text_of, one) for one in audiences):
            raise self._refusal("was made for somebody else")
        if not self._is_now(assertion.conditions.not_before, assertion.conditions.not_on_or_after):
            raise self._refusal("is not valid now")
        confirmed = [one for one in assertion.subject.subject_confirmation if one.method == _BEARER]
        data = [one.subject_confirmation_data for one in confirmed if one.subject_confirmation_data is not None]
        if not any(one.recipient == address and one.in_response_to == request_id and self._ends(one) for one in data):
            raise self._refusal("does not confirm whom it tells of, here and for this login")
        if len(assertion.authn_statement) != 1:
            raise self._refusal("does not say how somebody logged in")

    def _ends(self, data: Any) -> bool:  # Any: saml2's
        """Whether a confirmation says how long it is good, and it is (saml-profiles-2.0, section 4.1.4.2)."""
        return bool(data.not_on_or_after) and self._is_now(data.not_before, data.not_on_or_after)

    def _is_now(self, not_before: str | None, not_on_or_after: str | None) -> bool:
        now = self._clock.now()
        begins, ends = (read_time(one) if one else None for one in (not_before, not_on_or_after))
        if (not_before and begins is None) or (not_on_or_after and ends is None):
            return False
        return (begins is None or begins <= now + LEEWAY) and (ends is None or ends > now - LEEWAY)

    # What of it is kept

    def _to_arrival(self, found: Any, institution: Institution) -> Arrival:  # Any: saml2's
        said = {name: _texts(values) for name, values in (found.ava or {}).items()}
        for name in _SCOPED & said.keys():
            said[name] = [one for one in said[name] if _has_scope(one, institution.scopes)]
        issuer = self._settings.issuer
        (statement,) = found.assertion.authn_statement
        context = statement.authn_context
        proofs = {CredentialKind.SAML.value, issuer_proof(issuer)}
        if context is not None and _text_of(context.authn_context_class_ref) == _FACTOR_CONTEXT:
            proofs.add(SECOND_FACTOR)
        entitlements = {one for name in self._settings.entitlement_attributes for one in said.get(name, [])}
        return Arrival(
            kind=CredentialKind.SAML,
            subject=f"{issuer} {self._find_subject(found, said)}",
            display_name=_name(said),
            email=_first(said, "mail") or None,
            orcid=_orcid(_first(said, "eduPersonOrcid")),
            issuer=issuer,
            entitlements=frozenset(one for one in entitlements if " " not in one),
            proofs=frozenset(proofs),
            proven_at=self._moment_of(statement.authn_instant),
        )

    def _find_subject(self, found: Any, said: dict[str, list[str]]) -> str:  # Any: saml2's
        wanted = self._settings.subject
        values = said.get(wanted, [])
        if wanted == "persistent":
            named = found.assertion.subject.name_id
            values = _texts([_text_of(named)]) if named is not None and named.format == _PERSISTENT else []
        if len(values) != 1 or len(values[0]) > _MOST_CLAIM_CHARACTERS:
            raise LoginNotConfirmedError(f"{self._settings.label} does not say who you are: we need {wanted}, once.")
        return values[0]

    def _moment_of(self, instant: str | None) -> datetime | None:
        """When he logged in there, never in our future."""
        moment = read_time(instant) if instant else None
        return None if moment is None else min(moment.astimezone(UTC), self._clock.now())

    # The library and the file

    def _find_institution(self) -> Institution:
        """Raises ProviderUnavailableError; what is wrong with the file is for the operator, in the log."""
        chosen = self._settings
        with self._turn:
            try:
                found = chosen.metadata_file.stat()
                stamp = (found.st_mtime_ns, found.st_size)
                if self._known is None or self._known.stamp != stamp:
                    read = read_metadata(
                        chosen.metadata_file,
                        chosen.issuer,
                        certificate=chosen.metadata_certificate,
                        xmlsec=self._xmlsec,
                    )
                    self._known = _Known(stamp, read)
                institution = self._known.institution
                if institution.valid_until and institution.valid_until <= self._clock.now():
                    raise BadMetadataError(f"{chosen.metadata_file} was valid until {institution.valid_until}")
            except (BadMetadataError, OSError) as error:
                log.warning("saml_metadata_unusable", provider=chosen.name, reason=str(error))
                raise ProviderUnavailableError(f"The metadata of {chosen.label} cannot be used now.") from None
        return institution

    def _make_client(self, address: str, institution: Institution) -> Saml2Client:
        """A client of its own for each message: one that stays remembers everybody whom it has read about."""
        return Saml2Client(self._configure(address, institution))

    def _configure(self, address: str, institution: Institution | None) -> SPConfig:
        subject = self._settings.subject
        names = dict.fromkeys([*_SHOWN, *self._settings.entitlement_attributes])
        sp: dict[str, Any] = {  # Any: as the library takes it
            "endpoints": {"assertion_consumer_service": [(address, BINDING_HTTP_POST)]},
            "want_assertions_signed": True,
            "want_response_signed": False,
            "authn_requests_signed": False,
            "allow_unsolicited": False,
            "optional_attributes": list(names),
        }
        if subject == "persistent":
            sp |= {"name_id_policy_format": _PERSISTENT, "name_id_format": [_PERSISTENT]}
            sp |= {"name_id_format_allow_create": True}
        elif subject == "eduPersonPrincipalName":
            sp["required_attributes"] = [subject]
        wish = subject if subject in ("pairwise-id", "subject-id") else "none"
        chosen = {
            "entityid": self._our_name(address),
            "name": "Perdure",
            "service": {"sp": sp},
            "entity_attributes": [{"format": _URI, "name": _SUBJECT_WISH, "values": [wish]}],
            "metadata": {"inline": [institution.text]} if institution else {},
            "xmlsec_binary": self._xmlsec,
            "accepted_time_diff": int(LEEWAY.total_seconds()),
        }
        return SPConfig().load(chosen)

    def _our_name(self, address: str) -> str:
        return self._settings.entity_id or address.rpartition("/")[0] + "/metadata"

    def _refusal(self, why: str) -> LoginNotConfirmedError:
        return LoginNotConfirmedError(f"The answer of {self._settings.label} {why}.")


def _text_of(element: Any) -> str:  # Any: saml2's
    return (getattr(element, "text", None) or "").strip()


def _texts(values: Iterable[object]) -> list[str]:
    """What is text, in one line, and short enough to be compared."""
    kept = (one.strip() for one in values if isinstance(one, str))
    return [one for one in dict.fromkeys(kept) if one and one.isprintable() and len(one) <= 1000]


def _first(said: dict[str, list[str]], name: str) -> str:
    return next((one[:_MOST_CLAIM_CHARACTERS] for one in said.get(name, [])), "")


def _name(said: dict[str, list[str]]) -> str:
    given = f"{_first(said, 'givenName')} {_first(said, 'sn')}".strip()
    return (_first(said, "displayName") or _first(said, "cn") or given)[:_MOST_CLAIM_CHARACTERS]


def _has_scope(value: str, scopes: frozenset[str]) -> bool:
    """Whether an institution speaks of its own people, as far as its metadata tell who they are."""
    return not scopes or value.rpartition("@")[2].lower() in scopes


def _orcid(text: str) -> str | None:
    try:
        return check_orcid(text.replace("http://", "https://")) if text else None
    except BadInputError:
        return None
