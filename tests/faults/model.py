"""What archives must look like, in memory: plain dictionaries and no storage. The state machine compares with it."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any
from uuid import UUID

from perdure.testing.merging import merge

from . import acts
from .acts import Given

BLOCKING = ("file", "symlink", "hidden")
FOLDERLESS = ("file", "symlink")
LIVE = ("open", "closing", "closed")
Json = dict[str, Any]  # Any: JSON of any shape
Shown = dict[bytes, tuple[Given, UUID]]


class RefusedError(Exception):
    """The act must be refused with this code."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


@dataclass
class Upload:
    archive: UUID
    path: bytes
    size: int
    sent: bytes = b""
    is_late: bool = False


@dataclass
class Layer:
    """One archive: its own entries, what is said of it and of its files, what was asked for and not yet done."""

    id: UUID
    parent: UUID | None
    title: str
    keep_until: date
    state: str = "open"
    entries: dict[bytes, Given] = field(default_factory=dict)
    said: dict[bytes, Json] = field(default_factory=dict)
    revisions: dict[bytes, int] = field(default_factory=dict)
    history: list[bytes] = field(default_factory=list)
    past: list[tuple[datetime, dict[bytes, Json]]] = field(default_factory=list)
    is_closing: bool = False  # a job closes it: the state alone does not say so after a rebuild
    is_withdrawing: bool = False
    is_damaged: bool = False


@dataclass
class Estate:
    """Everything there is. `after` gives the next state and leaves this one."""

    layers: dict[UUID, Layer] = field(default_factory=dict)
    uploads: dict[UUID, Upload] = field(default_factory=dict)

    def after(self, act: acts.Act) -> Estate:
        """The state that the act leads to; raises RefusedError."""
        changed = copy.deepcopy(self)
        getattr(changed, f"_{type(act).__name__.lower()}")(act)
        return changed

    def chain(self, archive: UUID) -> list[Layer]:
        """The archive and its ancestors."""
        layers = [self.layers[archive]]
        while layers[-1].parent is not None:
            layers.append(self.layers[layers[-1].parent])
        return layers

    def shown(self, archive: UUID) -> Shown:
        """The union, by laying each layer over what is below it."""
        return overlay(self.chain(archive))

    def descendants(self, archive: UUID) -> Iterator[Layer]:
        """Every archive that shows something of this one."""
        for layer in self.layers.values():
            if layer.parent == archive:
                yield from self.descendants(layer.id)
                if layer.state in LIVE:
                    yield layer

    def revision_of(self, archive: UUID, path: bytes) -> int:
        return self.layers[archive].revisions.get(path, 0)

    # Acts; what makes an id is told in the answer, and added by `add`

    def add(self, archive: UUID, parent: UUID | None, title: str, keep_until: date) -> None:
        """An archive that was opened."""
        layer = self.layers[archive] = Layer(archive, parent, title, keep_until)
        said = self.layers[parent].said.get(b"") if parent else None
        if said:
            self._say(layer, b"", copy.deepcopy(said))

    def _open(self, act: acts.Open) -> None:
        pass

    def _append(self, act: acts.Append) -> None:
        self._in_state(act.parent, "closed")

    def _put(self, act: acts.Put) -> None:
        layer = self._in_state(act.archive, "open")
        if _is_in_conflict(layer.entries, act.given, replace=act.replace):
            raise RefusedError("path_taken")
        layer.entries[act.given.path] = act.given

    def _batch(self, act: acts.Batch) -> None:
        layer = self._in_state(act.archive, "open")
        layer.entries |= {item.path: item for item in accepted(layer.entries, act.items)}

    def _beginupload(self, act: acts.BeginUpload) -> None:
        self._in_state(act.archive, "open")

    def _send(self, act: acts.Send) -> None:
        upload = self.uploads[act.upload]
        layer = self._in_state(upload.archive, "open")
        if upload.is_late:
            raise RefusedError("upload_ended")
        if act.offset != len(upload.sent):
            raise RefusedError("upload_offset")
        upload.sent += act.data
        if len(upload.sent) == upload.size:
            del self.uploads[act.upload]
            given = Given(upload.path, "file", upload.sent)
            if not _is_in_conflict(layer.entries, given, replace=True):
                layer.entries[given.path] = given

    def refusal_of_send(self, act: acts.Send) -> str | None:
        """Why the file of an upload's last bytes cannot be at its path; the upload ends all the same."""
        upload = self.uploads[act.upload]
        given = Given(upload.path)
        is_last = not upload.is_late and act.offset == len(upload.sent) and act.offset + len(act.data) == upload.size
        layer = self.layers[upload.archive]
        taken = is_last and layer.state == "open" and _is_in_conflict(layer.entries, given, replace=True)
        return "path_taken" if taken else None

    def _abort(self, act: acts.Abort) -> None:
        del self.uploads[act.upload]

    def _remove(self, act: acts.Remove) -> None:
        layer = self._in_state(act.archive, "open")
        self._take_out(layer, act.path, recursive=act.recursive)

    def _hide(self, act: acts.Hide) -> None:
        layer = self._in_state(act.archive, "open")
        if not self._is_inherited(layer, act.path, recursive=True):
            raise RefusedError("nothing_to_hide")
        self._take_out(layer, act.path, recursive=True)

    def _patch(self, act: acts.Patch) -> None:
        layer = self._in_state(act.archive, *LIVE)
        if act.path and act.path not in self.shown(act.archive):
            raise RefusedError("entry_not_found")
        if act.behind:
            raise RefusedError("revision_mismatch")
        before = layer.said.get(act.path, {})
        after = merge(before, json.loads(act.patch))
        if to_text(after) != to_text(before):
            self._say(layer, act.path, after)

    def _describe(self, act: acts.Describe) -> None:
        layer = self._in_state(act.archive, *LIVE)
        if act.behind:
            raise RefusedError("revision_conflict")
        layer.title = act.title

    def _extend(self, act: acts.Extend) -> None:
        layer = self._in_state(act.archive, *LIVE)
        if act.days < 0:
            raise RefusedError("bad_lifetime")
        layer.keep_until = date.fromordinal(layer.keep_until.toordinal() + act.days)

    def _close(self, act: acts.Close) -> None:
        layer = self._in_state(act.archive, *LIVE)
        if layer.state == "closing":
            layer.is_closing = True
        if layer.state != "open":
            return
        if not layer.entries:
            raise RefusedError("archive_empty")
        own = [key for key, upload in self.uploads.items() if upload.archive == act.archive]
        if any(not self.uploads[key].is_late for key in own) and not act.discard_uploads:
            raise RefusedError("uploads_unfinished")
        for key in own:
            del self.uploads[key]
        layer.state, layer.is_closing = "closing", True

    def _reopen(self, act: acts.Reopen) -> None:
        layer = self._in_state(act.archive, "closing")
        layer.state, layer.is_closing = "open", False

    def _discard(self, act: acts.Discard) -> None:
        layer = self._in_state(act.archive, "open", "discarded")
        layer.state = "discarded"
        self.uploads = {key: upload for key, upload in self.uploads.items() if upload.archive != act.archive}

    def _withdraw(self, act: acts.Withdraw) -> None:
        layer = self._in_state(act.archive, "closed")
        if any(self.descendants(act.archive)):
            raise RefusedError("children_remain")
        layer.is_withdrawing = True

    def _work(self, act: acts.Work) -> None:
        for layer in self.layers.values():
            if layer.is_closing:
                layer.state, layer.is_closing = "closed", False
        for layer in self.layers.values():
            if layer.is_withdrawing and not any(self.descendants(layer.id)):
                layer.state = "withdrawn"
            layer.is_withdrawing = False

    def _verify(self, act: acts.Verify) -> None:
        self._in_state(act.archive, *LIVE)
        self._work(acts.Work())  # the same worker carries out what waits

    def _repair(self, act: acts.Repair) -> None:
        self.layers[act.archive].is_damaged = False

    def _upkeep(self, act: acts.Upkeep) -> None:
        self.uploads = {key: upload for key, upload in self.uploads.items() if not upload.is_late}

    # Parts of them

    def _in_state(self, archive: UUID, *states: str) -> Layer:
        layer = self.layers[archive]
        if layer.state not in states:
            raise RefusedError(f"archive_{layer.state}")
        return layer

    def _say(self, layer: Layer, path: bytes, document: Json) -> None:
        layer.said[path] = document
        layer.revisions[path] = layer.revisions.get(path, 0) + 1
        layer.history.append(path)

    def _is_inherited(self, layer: Layer, path: bytes, *, recursive: bool) -> bool:
        below = overlay(self.chain(layer.id)[1:])
        return path in below or (recursive and any(other.startswith(path + b"/") for other in below))

    def _take_out(self, layer: Layer, path: bytes, *, recursive: bool) -> None:
        is_inherited = self._is_inherited(layer, path, recursive=recursive)
        inside = path + b"/"
        gone = [p for p in layer.entries if p == path or (recursive and p.startswith(inside))]
        was_hidden = path in layer.entries and layer.entries[path].kind == "hidden"
        if is_inherited and was_hidden:
            gone.remove(path)
        for one in gone:
            del layer.entries[one]
        if not is_inherited:
            self._forget(layer, gone)
        if is_inherited:
            above = [layer.entries[p].kind for p in ancestors(path) if p in layer.entries]
            if not was_hidden and not any(kind in FOLDERLESS for kind in above):
                layer.entries[path] = Given(path, "hidden")
            self._forget(layer, [path, *(p for p in layer.said if p.startswith(inside))])

    def _forget(self, layer: Layer, paths: list[bytes]) -> None:
        for path in sorted(paths):
            if layer.said.get(path):
                self._say(layer, path, {})


def to_text(document: Json) -> str:
    """The document in one spelling; compared as values, true would be 1."""
    return json.dumps(document, sort_keys=True)


def overlay(layers: list[Layer]) -> Shown:
    """What the uppermost of these layers shows, each entry with its layer."""
    shown: Shown = {}
    for layer in reversed(layers):
        for path, given in layer.entries.items():
            inside = path + b"/"
            if given.kind in BLOCKING:
                shown = {p: e for p, e in shown.items() if p != path and not p.startswith(inside)}
            if given.kind != "hidden":
                folders = ancestors(path)
                shown = {p: e for p, e in shown.items() if p not in folders or e[0].kind == "directory"}
        shown |= {path: (given, layer.id) for path, given in layer.entries.items() if given.kind != "hidden"}
    return shown


def ancestors(path: bytes) -> list[bytes]:
    """The folders above a path."""
    parts = path.split(b"/")
    return [b"/".join(parts[:count]) for count in range(1, len(parts))]


def accepted(entries: dict[bytes, Given], items: tuple[Given, ...]) -> list[Given]:
    """Those of a batch that are taken: each fits those before it, and what the archive held before the batch."""
    batch: dict[bytes, Given] = {}
    for item in items:
        folders = {above for path in batch for above in ancestors(path)}
        above = [batch[p].kind for p in ancestors(item.path) if p in batch]
        is_folder = item.kind != "directory" and item.path in folders
        if item.path not in batch and not any(kind != "directory" for kind in above) and not is_folder:
            batch[item.path] = item
    return [item for item in batch.values() if not _is_in_conflict(entries, item, replace=True)]


def _is_in_conflict(entries: dict[bytes, Given], item: Given, *, replace: bool) -> bool:
    if any(path in entries and entries[path].kind in FOLDERLESS for path in ancestors(item.path)):
        return True
    inside = [p for p, e in entries.items() if p.startswith(item.path + b"/") and e.kind != "hidden"]
    if item.kind in FOLDERLESS and inside:
        return True
    old = entries.get(item.path)
    if old is None:
        return False
    if not replace and old.kind != "hidden":
        return True
    return item.kind == "directory" and old.kind in BLOCKING
