"""What the mails of this domain say: who writes, what to do, when it ends (pure)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from textwrap import fill
from urllib.parse import urlsplit

from perdure.identity.model import Letter

_WIDTH = 76
_LONGEST_NAME = 200
_MOST_NAMED = 20


def say_moment(moment: datetime) -> str:
    """A moment as mails tell it."""
    return f"{moment.day} {moment:%B %Y, %H:%M} UTC"


def say_name(text: str) -> str:
    """What somebody called himself or his thing, in one line."""
    line = " ".join("".join(character if character.isprintable() else " " for character in text).split())
    return line if len(line) <= _LONGEST_NAME else line[: _LONGEST_NAME - 1] + "…"


def compose(url: str, paragraphs: Iterable[str]) -> str:
    """The text of a mail: paragraphs, each filled unless it is an address or a list, and who sent it."""
    told = [text if text.startswith(("http", "  ")) else fill(text, _WIDTH) for text in paragraphs]
    footer = f"-- \nSent by the research data archive at {url}. Answers are not read."
    return "\n\n".join([*told, footer]) + "\n"


def host_of(url: str) -> str:
    """How subjects name this place."""
    return urlsplit(url).netloc


def write_test(url: str, to: str) -> Letter:
    text = compose(url, ["This is a test. Mail from here reaches you.", "There is nothing to do."])
    return Letter("test", to, f"Test mail from {host_of(url)}", text)


def write_reset(url: str, to: str, login: str, key: str, ends_at: datetime) -> Letter:
    paragraphs = [
        f"Somebody, you we hope, asked for a new password for the login name {say_name(login)}. Choose it here:",
        f"{url}/mail/reset/{key}",
        f"The link is good once, until {say_moment(ends_at)}. A new password ends all your sessions; a second factor "
        "stays as it is.",
        "If it was not you, do nothing: your password stays as it is.",
    ]
    return Letter("reset", to, f"A new password at {host_of(url)}", compose(url, paragraphs))


def write_no_password(url: str, to: str, ways: Sequence[str]) -> Letter:
    paragraphs = [
        "Somebody, you we hope, asked for a new password. You have none here, because you log in by: "
        f"{', '.join(ways) or 'nothing at this moment'}.",
        f"{url}/login",
        "If it was not you, do nothing.",
    ]
    return Letter("reset", to, f"You log in without a password at {host_of(url)}", compose(url, paragraphs))


def write_confirmation(url: str, to: str, name: str, key: str, ends_at: datetime) -> Letter:
    paragraphs = [
        f"{say_name(name)} named this address as the one to be reached at. Confirm that it is yours:",
        f"{url}/mail/address/{key}",
        f"The link is good once, until {say_moment(ends_at)}.",
        "If you do not know of this, do nothing: the address is not used.",
    ]
    return Letter("address", to, f"Confirm your address at {host_of(url)}", compose(url, paragraphs))


def write_notice(url: str, to: str, subject: str, said: str) -> Letter:
    """Something changed that its owner has to know of."""
    paragraphs = [
        said,
        "If it was you, there is nothing to do. If it was not, choose a new password at once and ask those who manage "
        "your organisation here for help:",
        f"{url}/password/forgotten",
    ]
    return Letter("notice", to, f"{subject} at {host_of(url)}", compose(url, paragraphs))


def write_approval(url: str, to: str, name: str, key: str, ends_at: datetime) -> Letter:
    paragraphs = [
        f"{say_name(name)}, your application is approved. Log in as you applied:",
        f"{url}/login",
        "Please confirm this address, too, so that you are told of changes and can reset a password:",
        f"{url}/mail/address/{key}",
        f"That link is good once, until {say_moment(ends_at)}.",
    ]
    return Letter("application", to, f"You are let in at {host_of(url)}", compose(url, paragraphs))


def write_refusal(url: str, to: str, name: str, note: str) -> Letter:
    said = "\n".join(f"  {line}" for line in note.splitlines())
    paragraphs = [
        f"{say_name(name)}, your application was refused."
        + (" Who decided it wrote:" if said else " No reason was given."),
        *([said] if said else []),
        "Ask those who manage the organisation. What you told of yourself is forgotten; this is the only mail.",
    ]
    return Letter("application", to, f"Your application at {host_of(url)}", compose(url, paragraphs))


def write_digest(url: str, to: str, waiting: Sequence[tuple[str, Sequence[str]]]) -> Letter:
    """`waiting` holds, for each organisation, the names of those who apply anew."""
    paragraphs = ["New applications wait to be decided."]
    for organisation, names in waiting:
        lines = [f"  {say_name(organisation)}:", *(f"    {say_name(name)}" for name in names[:_MOST_NAMED])]
        more = len(names) - _MOST_NAMED
        paragraphs.append("\n".join([*lines, *([f"    and {more} more"] if more > 0 else [])]))
    paragraphs.append("Look at them with `perdure application list --state pending`, then approve or refuse each.")
    count = sum(len(names) for _, names in waiting)
    subject = "1 application waits" if count == 1 else f"{count} applications wait"
    return Letter("digest", to, f"{subject} at {host_of(url)}", compose(url, paragraphs))
