"""Who comes from outside: known, unknown, disabled, waiting; terms, claims and linked logins."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import Connection

from perdure.identity import ApplicationState, Arrival, Client, CredentialKind, Grantee, OrganisationThing, Role
from perdure.identity.errors import (
    ApplicationDecidedError,
    ApplicationPendingError,
    ApplicationRefusedError,
    BadCredentialsError,
    BadSealError,
    CredentialTakenError,
    LastCredentialError,
    LoginNotConfirmedError,
    NameTakenError,
    NoSuchProviderError,
    TermsNotAcceptedError,
    TicketUsedError,
    UnknownPersonError,
)
from perdure.identity.federation import check_return
from perdure.identity.joining import Joiner
from perdure.kernel.actor import Actor
from perdure.kernel.errors import BadInputError, NotAllowedError, NotFoundError

from .house import PASSWORD, House, SetClock, make_federation, own_id
from .test_matrix import archive_of

ISSUER = "https://login.example.org"
GROUP = "urn:x:example.org:group:beamline"
HERE = Client("192.0.2.1", "browser")
ADA = Arrival(
    CredentialKind.OIDC,
    f"{ISSUER} ada",
    "Ada Example",
    "ada@example.org",
    issuer=ISSUER,
    entitlements=frozenset({GROUP}),
    proofs=frozenset({"oidc", f"issuer {ISSUER}"}),
    proven_at=SetClock().now(),
)


def apply(house: House, arrival: Arrival = ADA, **more: object) -> UUID:
    wanted: dict[str, object] = {"reason": "My beamtime.", "display_name": None, "organisation_id": None}
    return house.identity.apply(arrival, **{**wanted, "accept_terms": None, **more}).id  # type: ignore[arg-type]


def let_in(house: House, arrival: Arrival = ADA) -> Actor:
    """Apply, be approved, and come."""
    asked = apply(house, arrival, organisation_id=house.administrator.organisation_id)
    house.identity.approve_application(house.administrator, asked)
    return house.identity.arrive(arrival, HERE)[1]


def test_an_unknown_login_becomes_an_application_and_then_an_identity(house: House) -> None:
    with pytest.raises(UnknownPersonError):
        house.identity.arrive(ADA, HERE)
    assert not house.identity.list_applications(house.administrator)
    asked = apply(house)
    with pytest.raises(ApplicationPendingError):
        house.identity.arrive(ADA, HERE)
    assert apply(house) == asked
    with pytest.raises(BadInputError, match="organisation"):
        house.identity.approve_application(house.administrator, asked)
    card = house.identity.approve_application(
        house.administrator, asked, organisation_id=house.administrator.organisation_id, quota_bytes=7
    )
    _, ada = house.identity.arrive(ADA, HERE)
    assert (ada.identity_id, ada.name) == (card.id, "Ada Example")
    assert ada.proofs == {"oidc", f"issuer {ISSUER}"}
    assert ada.known_as == {f"oidc {ISSUER} ada", f"entitlement {GROUP}"}
    assert house.personal(ada).quota_bytes == 7
    with pytest.raises(ApplicationDecidedError):
        house.identity.refuse_application(house.administrator, asked, note="")
    with pytest.raises(CredentialTakenError):
        apply(house)


def test_nothing_is_kept_before_somebody_asks_and_little_after_a_refusal(house: House) -> None:
    asked = apply(house)
    house.identity.refuse_application(house.administrator, asked, note="No beamtime of that name.")
    with pytest.raises(ApplicationRefusedError, match="No beamtime"):
        house.identity.arrive(ADA, HERE)
    (kept,) = house.identity.list_applications(house.administrator)
    assert (kept.display_name, kept.email, kept.orcid, kept.reason) == ("", None, None, "")
    house.clock.move(timedelta(days=91))
    assert house.identity.forget_refused() == 1
    with pytest.raises(UnknownPersonError):
        house.identity.arrive(ADA, HERE)


def test_an_address_of_mail_or_a_name_leads_to_nobody(house: House) -> None:
    house.identity.create_local_account(
        house.administrator, login="ada", password=PASSWORD, display_name="Ada Example", email="ada@example.org"
    )
    with pytest.raises(UnknownPersonError):
        house.identity.arrive(ADA, HERE)
    let_in(house)
    for other in (f"{ISSUER} Ada", "https://other.example.org ada", f"{ISSUER} ada "):
        with pytest.raises(UnknownPersonError):
            house.identity.arrive(replace(ADA, subject=other), HERE)
    with pytest.raises(UnknownPersonError):
        house.identity.arrive(replace(ADA, kind=CredentialKind.SAML), HERE)


def test_those_who_manage_the_organisation_decide_inside_it(house: House) -> None:
    elsewhere = house.identity.create_organisation(house.administrator, "Elsewhere").id
    maja = house.join("maja")
    here = maja.organisation_id or elsewhere
    house.identity.grant(house.administrator, OrganisationThing(here), Grantee(own_id(maja)), Role.MANAGER)
    asked = apply(house, organisation_id=here)
    foreign = apply(house, replace(ADA, subject=f"{ISSUER} bob"), organisation_id=elsewhere)
    nowhere = apply(house, replace(ADA, subject=f"{ISSUER} cleo"))
    assert [one.id for one in house.identity.list_applications(maja)] == [asked]
    for one in (foreign, nowhere):
        with pytest.raises((NotAllowedError, NotFoundError)):
            house.identity.approve_application(maja, one, organisation_id=here)
        with pytest.raises((NotAllowedError, NotFoundError)):
            house.identity.refuse_application(maja, one, note="")
    with pytest.raises(NotFoundError):
        house.identity.approve_application(maja, asked, organisation_id=elsewhere)
    house.identity.approve_application(maja, asked)
    with pytest.raises(NotAllowedError):
        house.identity.list_applications(house.join("stranger"))
    assert len(house.identity.list_applications(house.administrator, state=ApplicationState.PENDING)) == 2


def test_a_local_account_is_applied_for_and_used_once_it_is_approved(house: House) -> None:
    asked = house.identity.apply_with_password(
        login="Nina", password=PASSWORD, display_name="Nina", email=None, reason=""
    )
    with pytest.raises(BadCredentialsError):
        house.identity.log_in("nina", PASSWORD)
    with pytest.raises(NameTakenError):
        house.identity.apply_with_password(login="nina", password=PASSWORD, display_name="N", email=None, reason="")
    house.identity.approve_application(
        house.administrator, asked.id, organisation_id=house.administrator.organisation_id
    )
    assert house.identity.log_in("nina", PASSWORD)[1].name == "Nina"
    with pytest.raises(NameTakenError):
        house.identity.apply_with_password(login="root", password=PASSWORD, display_name="R", email=None, reason="")


def test_who_is_disabled_does_not_come_in_from_outside(house: House) -> None:
    ada = let_in(house)
    house.identity.disable_identity(house.administrator, own_id(ada))
    with pytest.raises(BadCredentialsError):
        house.identity.arrive(ADA, HERE)


def test_a_second_login_is_linked_in_a_session_of_the_first(house: House) -> None:
    ana, ben = house.join("ana"), house.join("ben")
    made = house.identity.link(ana, ADA)
    assert house.identity.link(ana, ADA) == made
    assert house.identity.arrive(ADA, HERE)[1].identity_id == ana.identity_id
    with pytest.raises(CredentialTakenError):
        house.identity.link(ben, ADA)
    secret, _ = house.identity.create_token(ana, "t", verbs=["read", "write", "manage"])
    with pytest.raises(NotAllowedError):
        house.identity.link(house.identity.authenticate(secret), replace(ADA, subject=f"{ISSUER} x"))
    kinds = [one.kind for one in house.identity.list_credentials(ana)]
    assert kinds == [CredentialKind.PASSWORD, CredentialKind.OIDC]
    with pytest.raises(NotFoundError):
        house.identity.unlink(ben, made.id)
    house.identity.unlink(ana, made.id)
    with pytest.raises(UnknownPersonError):
        house.identity.arrive(ADA, HERE)
    with pytest.raises(LastCredentialError):
        house.identity.unlink(ana, house.identity.list_credentials(ana)[0].id)


def test_who_unlinked_what_he_applied_with_may_ask_again(house: House) -> None:
    ada = let_in(house)
    second = house.identity.link(ada, replace(ADA, subject=f"{ISSUER} other"))
    house.identity.unlink(ada, house.identity.list_credentials(ada)[0].id)
    with pytest.raises(UnknownPersonError):
        house.identity.arrive(ADA, HERE)
    apply(house)
    with pytest.raises(ApplicationPendingError):
        house.identity.arrive(ADA, HERE)
    assert [one.id for one in house.identity.list_credentials(ada)] == [second.id]


def test_who_lost_an_entitlement_is_out_whatever_comes_of_the_login(house: House) -> None:
    group = house.identity.create_group(house.administrator, "Beamline team")
    house.identity.add_claim_rule(house.administrator, group.id, entitlement=GROUP, issuer=ISSUER)
    ada = let_in(house)
    house.identity.publish_terms(house.administrator, "Be kind.")
    with pytest.raises(TermsNotAcceptedError):
        house.identity.arrive(replace(ADA, entitlements=frozenset()), HERE)
    assert own_id(ada) not in house.identity.get_group(house.administrator, group.id).members


def test_what_a_grant_names_opens_when_its_bearer_comes(house: House) -> None:
    archive = archive_of(house.personal(house.administrator))
    house.identity.grant(house.administrator, archive, Grantee(named=f"oidc {ISSUER} ada"), Role.READER)
    for demanded in (["second_factor", f"issuer {ISSUER}"], [f"issuer {ISSUER}"]):
        house.identity.grant(
            house.administrator, archive, Grantee(named=f"entitlement {GROUP}"), Role.CONTRIBUTOR, requires=demanded
        )
        ada = let_in(house) if "second_factor" in demanded else house.identity.arrive(ADA, HERE)[1]
        with house.db.begin() as tx:
            roles = {one.role for one in house.identity.find_roles(tx, ada, archive)}
        assert roles == {Role.READER} | (set() if "second_factor" in demanded else {Role.CONTRIBUTOR})


def test_claims_lead_into_groups_and_out_again(house: House) -> None:
    group = house.identity.create_group(house.administrator, "Beamline team")
    house.identity.add_claim_rule(house.administrator, group.id, entitlement="urn:x:example.org:group:*", issuer=ISSUER)
    ada = let_in(house)
    own = house.identity.list_own_groups
    assert group.id in own(ada)
    assert group.id in own(house.identity.arrive(replace(ADA, issuer="https://x.example"), HERE)[1])
    assert group.id not in own(house.identity.arrive(replace(ADA, entitlements=frozenset()), HERE)[1])
    house.identity.add_member(house.administrator, group.id, own_id(ada))
    assert group.id in own(house.identity.arrive(replace(ADA, entitlements=frozenset()), HERE)[1])
    added = [event for event in house.told() if event.type == "group.member_added"]
    house.identity.arrive(ADA, HERE)  # a place that somebody gave him stays, and there is nothing to tell
    assert [event for event in house.told() if event.type == "group.member_added"] == added
    foreign = replace(ADA, subject=f"{ISSUER} eve", issuer="https://evil.example.org")
    assert group.id not in own(let_in(house, foreign))


def test_a_rule_is_made_by_who_manages_the_organisation_of_the_group(house: House) -> None:
    group, ana = house.identity.create_group(house.administrator, "Team"), house.join("ana")
    with pytest.raises(NotFoundError):
        house.identity.add_claim_rule(ana, group.id, entitlement=GROUP, issuer=ISSUER)
    house.identity.add_member(house.administrator, group.id, own_id(ana))
    with pytest.raises(NotAllowedError):
        house.identity.add_claim_rule(house.log_in("ana"), group.id, entitlement=GROUP, issuer=ISSUER)
    for entitlement in ("", "*", "a*b", "a\nb"):
        with pytest.raises(BadInputError):
            house.identity.add_claim_rule(house.administrator, group.id, entitlement=entitlement, issuer=ISSUER)
    rule = house.identity.add_claim_rule(house.administrator, group.id, entitlement=GROUP, issuer=ISSUER)
    ada = let_in(house)
    assert house.identity.list_claim_rules(house.administrator, group.id) == [rule]
    house.identity.remove_claim_rule(house.administrator, group.id, rule.id)
    assert own_id(ada) not in house.identity.get_group(house.administrator, group.id).members


def test_nobody_comes_in_without_the_present_terms(house: House) -> None:
    ana = house.join("ana")
    with pytest.raises(NotAllowedError):
        house.identity.publish_terms(ana, "Be kind.")
    first = house.identity.publish_terms(house.administrator, "Be kind.")
    with pytest.raises(TermsNotAcceptedError) as told:
        house.identity.log_in("ana", PASSWORD)
    assert told.value.extra["version"] == first.version
    with pytest.raises(TermsNotAcceptedError):
        house.identity.log_in("ana", PASSWORD, accept_terms=first.version + 1)
    for _ in range(30):
        with pytest.raises(TermsNotAcceptedError):
            house.identity.log_in("ana", PASSWORD)
    house.identity.log_in("ana", PASSWORD, accept_terms=first.version)
    house.identity.log_in("ana", PASSWORD)
    with pytest.raises(TermsNotAcceptedError):
        apply(house)
    asked = apply(house, accept_terms=first.version, organisation_id=ana.organisation_id)
    house.identity.approve_application(house.administrator, asked)
    house.identity.arrive(ADA, HERE)
    second = house.identity.publish_terms(house.administrator, "Be kind, always.")
    with pytest.raises(TermsNotAcceptedError):
        house.identity.arrive(ADA, HERE)
    house.identity.arrive(ADA, HERE, accept_terms=second.version)
    assert house.identity.get_terms(first.version).text == "Be kind."
    accepted = [event.data["version"] for event in house.told() if event.type == "terms.accepted"]
    assert accepted == [1, 2]


class Echo:
    """A provider that confirms whoever comes with the code `good`."""

    name, label, kind = "hall", "Hall", CredentialKind.OIDC
    hands_back_state = True

    def __init__(self) -> None:
        self.arrival = ADA
        self.was_asked_anew = False

    def authorization_url(self, *, redirect_uri: str, state: str, nonce: str, verifier: str, anew: bool = False) -> str:
        assert nonce != verifier
        self.was_asked_anew = anew
        return f"{redirect_uri}#{state}"

    def redeem(self, code: str, *, redirect_uri: str, nonce: str, verifier: str) -> Arrival:
        if code != "good":
            raise LoginNotConfirmedError("no")
        return self.arrival


def test_a_login_ends_in_the_browser_that_began_it() -> None:
    clock = SetClock()
    federation = make_federation(clock, [Echo()])  # type: ignore[list-item]  # no device, no token
    begun = federation.begin_login("hall", redirect_uri="https://a/b", return_to="/x", browser="mine")
    state = begun.address.partition("#")[2]
    for wrong in (
        {"browser": "another"},
        {"provider": "other"},
        {"code": "bad"},
        {"state": state + "x"},
        {"issuer": "https://x"},
    ):
        with pytest.raises((LoginNotConfirmedError, BadSealError)):
            federation.finish_login(**{"provider": "hall", "state": state, "code": "good", "browser": "mine", **wrong})
    back = federation.finish_login(provider="hall", state=state, code="good", browser="mine")
    assert (back.arrival, back.return_to, back.link_to) == (ADA, "/x", None)
    with pytest.raises(LoginNotConfirmedError, match="used already"):
        federation.finish_login(provider="hall", state=state, code="good", browser="mine")
    clock.move(timedelta(minutes=16))
    with pytest.raises(BadSealError):
        federation.finish_login(provider="hall", state=state, code="good", browser="mine")
    with pytest.raises(NoSuchProviderError):
        federation.begin_login("nowhere", redirect_uri="https://a/b", return_to="/", browser="mine")


def test_a_ticket_carries_who_somebody_is_for_a_while() -> None:
    clock = SetClock()
    federation = make_federation(clock, [])
    ticket = federation.seal_arrival(ADA)
    assert replace(federation.open_arrival(ticket), ticket=None) == ADA
    for wrong in ("", ticket + "x"):
        with pytest.raises(BadSealError):
            federation.open_arrival(wrong)
    with pytest.raises(BadSealError):
        federation.poll_device(ticket)
    clock.move(timedelta(minutes=31))
    with pytest.raises(BadSealError):
        federation.open_arrival(ticket)


def by_ticket(house: House, arrival: Arrival = ADA) -> str:
    return house.identity.seal_arrival(arrival)


def test_a_ticket_opens_one_session(house: House) -> None:
    let_in(house)
    ticket = by_ticket(house)
    opened = house.identity.open_arrival(ticket)
    house.identity.arrive(opened, HERE)
    for again in (opened, house.identity.open_arrival(ticket)):
        with pytest.raises(TicketUsedError):
            house.identity.arrive(again, HERE)
    house.identity.arrive(ADA, HERE)  # who logs in anew is not held up


def test_a_ticket_that_was_used_puts_nobody_into_a_group_again(house: House) -> None:
    ada = let_in(house)
    group = house.identity.create_group(house.administrator, "Beamline")
    house.identity.add_claim_rule(house.administrator, group.id, entitlement=GROUP, issuer=ISSUER)
    opened = house.identity.open_arrival(by_ticket(house))
    house.identity.arrive(opened, HERE)
    house.identity.arrive(replace(ADA, entitlements=frozenset()), HERE)
    with pytest.raises(TicketUsedError):
        house.identity.arrive(opened, HERE)
    assert house.identity.list_own_groups(ada) == []


def test_a_ticket_goes_on_until_something_was_done_by_it(house: House) -> None:
    let_in(house)
    version = house.identity.publish_terms(house.administrator, "Be kind.").version
    ticket = by_ticket(house)
    opened = house.identity.open_arrival(ticket)
    with pytest.raises(TermsNotAcceptedError):
        house.identity.arrive(opened, HERE)
    assert house.identity.seal_arrival(opened) == ticket  # no second one, which would last longer
    house.identity.arrive(opened, HERE, accept_terms=version)
    with pytest.raises(TicketUsedError):
        house.identity.arrive(opened, HERE, accept_terms=version)


def test_a_ticket_makes_one_application_or_one_link_or_one_person(house: House) -> None:
    asking = house.identity.open_arrival(by_ticket(house))
    apply(house, asking)
    with pytest.raises(TicketUsedError):
        apply(house, replace(asking, display_name="Somebody else"))
    nina = house.join("nina")
    linking = house.identity.open_arrival(by_ticket(house, replace(ADA, subject=f"{ISSUER} nina")))
    made = house.identity.link(nina, linking)
    house.identity.unlink(nina, made.id)
    with pytest.raises(TicketUsedError):
        house.identity.link(nina, linking)
    joining = house.identity.open_arrival(by_ticket(house, replace(ADA, subject=f"{ISSUER} joan")))
    joiner = house.identity.joins_from_outside(joining)
    with house.db.begin() as tx:
        join(house, tx, joiner)
    with house.db.begin() as tx, pytest.raises(TicketUsedError):
        join(house, tx, joiner)


def join(house: House, tx: Connection, joiner: Joiner) -> None:
    organisation = house.administrator.organisation_id
    assert organisation is not None
    house.identity.join_in(
        tx,
        house.administrator,
        joiner,
        organisation_id=organisation,
        address="joan@example.org",
        quota_bytes=None,
        client=HERE,
        accept_terms=None,
    )


def test_of_two_who_redeem_a_ticket_at_once_one_comes_in(house: House) -> None:
    let_in(house)
    opened = house.identity.open_arrival(by_ticket(house))

    def come(_: int) -> bool:
        try:
            house.identity.arrive(opened, HERE)
        except TicketUsedError:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(come, range(4))) == 1


ELSEWHERE = [
    "//evil.example",
    "/\\evil.example",
    "https://evil.example",
    "",
    "x",
    "/a\nb",
    "/\t/evil",
    "/a\\b",
    "/" * 9999,
]


@pytest.mark.parametrize("path", ELSEWHERE)
def test_one_returns_to_a_path_of_ours_only(path: str) -> None:
    assert check_return(path) == "/"
    assert check_return("/archives/x?y=1") == "/archives/x?y=1"
