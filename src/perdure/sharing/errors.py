"""What can go wrong with links and invitations.

Unknown, ended, revoked and used up are one answer: it tells a guesser nothing.
"""

from __future__ import annotations

from perdure.kernel.errors import BadInputError, ConflictError, NotAllowedError, NotFoundError, TryAgainError


class LinkNotFoundError(NotFoundError):
    code = "link_not_found"
    title = "There is no such link, or it has ended"
    next_step = "Ask who gave it to you for a new one."


class LinkPasswordError(NotAllowedError):
    code = "link_password"
    status = 401
    title = "This link needs its password"
    next_step = "Send it as the password of HTTP Basic (`curl -u :PASSWORD …`), or type it into the page of the link."


class LinkNotYetError(NotAllowedError):
    code = "link_not_yet"
    title = "This link opens when the archive is closed"
    next_step = "Try again later, or ask who gave it to you when that will be."


class LinkAddressNeededError(NotAllowedError):
    """A link that counts or asks does so at its own address only."""

    code = "link_address_needed"
    title = "This link works at its own address only"
    next_step = (
        "Links with a password or a limit of downloads, and file drops, are used at the address that begins with /s/."
    )


class LinkTooWideError(NotAllowedError):
    code = "link_too_wide"
    title = "A link gives no more than its maker has himself"
    next_step = "Ask for a role that lets you do this, or make another kind of link."


class LinkKindError(BadInputError):
    code = "link_kind"
    title = "This kind of link cannot have that"
    next_step = "Leave it out, or choose another kind."


class DropRefusedError(ConflictError):
    """The same words for whatever is in the way: who drops files sees nothing of what is there."""

    code = "drop_refused"
    title = "A file of this name cannot be put here"
    next_step = "Give it another name."


class InvitationNotFoundError(NotFoundError):
    code = "invitation_not_found"
    title = "There is no such invitation, or you may not see it"
    next_step = "List those that you may see: `perdure invite list`."


class InvitationEndedError(NotFoundError):
    """For who has its key: revoked, accepted, replaced by a newer mail, too late, or never was."""

    code = "invitation_ended"
    title = "This invitation was used, has ended, or never was"
    next_step = "Ask who invited you for a new one; only the newest mail is good."


class InvitationDecidedError(ConflictError):
    code = "invitation_decided"
    title = "This invitation is accepted or revoked"
    next_step = "Read its state in the list of invitations; make a new one if it is needed."


class KnownAlreadyError(ConflictError):
    code = "known_already"
    title = "You are known here already"
    next_step = "There is nothing to accept. To make another identity, log out first."


class GuestsNotTakenError(NotAllowedError):
    code = "guests_not_taken"
    title = "This invitation makes no new identity"
    next_step = "Log in as who you are here, or apply to be let in; then open the invitation again."


class TooManyInvitationsError(TryAgainError):
    code = "too_many_invitations"
    status = 429
    title = "You sent many invitations today"
    next_step = "Send the others tomorrow."
