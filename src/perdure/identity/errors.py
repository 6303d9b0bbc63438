"""What can go wrong when somebody says who he is or asks for a right."""

from __future__ import annotations

from perdure.kernel.errors import BadInputError, ConflictError, NotAllowedError, NotFoundError, TryAgainError


class NotLoggedInError(NotAllowedError):
    code = "not_logged_in"
    status = 401
    title = "This needs a login"
    next_step = "Log in with `perdure login`, or send a token as `Authorization: Bearer …`."


class BadCredentialsError(NotAllowedError):
    """Deliberately the same for an unknown name, a wrong password, an unknown token and a disabled identity."""

    code = "bad_credentials"
    status = 401
    title = "These credentials are not valid"
    next_step = "Check the login name and the password, or the token; an administrator can set a new password."


class SecondFactorNeededError(NotAllowedError):
    code = "second_factor_needed"
    status = 401
    title = "This login needs a second factor"
    next_step = "Send the code that your device shows, or one of your recovery codes, as `code` beside the password."


class BadCodeError(NotAllowedError):
    code = "bad_code"
    status = 401
    title = "This code is not valid"
    next_step = "Wait for the next code of your device, or use a recovery code."


class FreshLoginRequiredError(NotAllowedError):
    """`within_seconds` is how long a proof counts."""

    code = "fresh_login_required"
    title = "Show once more that it is you"
    next_step = (
        "Send your password or a code of your device to `POST /me/proof`, or log in anew, and then do this again; "
        "the page `/account` and the commands ask for it."
    )


class SecondFactorExistsError(ConflictError):
    code = "second_factor_exists"
    title = "A second factor is in force already"
    next_step = "Remove it first, with a code of the device that you have."


class TermsNotAcceptedError(NotAllowedError):
    """`version` is the one to accept, `terms` where it is to be read."""

    code = "terms_not_accepted"
    title = "The terms of use are to be accepted first"
    next_step = "Read them, then send the login again with `accept_terms` and their version."


class UnknownPersonError(NotAllowedError):
    """`ticket` carries what was shown, sealed, for an application; nothing of it is kept here."""

    code = "unknown_person"
    title = "You are not known here yet"
    next_step = "Apply to be let in with the ticket, or log in as you did before and link this login to it."


class ApplicationPendingError(NotAllowedError):
    code = "application_pending"
    title = "Your application waits to be decided"
    next_step = "Those who manage your organisation here decide it; ask them if it takes long."


class ApplicationRefusedError(NotAllowedError):
    code = "application_refused"
    title = "Your application was refused"
    next_step = "Ask those who manage the organisation; a new application can be made some months later."


class ApplicationDecidedError(ConflictError):
    code = "application_decided"
    title = "This application is decided already"
    next_step = "Read who decided it, and how, in the list of applications."


class QuotaRequestPendingError(ConflictError):
    code = "quota_request_pending"
    title = "A request for this account waits already"
    next_step = "Wait until it is decided; those who manage the organisation decide it."


class QuotaRequestDecidedError(ConflictError):
    code = "quota_request_decided"
    title = "This request is decided already"
    next_step = "Read who decided it, and how, in the list of requests."


class PasskeyRefusedError(NotAllowedError):
    """Deliberately the same for a key that nobody has, a wrong signature and a disabled identity."""

    code = "passkey_refused"
    status = 401
    title = "This passkey does not let you in"
    next_step = "Try again, or log in another way and see which passkeys you have there."


class PasskeysUnavailableError(ConflictError):
    code = "passkeys_unavailable"
    title = "There are no passkeys at this address"
    next_step = "Ask the operator for an address with a name and https; browsers allow passkeys only there."


class PasskeyLimitError(ConflictError):
    code = "passkey_limit"
    title = "You have as many passkeys as one can have"
    next_step = "Remove one that you do not use any more."


class CredentialTakenError(ConflictError):
    code = "credential_taken"
    title = "This login belongs to somebody already"
    next_step = "Log in by it to see whose it is; unlink it there before you link it here."


class LastCredentialError(ConflictError):
    code = "last_credential"
    title = "One way to log in has to stay"
    next_step = "Link another login first."


class LoginNotConfirmedError(NotAllowedError):
    """Who was asked says no, or what he says cannot be believed."""

    code = "login_not_confirmed"
    status = 401
    title = "The login was not confirmed"
    next_step = "Begin the login again; if that does not help, tell the operator what the detail says."


class ProviderUnavailableError(TryAgainError):
    code = "provider_unavailable"
    title = "The institution that knows you does not answer"
    next_step = "Try again in a minute, or log in another way; sessions and tokens that exist keep working."


class NoSuchProviderError(NotFoundError):
    code = "no_such_provider"
    title = "There is no such way to log in here"
    next_step = "Choose one of those that `GET /login/providers` lists."


class GridTokenRefusedError(NotAllowedError):
    """Told of tokens only that come from outside: what is wrong with one is no secret to who made it."""

    code = "grid_token_refused"
    status = 401
    title = "This token of the grid is not taken"
    next_step = "Get a new one from its issuer, for this service and with a scope such as storage.read:/<archive>."


class GridSubjectUnknownError(NotAllowedError):
    code = "grid_subject_unknown"
    title = "Nobody here is known by this token"
    next_step = "Link the login of its issuer to you, or let the operator map its subject, or its issuer, to somebody."


class BadSealError(BadInputError):
    code = "bad_seal"
    title = "This did not come from here, or is spoilt"
    next_step = "Begin again from the start."


class CertificateRevokedError(NotAllowedError):
    code = "certificate_revoked"
    status = 401
    title = "This certificate was revoked"
    next_step = "Ask its authority for a new one; meanwhile log in another way."


class LogoutRefusedError(BadInputError):
    """What a provider is told whose word that somebody logged out is not believed."""

    code = "logout_refused"
    status = 400
    title = "This logout token cannot be believed"
    next_step = "Look at the provider's log and at what it has registered of us."


class TicketUsedError(ConflictError):
    code = "ticket_used"
    title = "This login was gone on with already"
    next_step = "Log in again."


class TokenExpiredError(NotAllowedError):
    code = "token_expired"
    status = 401
    title = "This token or session has ended"
    next_step = "Log in again, or make a new token with `perdure token create`."


class TokenTooNarrowError(NotAllowedError):
    """The person may do it; what he sent with the request says that it is not to be used for that."""

    code = "token_too_narrow"
    title = "This token is not meant for that"
    next_step = (
        "Log in anew with `perdure login`, or with a login make a token that has the verb which is named: "
        "`perdure token create NAME --verb admin`."
    )


class ServiceOrphanedError(NotAllowedError):
    """Told to who bears a token of the service account only."""

    code = "service_orphaned"
    title = "Nobody is responsible for this service account"
    next_step = "Let those who manage its organisation hand it over to somebody: `perdure service hand-over`."


class AddressNotAllowedError(NotAllowedError):
    """Told to who bears the token only; the addresses that are allowed are not told."""

    code = "address_not_allowed"
    title = "This token may not be used from here"
    next_step = "Use it from the machine that it is for, or let its addresses be changed: `perdure service change`."


class ServiceIdleError(ConflictError):
    code = "service_idle"
    title = "The service account is not active"
    next_step = "Enable it, or hand it over to somebody who is active; then make the token."


class TokenEndedError(ConflictError):
    code = "token_ended"
    title = "This token has ended"
    next_step = "Make a new one with `perdure service token`."


class TokenRotatedError(ConflictError):
    """`replaced_by` is the token that takes over."""

    code = "token_rotated"
    title = "A new token has taken over from this one"
    next_step = "Rotate the new one, or revoke it first if its secret was lost."


class ResponsibleError(BadInputError):
    code = "cannot_be_responsible"
    title = "This person cannot be responsible for the service account"
    next_step = "Name an active person of its organisation, who has accepted the terms of use."


class LoginThrottledError(TryAgainError):
    """`retry_after` holds the seconds to wait."""

    code = "login_throttled"
    status = 429
    title = "Too many failed logins"
    next_step = "Wait the number of seconds in retry_after; sessions and tokens that exist keep working."


class LoginBusyError(TryAgainError):
    code = "login_busy"
    title = "Too many people log in at this moment"


class NameTakenError(ConflictError):
    code = "name_taken"
    title = "This name is in use"
    next_step = "Choose another name."


class WeakPasswordError(BadInputError):
    code = "weak_password"
    title = "This password is too easy to guess"
    next_step = "Take at least 12 characters; four words that do not belong together are easy to keep in mind."


class IdentityEndedError(ConflictError):
    """`merged_into` is the identity that it became, where it was merged."""

    code = "identity_ended"
    title = "This identity is there in history only"
    next_step = "Use the identity that it was merged into, where one is named."


class MergeRefusedError(ConflictError):
    code = "merge_refused"
    title = "These two identities cannot be merged as they are"
    next_step = "Change what the detail names, then merge them."


class ErasureRefusedError(ConflictError):
    """`archives`, `accounts` and `services` name what needs another owner first, by id and name."""

    code = "erasure_refused"
    title = "Somebody else has to answer for this first"
    next_step = (
        "Hand over what is named (`perdure archive transfer`, `perdure account transfer`, `perdure service`), or "
        "withdraw or discard it; then erase."
    )


class PassingOnError(NotAllowedError):
    """`until` is the latest end that what is given may have, where that is what is wrong."""

    code = "passing_on_limited"
    title = "Your role does not let you pass this on"
    next_step = "Give it within the limits that the detail names, or ask an owner to give it."


class LastOwnerError(ConflictError):
    code = "last_owner"
    title = "An account keeps at least one lasting owner"
    next_step = "Make somebody else an owner without an end date first."


class LastAdministratorError(ConflictError):
    code = "last_administrator"
    title = "The instance keeps at least one active administrator"
    next_step = "Make somebody else an administrator first."


class MailNotConfiguredError(ConflictError):
    code = "mail_not_configured"
    title = "This installation sends no mail"
    next_step = "Ask the operator to set smtp_host and mail_from; without mail, those who manage the organisation help."


class MailUnavailableError(TryAgainError):
    """No address and no content: it stands in logs and with the job."""

    code = "mail_unavailable"
    title = "The mail server does not take mail at this moment"
    next_step = "`perdure doctor` says what is wrong with it; mail that waits is sent by itself."


class MailRefusedError(BadInputError):
    """No address and no content, likewise."""

    code = "mail_refused"
    title = "The mail server refuses this mail"
    next_step = "Check the address, and mail_from of the settings."


class MailKeyEndedError(NotFoundError):
    """One answer for what was used, has ended, was replaced, or never was."""

    code = "mail_key_ended"
    title = "This link was used, has ended, or never was"
    next_step = "Ask for a new mail; only the newest one is good, and only once."


class NoAddressError(NotFoundError):
    code = "no_address"
    title = "You have no confirmed e-mail address here"
    next_step = "Set one: `perdure address set ADDRESS`."
