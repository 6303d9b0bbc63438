"""Run every benchmark in order: `python bench/all.py --folder RESULTS [--scratch FOLDER] [--scale 0.01]`.

Each result is a JSON file in the folder of results. What has one of the same code and scale, without problems and with
all its sections, is not run again: stopped and started anew, it goes on. `--table` runs nothing and prints the results
as a page has them; `--write` puts them between the marks of bench/README.md and docs/operate/limits.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from harness import code_digest, markdown_table, read_findings

BENCHMARKS = (  # between two that delete many small files is one that takes long and has few
    "reference",
    "large_files",
    "small_files",
    "api_requests",
    "rights",
    "start_up",
    "scales",
    "main_job",
    "growth",
)
_HERE = Path(__file__).parent
_PAGES = (_HERE / "README.md", _HERE.parent / "docs" / "operate" / "limits.md")
_BEGIN, _END = "<!-- results: written by bench/all.py -->", "<!-- end of results -->"


def main() -> None:
    """Run what is missing, or show what there is; exit code 1 when a benchmark failed."""
    chosen = _parse()
    chosen.folder.mkdir(parents=True, exist_ok=True)
    failed = [] if chosen.table or chosen.write else [name for name in chosen.only if not _run(name, chosen)]
    page = render([document for name in BENCHMARKS if (document := _load(chosen.folder / f"{name}.json"))])
    if chosen.write:
        for place in _PAGES:
            place.write_text(fill(place.read_text(encoding="utf-8"), page), encoding="utf-8")
    else:
        print(page)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="the folder of the results")
    parser.add_argument("--scratch", type=Path, help="on which file system to measure")
    parser.add_argument("--scale", type=float, default=1.0, help="shrink counts and sizes by this factor")
    parser.add_argument("--rounds", type=int, help="how many turns of each")
    parser.add_argument("--only", nargs="+", choices=BENCHMARKS, default=BENCHMARKS, help="only these benchmarks")
    parser.add_argument("--table", action="store_true", help="run nothing, print the results")
    parser.add_argument("--write", action="store_true", help="run nothing, put the results into the pages")
    return parser.parse_args()


def _run(name: str, chosen: argparse.Namespace) -> bool:
    """Run one benchmark unless its result stands; whether it succeeded."""
    result = chosen.folder / f"{name}.json"
    if _stands(_load(result), chosen.scale):
        print(f"{name}: done before", file=sys.stderr)
        return True
    words = [sys.executable, str(_HERE / f"{name}.py"), str(result), "--scale", str(chosen.scale)]
    words += ["--folder", str(chosen.scratch)] if chosen.scratch else []
    words += ["--rounds", str(chosen.rounds)] if chosen.rounds else []
    started = time.monotonic()
    is_good = subprocess.run(words, stdout=subprocess.DEVNULL, check=False).returncode == 0
    print(f"{name}: {'done' if is_good else 'FAILED'} in {time.monotonic() - started:.0f} s", file=sys.stderr)
    return is_good


def _load(place: Path) -> dict[str, Any] | None:  # Any: JSON
    try:
        found: dict[str, Any] = json.loads(place.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return found


def _stands(document: dict[str, Any] | None, scale: float) -> bool:
    if document is None or not document["is_complete"]:
        return False
    if any(not problem.startswith("skipped") for problem in document["problems"].values()):
        return False
    return bool(document["scale"] == scale and document["code"] == code_digest())


def render(documents: list[dict[str, Any]]) -> str:
    """The results as Markdown: what was measured on, then a table for each benchmark."""
    if not documents:
        return "There is no result.\n"
    measured_on = documents[0]["machine"]
    text = [
        f"Measured on {documents[0]['at'][:10]}: {measured_on['processors']} processors ({measured_on['processor']}), "
        f"{measured_on['memory_gb']} GB of memory, {measured_on['file_system']} on {measured_on['system']}, "
        f"Python {measured_on['python']}, everything on this one machine.\n"
    ]
    for document in documents:
        text.append(f"### {document['benchmark']}\n")
        if document["scale"] != 1:
            text.append(f"Shrunk to {document['scale']:g} of the full size: for trying out, not for comparing.\n")
        findings = read_findings(document)
        text.append(markdown_table(findings))
        notes = sorted({f"{one.peer}: {one.note}" if one.peer else one.note for one in findings if one.note})
        text += [f"- {note}." for note in notes] + [""] * bool(notes)
        text += [f"**{section}: {problem}**\n" for section, problem in document["problems"].items()]
    return "\n".join(text)


def fill(page: str, results: str) -> str:
    """The page with the results between its marks; raises ValueError when it has none."""
    before, after = page.index(_BEGIN) + len(_BEGIN), page.index(_END)
    return f"{page[:before]}\n\n{results.rstrip()}\n\n{page[after:]}"


if __name__ == "__main__":
    main()
