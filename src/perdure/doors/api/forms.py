"""The bodies of requests. A field that is left out is left as it is, or has the default that is named."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from perdure.doors.api.fields import (
    Count,
    Day,
    Digests,
    Form,
    Id,
    Line,
    Mode,
    Moment,
    Nanoseconds,
    PathForm,
    Secret,
    Text,
    read_path,
)
from perdure.kernel.paths import check_path

RoleName = Literal["owner", "manager", "contributor", "reader", "curator"]
AccessName = Literal["private", "embargoed", "public"]
Subjects = Annotated[list[Line], Field(max_length=1000)]


TermsVersion = Annotated[int, Field(ge=1, le=1 << 30, description="The version of the terms that one accepts.")]
Ticket = Annotated[str, Field(min_length=1, max_length=100_000)]
Reason = Annotated[str, Field(max_length=2000)]


class LoginForm(Form):
    """`code` is that of one's device, or a recovery code, where one has a second factor.

    `provider` is the directory (a provider of the kind `ldap`) whose name and password these are; without it they are
    those of a local account.
    """

    login: Line
    password: Secret
    code: Line | None = None
    accept_terms: TermsVersion | None = None
    provider: Line | None = None


Answer = Annotated[
    dict[str, Any],  # Any: JSON, as Web Authentication has it
    Field(max_length=20, description="What the browser answered, with bytes as base64url."),
]


class PasskeyLoginForm(Form):
    """`ticket` is that of the challenge."""

    ticket: Ticket
    answer: Answer
    accept_terms: TermsVersion | None = None


class PasskeyProofForm(Form):
    """`ticket` is that of the challenge for a login."""

    ticket: Ticket
    answer: Answer


class NewPasskeyForm(Form):
    """`ticket` is that of the challenge."""

    name: Line
    ticket: Ticket
    answer: Answer


class PasskeyPatch(Form):
    name: Line


class CodeForm(Form):
    code: Line


class ProofForm(Form):
    """Exactly one of them: one's password, or a code of one's device (or a recovery code).

    With `provider`, a directory, it is the password that belongs to `login` there.
    """

    password: Secret | None = None
    code: Line | None = None
    provider: Line | None = None
    login: Line | None = None

    @model_validator(mode="after")
    def _check_login(self) -> ProofForm:
        if (self.provider is None) != (self.login is None):
            raise ValueError("a directory needs a login name, and a login name its directory")
        return self


class DeviceForm(Form):
    provider: Line


class ClaimRuleForm(Form):
    """With dates the rule holds between them only."""

    issuer: Annotated[str, Field(min_length=1, max_length=1000)]
    entitlement: Annotated[str, Field(min_length=1, max_length=1000)]
    starts_at: Moment | None = None
    ends_at: Moment | None = None


class HopForm(Form):
    provider: Line
    accept_terms: TermsVersion | None = None


class TicketForm(Form):
    """`ticket` is what an earlier step of the login gave."""

    ticket: Ticket
    accept_terms: TermsVersion | None = None


class TokenLoginForm(Form):
    """`subject_token` is a JWT that the provider made for us."""

    provider: Line
    subject_token: Ticket
    accept_terms: TermsVersion | None = None


class TermsForm(Form):
    text: Annotated[str, Field(min_length=1, max_length=200_000)]


class ApplicationForm(Form):
    ticket: Ticket
    reason: Reason = ""
    display_name: Line | None = None
    organisation_id: Id | None = None
    accept_terms: TermsVersion | None = None


class LocalApplicationForm(Form):
    login: Line
    password: Secret
    display_name: Line
    email: Line | None = None
    reason: Reason = ""
    organisation_id: Id | None = None
    accept_terms: TermsVersion | None = None


class ApprovalForm(Form):
    """`organisation_id` is needed where the application names none."""

    organisation_id: Id | None = None
    quota_bytes: Count | None = None


MailKey = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9_-]+$")]


class ForgottenForm(Form):
    """`name` is a login name, or an address that its owner has confirmed."""

    name: Annotated[Line, Field(min_length=1)]


class ResetForm(Form):
    """`key` is what the mail has; `revoke_tokens` ends all of one's tokens too, as after a theft."""

    key: MailKey
    password: Secret
    revoke_tokens: bool = False


class AddressForm(Form):
    email: Line


class KeyForm(Form):
    """`key` is what the mail has, at the end of its address."""

    key: MailKey


class InvitationForm(Form):
    """To be an identity of the organisation, or, with a role, to that on one archive, account or organisation."""

    email: Line
    organisation_id: Id | None = None
    archive_id: Id | None = None
    account_id: Id | None = None
    role: RoleName | None = None
    role_until: Moment | None = None
    requires: Annotated[list[Line], Field(max_length=10)] = Field(default_factory=list)
    note: Annotated[Text, Field(max_length=500)] = ""


class JoinForm(Form):
    """By a login name and a password of one's choice, or by the `ticket` of a login that is not known here."""

    key: MailKey
    login: Line | None = None
    password: Secret | None = None
    display_name: Line | None = None
    ticket: Ticket | None = None
    accept_terms: TermsVersion | None = None


class RefusalForm(Form):
    note: Reason = ""


class PasswordForm(Form):
    """`revoke_tokens` ends all of one's tokens too, as after a theft."""

    old_password: Secret
    new_password: Secret
    revoke_tokens: bool = False


class TokenForm(Form):
    """`verbs` none means read and write; `archives` none means all; without `expires_at` the longest allowed.

    A token that is there `in_place_of_session` ends where the session would that it is made in: when the provider where
    that began tells that its owner logged out.
    """

    name: Line
    verbs: Annotated[list[Literal["read", "write", "manage", "admin"]], Field(min_length=1, max_length=4)] | None = None
    archives: Annotated[list[Id], Field(min_length=1, max_length=1000)] | None = None
    expires_at: Moment | None = None
    in_place_of_session: bool = False


ServiceVerbs = Annotated[list[Literal["read", "write", "manage"]], Field(min_length=1, max_length=3)]
ServiceArchives = Annotated[list[Id], Field(min_length=1, max_length=1000)]
Purpose = Annotated[Text, Field(min_length=1, max_length=2000)]
Addresses = Annotated[list[Line], Field(max_length=100)]


class ServiceForm(Form):
    """`responsible_id` none means oneself; `archives` none means all; `addresses` are networks such as 10.1.0.0/16."""

    name: Line
    purpose: Purpose
    verbs: ServiceVerbs = ["read", "write"]
    archives: ServiceArchives | None = None
    addresses: Addresses = Field(default_factory=list)
    responsible_id: Id | None = None
    organisation_id: Id | None = None
    quota_bytes: Count | None = None


class ServicePatch(Form):
    """A null `archives` means all; an empty list of addresses lets it come from anywhere."""

    purpose: Purpose | None = None
    verbs: ServiceVerbs | None = None
    archives: ServiceArchives | None = None
    addresses: Addresses | None = None
    responsible_id: Id | None = None
    is_active: bool | None = None


class ServiceTokenForm(Form):
    """`verbs` and `archives` none mean all that the service account may do; without `expires_at` it lives 90 days."""

    name: Line
    verbs: ServiceVerbs | None = None
    archives: ServiceArchives | None = None
    expires_at: Moment | None = None


class RotationForm(Form):
    """`grace_seconds` is for how long the old token goes on; without `expires_at` the new one lives as long as it."""

    grace_seconds: Annotated[int, Field(ge=0, le=90 * 86_400)] | None = None
    expires_at: Moment | None = None


class OrganisationForm(Form):
    name: Line
    ror: Line | None = None


class OrganisationPatch(Form):
    """A null quota means no limit."""

    quota_bytes: Count | None


class QuotaRequestForm(Form):
    asked_bytes: Count
    reason: Annotated[Text, Field(max_length=2000)] = ""


class QuotaApprovalForm(Form):
    """Without a number, what was asked for is given."""

    quota_bytes: Count | None = None
    note: Annotated[Text, Field(max_length=2000)] = ""


class QuotaRefusalForm(Form):
    note: Annotated[Text, Field(max_length=2000)]


class IdentityForm(Form):
    login: Line
    password: Secret | None = None
    display_name: Line
    email: Line | None = None
    orcid: Line | None = None
    organisation_id: Id | None = None
    is_administrator: bool = False


class IdentityPatch(Form):
    display_name: Line | None = None
    is_active: bool | None = None
    is_administrator: bool | None = None


class GroupForm(Form):
    name: Line


class MemberForm(Form):
    """With dates somebody is in the group between them only."""

    is_manager: bool = False
    starts_at: Moment | None = None
    ends_at: Moment | None = None


class AccountForm(Form):
    kind: Literal["group", "beamline"]
    name: Line
    owner_id: Id
    organisation_id: Id | None = None
    quota_bytes: Count | None = None
    allowed_profiles: Annotated[list[Line], Field(max_length=100)] | None = None
    quota_files: Count | None = None


class AccountPatch(Form):
    """A null quota or list of profiles means no limit."""

    name: Line = ""
    quota_bytes: Count | None = None
    allowed_profiles: Annotated[list[Line], Field(max_length=100)] | None = None
    quota_files: Count | None = None


class CredentialForm(Form):
    """Somebody by what he is known as outside, whether he has been here or not."""

    kind: Literal["oidc", "saml", "x509", "orcid", "ldap", "entitlement"]
    subject: Annotated[str, Field(min_length=1, max_length=1000)]


class LinkForm(PathForm):
    """`path` is the folder or file that the link is for, the whole archive without it."""

    kind: Literal["read", "drop", "metadata", "review"]
    name: Line
    expires_at: Moment | None = None
    password: Secret | None = None
    download_limit: Annotated[int, Field(ge=1, le=1_000_000_000)] | None = None
    only_when_closed: bool = False
    pinned: bool = Field(
        default=False, description="Show record and metadata of a closed archive as they are now, whatever comes later."
    )


class OwnMergeForm(Form):
    """`session` is the secret of a session of the other identity, which was opened just now and ends with it.

    With `dry_run` nothing is done: the answer tells what would be.
    """

    session: Annotated[Secret, Field(max_length=512)]
    dry_run: bool = False


class MergeForm(Form):
    """`identity_id` is the identity that ends. With `dry_run` nothing is done: the answer tells what would be."""

    identity_id: Id
    reason: Reason = ""
    dry_run: bool = False


class OwnErasureForm(Form):
    """With `dry_run` nothing is done: what stands in the way is told as an error."""

    dry_run: bool = False


class ErasureForm(OwnErasureForm):
    """Why, which stays with the pseudonym."""

    reason: Reason = ""


class _ToForm(Form):
    login: Line | None = None
    identity_id: Id | None = None

    @model_validator(mode="after")
    def _check_one(self) -> _ToForm:
        if (self.login is None) == (self.identity_id is None):
            raise ValueError("name exactly one of login and identity_id")
        return self


class OfferForm(_ToForm):
    """To whom, by `login` or `identity_id`. With `keeps_account` the archive stays in its account, and only the owner's
    role moves."""

    keeps_account: bool = False


class TransferForm(OfferForm):
    """The archive moves into the personal account of its new owner unless another is named or it stays."""

    account_id: Id | None = None


class AccountTransferForm(_ToForm):
    """To whom, by `login` or `identity_id`."""


class AcceptForm(Form):
    """Into which account; by default one's personal one."""

    account_id: Id | None = None


class PassOnForm(Form):
    """To whom roles may be given by a role: the people and groups of one organisation, one group and its members, or
    nobody. `id` is that of the organisation or group."""

    to: Literal["nobody", "organisation", "group"]
    id: Id | None = None

    @model_validator(mode="after")
    def _check_id(self) -> PassOnForm:
        if (self.to == "nobody") != (self.id is None):
            raise ValueError("an organisation or a group has an id, nobody has none")
        return self


class GrantForm(Form):
    """To whom: exactly one of `login`, `identity_id`, `group_id` and `credential`.

    `requires` is what the login must prove for the role to count: a way (`x509`, `oidc`, …), `second_factor`, or
    `issuer` and the address of an institution.
    """

    role: RoleName
    login: Line | None = None
    identity_id: Id | None = None
    group_id: Id | None = None
    credential: CredentialForm | None = None
    expires_at: Moment | None = None
    requires: Annotated[list[Line], Field(max_length=10)] = Field(default_factory=list)
    pass_on: PassOnForm | None = None


Days = Annotated[int, Field(ge=1, le=36_500)]


class ProfileForm(Form):
    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,39}$")]
    label: Line
    lifetime_default_days: Days
    lifetime_max_days: Days
    archive_max_bytes: Count | None = None
    archive_max_files: Count | None = None
    total_max_bytes: Count | None = None
    copies: Annotated[int, Field(ge=1, le=10)]
    stores: Annotated[list[Line], Field(max_length=100)] = Field(default_factory=list)
    locations: Annotated[list[Line], Field(max_length=100)] = Field(default_factory=list)
    digests: Annotated[list[Line], Field(min_length=1, max_length=10)] = Field(default_factory=lambda: ["sha512"])
    verify_interval_days: Days = 365
    mandatory_roles: Annotated[list[RoleName], Field(max_length=5)] = ["owner"]
    access_default: AccessName = "private"
    required_at_close: Annotated[list[Line], Field(max_length=10)] = Field(
        default_factory=lambda: ["title", "creators", "publisher", "licence"]
    )
    withdraw_approvals: Annotated[int, Field(ge=1, le=10)] = 1
    children_block_withdrawal: bool = True


class CreatorForm(Form):
    name: Line
    orcid: Line | None = None
    affiliation: Line | None = None
    affiliation_ror: Line | None = None


class DescriptionForm(Form):
    """What a citable record says; whatever the profile wants of it is there at closing at the latest."""

    title: Line = ""
    description: Text = ""
    creators: Annotated[list[CreatorForm], Field(max_length=10_000)] = Field(default_factory=list)
    publisher: Line = ""
    licence: Line = ""
    subjects: Subjects = Field(default_factory=list)
    tags: Subjects = Field(default_factory=list)


class DescriptionPatch(Form):
    """A merge patch (RFC 7396) of the description: null empties a field, a list replaces the whole list."""

    title: Line | None = None
    description: Text | None = None
    creators: Annotated[list[CreatorForm], Field(max_length=10_000)] | None = None
    publisher: Line | None = None
    licence: Line | None = None
    subjects: Subjects | None = None
    tags: Subjects | None = None


class OpenForm(DescriptionForm):
    account_id: Id | None = Field(default=None, description="The account that owns the archive; by default one's own.")
    profile: Line | None = None
    access: AccessName | None = None
    embargo_until: Day | None = None
    keep_until: Day | None = None


class CloseForm(Form):
    discard_uploads: bool = Field(
        default=False, description="Give up uploads that are not finished, instead of refusing."
    )


class ReasonForm(Form):
    reason: Annotated[Text, Field(min_length=1)]


class ProfileChoiceForm(Form):
    profile: Line


class LifetimeForm(Form):
    keep_until: Day


class AccessForm(Form):
    access: AccessName
    embargo_until: Day | None = None


class PlanItemForm(PathForm):
    kind: Literal["file", "directory", "symlink"] = "file"
    size: Count = 0
    mtime_ns: Nanoseconds | None = None
    mode: Mode | None = None
    target: Annotated[str, Field(max_length=20_000)] | None = None
    target_b64: Annotated[str, Field(max_length=6_000)] | None = None
    digests: Digests = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check_target(self) -> PlanItemForm:
        self.target_bytes()
        return self

    def target_bytes(self) -> bytes | None:
        if self.target is None and self.target_b64 is None:
            return None
        return read_path(self.target, self.target_b64)


class PlanForm(Form):
    items: Annotated[list[PlanItemForm], Field(max_length=20_000)]


class PathsForm(Form):
    """Each path as a text, or as `{"path_b64": …}` where its bytes are not UTF-8."""

    paths: Annotated[list[Annotated[str, Field(max_length=20_000)] | PathForm], Field(min_length=1, max_length=10_000)]

    def path_bytes(self) -> list[bytes]:
        return [check_path(one.encode() if isinstance(one, str) else one.path_bytes()) for one in self.paths]


class IngestForm(Form):
    """A folder on a machine that the server reads; `exclude` are patterns of names, as in a shell."""

    folder: Annotated[Text, Field(min_length=1)]
    into: Annotated[str, Field(max_length=4096)] = ""
    exclude: Annotated[list[Line], Field(max_length=1000)] = Field(default_factory=list)
