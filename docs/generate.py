"""Write the reference pages that follow from the code: `python docs/generate.py`; a test fails when one is stale.

With `--check` it writes nothing, and ends with 1 when a page is stale.
"""

from __future__ import annotations

import pkgutil
import sys
from importlib import import_module
from pathlib import Path

import click

import perdure
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


PAGES = {"use/errors.md": errors_page, "use/cli.md": cli_page}


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
