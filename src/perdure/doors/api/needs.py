"""What each operation of the API asks of its caller: for the OpenAPI document, the documentation and a test of all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum

from perdure.identity import Action


class Standing(StrEnum):
    """What is asked where no role on one thing decides."""

    ANYBODY = "nothing: everybody may"
    SHOWN = "nothing: it tells what one may see"
    ONESELF = "to be logged in: it is about oneself"
    OVER = "to manage the organisation of the person or thing that it names"
    ASKING = f"the right `{Action.OPEN_ARCHIVE.value}` or `{Action.MANAGE_ACCOUNT.value}`"
    ANSWERING = "to answer for the service account, or to manage its organisation"
    INVITING = "to manage what it invites to: an archive, an account or an organisation; one's own may be ended"
    GROUP = "to manage the group, or the organisation of the group"


Need = Action | Standing

_BY_NEED: Mapping[Need, str] = {
    Action.SEE: "get_archive list_record_history read_metadata",
    Action.READ: "list_entries get_entry read_file_metadata list_metadata_history get_ro_crate get_datacite "
    "get_statement get_receipt list_copies get_proof get_job probe_file read_file read_batch probe_download "
    "download get_manifest get_checksums",
    Action.VERIFY: "verify_archive",
    Action.FILL: "plan_upload remove_entries hide_entries ingest_folder put_file remove_file put_batch create_upload "
    "list_uploads probe_upload abort_upload continue_upload",
    Action.DESCRIBE: "describe_archive patch_metadata patch_file_metadata",
    Action.CLOSE: "close_archive",
    Action.APPEND: "append_to_archive",
    Action.MANAGE: "discard_archive change_profile extend_lifetime set_access explain_access list_archive_grants "
    "grant_on_archive revoke_on_archive list_links make_link revoke_link offer_archive transfer_archive",
    Action.WITHDRAW: "get_withdrawal withdraw_archive",
    Action.READ_ACCOUNT: "get_account get_account_usage list_account_quota_requests",
    Action.OPEN_ARCHIVE: "open_archive",
    Action.MANAGE_ACCOUNT: "change_account list_account_grants grant_on_account revoke_on_account transfer_account",
    Action.MANAGE_ORGANISATION: "get_organisation_usage list_organisation_grants grant_on_organisation "
    "revoke_on_organisation",
    Action.ADMINISTER: "create_organisation change_organisation define_profile publish_terms list_reach",
    Standing.ANYBODY: "get_instance list_keys list_errors log_in log_out list_providers begin_device_login "
    "poll_device_login end_at_provider log_in_with_token log_in_with_ticket log_in_by_hop begin_passkey_login "
    "log_in_by_passkey get_terms get_terms_version apply "
    "apply_with_password get_upload_options get_options_of_upload ask_for_reset reset_password confirm_address "
    "look_at_invitation join_by_invitation",
    Standing.ANSWERING: "get_service change_service list_service_reach list_service_tokens create_service_token "
    "rotate_service_token revoke_service_token",
    Standing.SHOWN: "list_archives list_services list_events list_jobs list_identities get_identity list_groups "
    "get_group list_organisations list_accounts list_claim_rules list_profiles get_profile list_applications "
    "list_quota_requests report_usage search_audit_trail list_invitations",
    Standing.ONESELF: "get_me set_password begin_second_factor confirm_second_factor renew_recovery_codes "
    "remove_second_factor list_sessions end_session list_tokens create_token revoke_token list_logins link_login "
    "unlink_login list_passkeys begin_passkey add_passkey rename_passkey remove_passkey create_group prove "
    "prove_by_passkey list_transfers accept_transfer decline_transfer merge_own get_address change_address "
    "accept_invitation export_own erase_own",
    Standing.OVER: "create_identity change_identity list_logins_of merge_identities erase_identity "
    "remove_second_factor_of create_account create_service approve_application refuse_application "
    "approve_quota_request refuse_quota_request",
    Standing.ASKING: "request_quota",
    Standing.INVITING: "invite resend_invitation revoke_invitation",
    Standing.GROUP: "add_member remove_member add_claim_rule remove_claim_rule",
}

NEEDS: Mapping[str, Need] = {name: need for need, names in _BY_NEED.items() for name in names.split()}


def told(need: Need) -> str:
    """A need as the OpenAPI document and the documentation name it."""
    return f"the right `{need.value}`" if isinstance(need, Action) else need.value


def iter_needs() -> Iterator[tuple[Need, list[str]]]:
    """Each need with the operations that have it, as they are told to people."""
    for need, names in _BY_NEED.items():
        yield need, names.split()
