"""What can go wrong with links. Unknown, ended, revoked and used up are one answer: it tells a guesser nothing."""

from __future__ import annotations

from perdure.kernel.errors import BadInputError, ConflictError, NotAllowedError, NotFoundError


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
