"""What can go wrong when somebody says who he is or asks for a right."""

from __future__ import annotations

from perdure.kernel.errors import BadInputError, ConflictError, NotAllowedError, TryAgainError


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


class LastOwnerError(ConflictError):
    code = "last_owner"
    title = "An account keeps at least one lasting owner"
    next_step = "Make somebody else an owner without an end date first."


class LastAdministratorError(ConflictError):
    code = "last_administrator"
    title = "The instance keeps at least one active administrator"
    next_step = "Make somebody else an administrator first."
