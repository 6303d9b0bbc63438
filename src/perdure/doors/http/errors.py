"""Errors that only HTTP knows: the request did not reach a use case."""

from __future__ import annotations

from perdure.kernel.errors import BadInputError, ConflictError, NotAllowedError, NotFoundError, TryAgainError


class MalformedRequestError(BadInputError):
    code = "malformed_request"
    status = 400
    title = "The request is not well formed"
    next_step = "Correct what is named and send the request again."


class BadCursorError(BadInputError):
    code = "bad_cursor"
    title = "This cursor is not from this list"
    next_step = "Start the list again without a cursor; take cursors only from next_cursor of the same list."


class NoSuchAddressError(NotFoundError):
    code = "no_such_address"
    title = "There is nothing at this address"
    next_step = "Compare the address with the reference of the API at /api/v1/openapi.json."


class MethodNotOfferedError(BadInputError):
    code = "method_not_offered"
    status = 405
    title = "This address does not offer that method"
    next_step = "Use one of the methods in the Allow header."


class ForeignPageError(NotAllowedError):
    code = "foreign_page"
    title = "A page of another site may not do this"
    next_step = "Do it from here, or from a program that sends a token as `Authorization: Bearer …`."


class LengthRequiredError(BadInputError):
    code = "length_required"
    status = 411
    title = "The length of the content must be said beforehand"
    next_step = "Send a Content-Length (Upload-Length for a resumable upload), so that the room can be reserved."


class BodyTooLargeError(BadInputError):
    code = "body_too_large"
    status = 413
    title = "The body is larger than this address takes"
    next_step = "Split the request; the limits are in the answer of GET /api/v1."


class UnsupportedContentError(BadInputError):
    code = "unsupported_content_type"
    status = 415
    title = "This address does not take that content type"
    next_step = "Send one of the content types that are named."


class RangeNotSatisfiableError(BadInputError):
    code = "range_not_satisfiable"
    status = 416
    title = "The range lies outside the content"
    next_step = "Ask for a range within the length that Content-Range names."


class ConditionFailedError(ConflictError):
    code = "condition_failed"
    status = 412
    title = "The thing has changed since you read it, or exists already"
    next_step = "Read it again and decide anew."


class ChecksumMismatchError(ConflictError):
    """Status 460 is what the tus checksum extension asks for."""

    code = "checksum_mismatch"
    status = 460
    title = "The bytes that arrived do not have the stated checksum"
    next_step = "Send the same chunk again from the offset that HEAD tells."


class TusVersionError(ConflictError):
    code = "tus_version"
    status = 412
    title = "This version of the tus protocol is not spoken here"
    next_step = "Send 'Tus-Resumable: 1.0.0', or leave the header out."


class RateExceededError(TryAgainError):
    """`retry_after` holds the seconds to wait, `limit` which of the limits it is, `per_minute` what it allows."""

    code = "rate_exceeded"
    status = 429
    title = "Too many requests in a short time"
    next_step = "Wait the number of seconds in retry_after, then send the request again; nothing of it was done."


class AnswerSealedError(ConflictError):
    code = "answer_sealed"
    title = "This was done before, for another session or token"
    next_step = "Do not send it again: look for what was made in the list that it belongs to."


class LoginEndedElsewhereError(NotAllowedError):
    code = "login_ended_elsewhere"
    status = 401
    title = "The login ended before it was done"
    next_step = "Begin it again, or log in another way."
