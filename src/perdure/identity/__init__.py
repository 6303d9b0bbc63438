"""Who is calling and what he may do: identities, credentials, sessions, tokens, accounts, groups and grants."""

from perdure.identity.model import (
    AccessClass,
    Account,
    AccountThing,
    Action,
    ArchiveThing,
    Client,
    Grant,
    Grantee,
    Group,
    IdentityCard,
    InstanceThing,
    Organisation,
    Role,
    Session,
    Thing,
    Token,
    Verb,
)
from perdure.identity.service import Identity, IdentitySettings

__all__ = [
    "AccessClass",
    "Account",
    "AccountThing",
    "Action",
    "ArchiveThing",
    "Client",
    "Grant",
    "Grantee",
    "Group",
    "Identity",
    "IdentityCard",
    "IdentitySettings",
    "InstanceThing",
    "Organisation",
    "Role",
    "Session",
    "Thing",
    "Token",
    "Verb",
]
