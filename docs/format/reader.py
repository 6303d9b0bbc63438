"""Read archives from an OCFL storage root with the standard library of Python 3.11 alone; see README.md.

Usage: reader.py ROOT [ARCHIVE [verify | extract DIR]]
Lists the archives, or the files of one (a UUID, with or without urn:uuid:) and of its parents. `verify` compares every
digest; `extract` does so and writes everything under its true name into DIR. Exits with 1 when anything is damaged."""

import base64
import gzip
import hashlib
import json
import os
import shutil
import sys
from pathlib import Path


def open_object(root, identifier):
    """The folder of an object, its digest algorithm and its newest files as {logical path: (file, digest)}."""
    key = hashlib.sha256(identifier.encode()).hexdigest()
    folder = Path(root, key[:3], key[3:6], key[6:9], identifier.replace(":", "%3a"))
    [sidecar] = folder.glob("inventory.json.sha*")
    algorithm = sidecar.suffix[1:]
    check(folder / "inventory.json", algorithm, sidecar.read_text("ascii").split()[0])
    inventory = json.loads((folder / "inventory.json").read_bytes())
    manifest, state = inventory["manifest"], inventory["versions"][inventory["head"]]["state"]
    return folder, algorithm, {path: (folder / manifest[key][0], key) for key in state for path in state[key]}


def check(path, algorithm, digest):
    """Read a file and stop the program unless it has the digest."""
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, algorithm).hexdigest()
    if found != digest.lower():
        sys.exit(f"DAMAGED {path}: {algorithm} is {found}, should be {digest}")


def load(head, name, default=b""):
    """A file of a head object, checked, or the default where there is none."""
    if name in head[2]:
        check(head[2][name][0], head[1], head[2][name][1])
    return head[2][name][0].read_bytes() if name in head[2] else default


def true_name(fields, name="path"):
    """The bytes of a path or target: text, or base64 under another name where they are not UTF-8."""
    return fields[name].encode() if name in fields else base64.b64decode(fields[name + "_bytes"])


def read_archive(root, identifier):
    """All that an archive shows as {path: (entry, file on disk, algorithm)}: its parent's entries under its own."""
    head = open_object(root, "urn:uuid:" + identifier.removeprefix("urn:uuid:"))
    gone = {(one["part"], true_name(one)) for one in map(json.loads, load(head, "superseded.ndjson").splitlines())}
    own = {}
    for part in json.loads(load(head, "parts.json", b'{"parts": []}'))["parts"]:
        folder, algorithm, _ = open_object(root, part["id"])
        check(folder / "inventory.json", algorithm, part["inventory_digest"])
        check(folder / "v1/content/meta/manifest.ndjson.gz", algorithm, part["manifest_digest"])
        lines = gzip.decompress((folder / "v1/content/meta/manifest.ndjson.gz").read_bytes()).splitlines()
        for entry in map(json.loads, lines):
            if (part["number"], true_name(entry)) not in gone:
                own[true_name(entry)] = (entry, folder / "v1/content/data" / entry.get("content", ""), algorithm)
    shown = read_archive(root, parent) if (parent := json.loads(load(head, "archive.json"))["parent"]) else {}
    above = {path: {path[:end] for end, byte in enumerate(path) if byte == 0x2F} for path in {**shown, **own}}
    solid = {path for path in own if own[path][0]["kind"] != "directory"}
    folders = {folder for path in own if own[path][0]["kind"] != "hidden" for folder in above[path]}
    for path, found in shown.items():
        if not (above[path] & solid or (path in folders and found[0]["kind"] != "directory")):
            own.setdefault(path, found)
    return {path: found for path, found in own.items() if found[0]["kind"] != "hidden"}


def extract(entries, target):
    """Write folders, then files, then links, so that nothing is written through a link."""
    for path, (entry, file, _) in sorted(entries.items(), key=lambda item: item[1][0]["kind"]):
        place = os.path.join(os.fsencode(target), path)
        os.makedirs(place if entry["kind"] == "directory" else os.path.dirname(place), exist_ok=True)
        if entry["kind"] == "symlink":
            os.symlink(true_name(entry, "target"), place)
        elif entry["kind"] == "file":
            shutil.copyfile(os.fsencode(file), place)
            os.utime(place, ns=(entry.get("mtime_ns", 0), entry.get("mtime_ns", 0)))


def main(root, archive=None, action="list", target=None):
    if archive is None:
        for inventory in map(Path.read_bytes, Path(root).glob("*/*/*/*/inventory.json")):
            if b'"archive.json"' in inventory:  # parts have longer names only
                print(json.loads(inventory)["id"])
        return
    entries = read_archive(root, archive)
    for path, (entry, file, algorithm) in sorted(entries.items()):
        if entry["kind"] == "file" and action != "list":
            check(file, algorithm, entry["digests"][algorithm])
        print(f"{entry['kind']:9} {entry['size']:14} {path.decode(errors='backslashreplace')!r}")
    if action == "extract":
        extract(entries, target)


if __name__ == "__main__":
    main(*sys.argv[1:])
