"""Entries and names as hypothesis draws them, odd ones included."""

from __future__ import annotations

from hypothesis import strategies as st

from perdure.formats.manifest import ManifestEntry
from perdure.kernel.digests import digest_bytes
from perdure.kernel.paths import find_path_problem

_ODD = [
    "a",
    "A",
    "ä",
    "a\u0308",
    "Å",
    "\u212b",
    "\\",
    "\n",
    "\r",
    " ",
    ".",
    ":",
    "-",
    "_",
    "é",
    "\u200b",
    "ß",
    "\u017f",
    "1",
]
text_components = st.lists(st.sampled_from(_ODD), min_size=1, max_size=4).map("".join).map(str.encode)
raw_components = st.binary(min_size=1, max_size=6)
paths = (
    st.lists(text_components | raw_components, min_size=1, max_size=4)
    .map(b"/".join)
    .filter(lambda path: find_path_problem(path) is None)
)
_times = st.none() | st.integers(-(1 << 70), 1 << 70)
_contents = st.none() | st.text(st.characters(exclude_categories=["Cs"]))
_modes = st.none() | st.integers(0, 0o7777)


@st.composite
def entries(draw: st.DrawFn, path: st.SearchStrategy[bytes] = paths) -> ManifestEntry:
    """Any entry that a manifest may hold."""
    name, kind = draw(path), draw(st.sampled_from(["file", "directory", "symlink", "hidden"]))
    if kind == "symlink":
        return ManifestEntry(name, "symlink", mtime_ns=draw(_times), target=draw(st.binary(min_size=1, max_size=9)))
    if kind == "directory":
        return ManifestEntry(name, "directory", mtime_ns=draw(_times), mode=draw(_modes))
    if kind == "hidden":
        return ManifestEntry(name, "hidden")
    content = draw(st.binary(max_size=9))
    names = {"crc32", draw(st.sampled_from(["sha512", "sha256"])), *draw(st.sets(st.sampled_from(["md5", "blake3"])))}
    metadata = draw(st.none() | st.just({"digest": "00", "sequence": 3}))
    return ManifestEntry(
        name,
        "file",
        len(content),
        draw(_times),
        draw(_modes),
        digest_bytes(content, names),
        None,
        draw(_contents | st.just(name.decode(errors="replace"))),  # at its own name as a rule
        metadata,
    )


def sorted_entries(max_size: int = 8) -> st.SearchStrategy[list[ManifestEntry]]:
    """Entries of one part, in the order of a manifest."""
    listed = st.lists(entries(), max_size=max_size, unique_by=lambda entry: entry.path)
    return listed.map(lambda found: sorted(found, key=lambda entry: entry.path))
