"""Write the reference pages that follow from the code: `python docs/generate.py`; a test fails when one is stale.

With `--check` it writes nothing, and ends with 1 when a page is stale.
"""

from __future__ import annotations

import pkgutil
import sys
from collections.abc import Mapping
from datetime import date
from importlib import import_module
from pathlib import Path
from uuid import UUID

import click

import perdure
from perdure.doors.api.needs import iter_needs, told
from perdure.identity import AccessClass, Action, ArchiveThing, Role, Verb
from perdure.identity.model import (
    ACCOUNT_ROLE_ACTIONS,
    ADMINISTRATOR_ACTIONS,
    ORGANISATION_ROLE_ACTIONS,
    ROLE_ACTIONS,
    VERB_ACTIONS,
    actions_on,
    allowed_actions,
    roles_on,
)
from perdure.kernel.actor import ANONYMOUS
from perdure.kernel.errors import EXIT_CODES, iter_error_classes
from perdure_client.cli.main import perdure as command
from perdure_client.errors import EXIT_MEANINGS

HERE = Path(__file__).parent
_STARTS_A_PROCESS = "perdure.db.migrations.env"  # runs migrations when it is imported: Alembic's way


def load_everything() -> None:
    """Import every module, so that every error class is known."""
    for module in pkgutil.walk_packages(perdure.__path__, "perdure."):
        if not module.name.startswith((_STARTS_A_PROCESS, "perdure.db.migrations.versions")):
            import_module(module.name)


def errors_page() -> str:
    """Every error with its code, status, meaning and next step."""
    load_everything()
    lines = [
        "# Errors",
        "",
        "Each answer of the API that is not a success is a problem document (RFC 9457) with a stable `code`, a",
        "sentence in `detail`, and the `next_step`. Only those of the kind *try again* are worth a retry by a program.",
        "This page is generated from the code.",
        "",
        "| code | status | kind | exit code | title | next step |",
        "|---|---|---|---|---|---|",
    ]
    for error in iter_error_classes():
        cells = (
            f"`{error.code}`",
            error.status,
            error.kind.value,
            EXIT_CODES[error.kind],
            error.title,
            error.next_step,
        )
        lines.append("| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |")
    lines += ["", "## Exit codes of the command", "", "| exit code | meaning |", "|---|---|"]
    lines += [f"| {number} | {meaning} |" for number, meaning in sorted(EXIT_MEANINGS.items())]
    return "\n".join(lines) + "\n"


def cli_page() -> str:
    """Every command with its help."""
    lines = [
        "# The command `perdure`",
        "",
        "Every command takes `--help`; those that answer something take `--json`. Progress goes to standard error,",
        "results to standard output. The exit codes are in [errors.md](errors.md). This page is generated.",
    ]
    context = click.Context(command, info_name="perdure", **command.context_settings)
    for name in command.list_commands(context):
        found = command.get_command(context, name)
        if found is not None:
            lines += _describe(found, name, context)
    return "\n".join(lines) + "\n"


def _describe(found: click.Command, name: str, parent: click.Context) -> list[str]:
    context = click.Context(found, info_name=name, parent=parent, max_content_width=100)
    lines = ["", f"## {context.command_path}", "", "```text", found.get_help(context), "```"]
    if isinstance(found, click.Group):
        for sub_name in found.list_commands(context):
            sub = found.get_command(context, sub_name)
            if sub is not None:
                lines += _describe(sub, sub_name, context)
    return lines


_MEANINGS = {
    Action.SEE: "see that it is there: record, metadata, history and events",
    Action.READ: "read listing, bytes, and what is said of single files",
    Action.VERIFY: "have every copy read and compared",
    Action.FILL: "add, replace and remove content while it is open",
    Action.DESCRIBE: "change record and metadata, also after closing",
    Action.CLOSE: "close it",
    Action.APPEND: "open an archive that appends to it",
    Action.MANAGE: "give and take roles, say who may read, see who does, change its contract, discard it while open",
    Action.WITHDRAW: "withdraw it once it is closed",
    Action.READ_ACCOUNT: "see the account and what it uses",
    Action.OPEN_ARCHIVE: "open archives in it",
    Action.MANAGE_ACCOUNT: "rename it, give and take roles on it",
    Action.MANAGE_ORGANISATION: "make and change people, groups, accounts and quotas in it, give and take roles on it",
    Action.ADMINISTER: "make organisations, administrators and profiles, read the whole event log",
}


def rights_page() -> str:
    """Roles, access classes and tokens against actions, from the tables that decide."""
    opened, public = (
        allowed_actions(ANONYMOUS, archive, (), today=date(2000, 1, 1))
        for archive in (_archive(is_closed=False), _archive(is_closed=True))
    )
    text = (HERE / "templates" / "rights.md").read_text(encoding="utf-8")
    tables = {
        "roles": _matrix(actions_on(_archive(is_closed=True)), {
            **{role.value: ROLE_ACTIONS[role] for role in reversed(Role)},
            "administrator": ADMINISTRATOR_ACTIONS,
            "everybody, closed and public": public,
            "everybody, else": opened,
        }),
        "account roles": _matrix(ACCOUNT_ROLE_ACTIONS[Role.OWNER], {
            **{role.value: ACCOUNT_ROLE_ACTIONS[role] for role in reversed(Role)},
            "administrator": ADMINISTRATOR_ACTIONS,
        }),
        "organisation roles": _matrix(frozenset[Action]().union(*ORGANISATION_ROLE_ACTIONS.values()), {
            **{role.value: ORGANISATION_ROLE_ACTIONS[role] for role in reversed(roles_on("organisation"))},
            "administrator": ADMINISTRATOR_ACTIONS,
        }),
        "operations": _operations(),
        "verbs": _matrix(frozenset(Action), {verb.value: VERB_ACTIONS[verb] for verb in Verb}),
    }  # fmt: skip
    for name, table in tables.items():
        text = text.replace(f"<!-- {name} -->", table)
    return text


def _operations() -> str:
    rows = [f"| {told(need)} | {', '.join(f'`{name}`' for name in names)} |" for need, names in iter_needs()]
    return "\n".join(["| asks for | operations |", "|---|---|", *rows])


def _archive(*, is_closed: bool) -> ArchiveThing:
    nobody = UUID(int=0)
    return ArchiveThing(nobody, nobody, nobody, AccessClass.PUBLIC, None, is_closed=is_closed)


def _matrix(actions: frozenset[Action], columns: Mapping[str, frozenset[Action]]) -> str:
    lines = [f"| | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for action in Action:
        if action in actions:
            cells = " | ".join("yes" if action in allowed else "" for allowed in columns.values())
            lines.append(f"| {_MEANINGS[action]} (`{action.value}`) | {cells} |")
    return "\n".join(lines)


PAGES = {"use/errors.md": errors_page, "use/cli.md": cli_page, "use/rights.md": rights_page}


def main(words: list[str]) -> int:
    """Write all pages, or check them; the exit code."""
    pages = {HERE / name: write() for name, write in PAGES.items()}
    stale = [path for path, text in pages.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    if "--check" in words:
        for path in stale:
            print(f"{path.relative_to(HERE)} is stale: run `python docs/generate.py`")
        return int(bool(stale))
    for path in stale:
        path.write_text(pages[path], encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
