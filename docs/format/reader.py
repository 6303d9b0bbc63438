"""Read archives from an OCFL storage root with the standard library of Python 3.11 alone; see README.md.

    reader.py ROOT                      list the archives
    reader.py ROOT ARCHIVE              list the files of one, those of its parents included
    reader.py ROOT ARCHIVE verify       read every file and compare its digest
    reader.py ROOT ARCHIVE extract DIR  verify, and write everything under its true name into an empty DIR

ARCHIVE is a UUID or urn:uuid:…; the exit status is 1 when anything is missing or differs.
"""

import base64
import gzip
import hashlib
import json
import os
import shutil
import sys
import uuid
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
    head = open_object(root, uuid.UUID(identifier).urn)
    shown = read_archive(root, parent) if (parent := json.loads(load(head, "archive.json"))["parent"]) else {}
    gone = {(one["part"], true_name(one)) for one in map(json.loads, load(head, "superseded.ndjson").splitlines())}
    for part in json.loads(load(head, "parts.json", b'{"parts": []}'))["parts"]:
        folder, algorithm, _ = open_object(root, part["id"])
        check(folder / "inventory.json", algorithm, part["inventory_digest"])
        check(folder / "v1/content/meta/manifest.ndjson.gz", algorithm, part["manifest_digest"])
        with gzip.open(folder / "v1/content/meta/manifest.ndjson.gz") as manifest:
            for entry in map(json.loads, manifest):
                if (part["number"], true_name(entry)) not in gone:
                    shown[true_name(entry)] = (entry, folder / "v1/content/data" / entry.get("content", ""), algorithm)
    return {path: found for path, found in shown.items() if found[0]["kind"] != "hidden"}


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
        for declaration in Path(root).glob("*/*/*/*/0=ocfl_object_1.1"):
            identifier = json.loads((declaration.parent / "inventory.json").read_bytes())["id"]
            if identifier.startswith("urn:uuid:") and "archive.json" in open_object(root, identifier)[2]:
                print(identifier)
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
