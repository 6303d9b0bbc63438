"""What this domain records; ids only, so that no name, address or secret is fixed in the log."""

from __future__ import annotations

ORGANISATION_CREATED = "organisation.created"
ORGANISATION_CHANGED = "organisation.changed"
IDENTITY_CREATED = "identity.created"
IDENTITY_RENAMED = "identity.renamed"
IDENTITY_DISABLED = "identity.disabled"
IDENTITY_ENABLED = "identity.enabled"
IDENTITY_MERGED = "identity.merged"
IDENTITY_ERASED = "identity.erased"
ADMINISTRATOR_NAMED = "administrator.named"
ADMINISTRATOR_DISMISSED = "administrator.dismissed"
LOGIN_GIVEN = "login.given"
CREDENTIAL_LINKED = "credential.linked"
CREDENTIAL_UNLINKED = "credential.unlinked"
SECOND_FACTOR_ADDED = "second_factor.added"
RECOVERY_CODES_RENEWED = "recovery_codes.renewed"
SECOND_FACTOR_REMOVED = "second_factor.removed"
PASSKEY_ADDED = "passkey.added"
PASSKEY_REMOVED = "passkey.removed"
TERMS_PUBLISHED = "terms.published"
TERMS_ACCEPTED = "terms.accepted"
APPLICATION_RECEIVED = "application.received"
APPLICATION_APPROVED = "application.approved"
APPLICATION_REFUSED = "application.refused"
APPLICATION_FORGOTTEN = "application.forgotten"
PASSWORD_CHANGED = "password.changed"  # noqa: S105  # a type of event, no password

PASSWORD_RESET_ASKED = "password.reset_asked"  # noqa: S105  # a type of event, no password
PASSWORD_RESET = "password.reset"  # noqa: S105  # a type of event, no password
ADDRESS_CONFIRMED = "address.confirmed"
INVITATION_SENT = "invitation.sent"
INVITATION_REVOKED = "invitation.revoked"
INVITATION_ACCEPTED = "invitation.accepted"
MAIL_FAILED = "mail.failed"

SESSION_OPENED = "session.opened"
SESSION_PROVEN = "session.proven"
SESSION_CLOSED = "session.closed"
SESSION_REFUSED = "session.refused"
TOKEN_CREATED = "token.created"  # noqa: S105  # a type of event, no token
TOKEN_REVOKED = "token.revoked"  # noqa: S105  # a type of event, no token

TOKEN_ROTATED = "token.rotated"  # noqa: S105  # a type of event, no token
TOKEN_REFUSED = "token.refused"  # noqa: S105  # a type of event, no token

SERVICE_CREATED = "service.created"
SERVICE_CHANGED = "service.changed"
SERVICE_HANDED_OVER = "service.handed_over"
SERVICE_ORPHANED = "service.orphaned"

ACCOUNT_CREATED = "account.created"
ACCOUNT_CHANGED = "account.changed"
ACCOUNT_TRANSFERRED = "account.transferred"
QUOTA_REQUESTED = "quota.requested"
QUOTA_APPROVED = "quota.approved"
QUOTA_REFUSED = "quota.refused"
GRANT_GIVEN = "grant.given"
GRANT_REVOKED = "grant.revoked"

CLAIM_RULE_ADDED = "claim_rule.added"
CLAIM_RULE_REMOVED = "claim_rule.removed"
GROUP_CREATED = "group.created"
GROUP_MEMBER_ADDED = "group.member_added"
GROUP_MEMBER_REMOVED = "group.member_removed"
