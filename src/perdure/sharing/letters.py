"""What the mail of an invitation says (pure)."""

from __future__ import annotations

from perdure.identity.letters import compose, host_of, say_moment, say_name
from perdure.identity.model import Letter
from perdure.sharing.model import InvitationCard

_THINGS = {"archive": "the archive", "account": "the account", "organisation": "the organisation"}


def write_invitation(url: str, card: InvitationCard, key: str) -> Letter:
    one = card.invitation
    if one.role is None:
        what = f"invites you to have a login at {say_name(card.organisation)}"
    else:
        thing = _THINGS[one.on_kind or "archive"]
        until = f", until {say_moment(one.role_until)}" if one.role_until else ""
        what = f'gives you the role {one.role.value} on {thing} "{say_name(one.label)}"{until}'
    note = "\n".join(f"  {say_name(line)}" for line in one.note.splitlines())
    how = (
        "Log in if you are known there, or choose a login name and a password."
        if card.may_join
        else "Log in there as you usually do; who is not known there yet applies first."
    )
    paragraphs = [
        f"{say_name(card.inviter)} {what}. Open this to accept:",
        f"{url}/mail/invitation/{key}",
        how,
        *([f"{say_name(card.inviter)} writes:", note] if note.strip() else []),
        f"The link is good once, until {say_moment(one.expires_at)}, for whoever has it: do not pass it on. "
        "If you do not know who writes, do nothing.",
    ]
    return Letter("invitation", one.address, f"An invitation to {host_of(url)}", compose(url, paragraphs))
