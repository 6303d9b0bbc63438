"""An installation that lives through acts and deaths, and is compared with the model after each of them."""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import select

from perdure.archives.errors import ContentMovingError
from perdure.archives.rebuild import DERIVED, compare, rebuild
from perdure.archives.tables import files, parts
from perdure.archives.withdrawing import WITHDRAW_JOB
from perdure.db import Database
from perdure.events.model import verify_chain
from perdure.kernel.digests import digest_bytes
from perdure.kernel.ids import short_form
from perdure.kernel.paths import display_path
from perdure.storage.model import object_uri

from . import acts
from .acts import Died, Done, Given, Outcome, Refused
from .doing import STORES, Installation, compose, do, export_all, start
from .model import FOLDERLESS, LIVE, Estate, Json, RefusedError, Upload, accepted, ancestors, to_text
from .victim import Victims

_TIME_OF_A_RESTART = timedelta(minutes=10)  # longer than any lease of a process that died
_FILLS = (acts.Put, acts.Batch, acts.Send, acts.Remove, acts.Hide)
_WORKS = (acts.Work, acts.Verify)
Tree = dict[bytes, tuple[str, str, UUID]]


@dataclass(frozen=True)
class Seen:
    """What somebody sees of an archive: entries by kind, digest (or target) and layer; metadata by path."""

    state: str
    title: str
    keep_until: date
    tree: Tree | None = None
    top: tuple[bytes, ...] = ()
    said: Mapping[bytes, str] | None = None  # as text: 1 is not true
    history: tuple[bytes, ...] = ()


class World:
    """The real installation beside its model; `met` names the crash points at which it died."""

    def __init__(self, place: Installation, make_database: Callable[[], str], victims: Victims) -> None:
        self._make_database = make_database
        self._victims = victims
        self.place = place
        self.instance = start(self.place)
        self.model = Estate()
        self.met: list[str] = []
        self._half_done: set[UUID] = set()
        self._unsure: dict[tuple[UUID, bytes], set[Given | None]] = {}
        self._lent: set[UUID] = set()
        self._is_clearing = False

    # What happens

    def act(self, act: acts.Act, crash: int | str | None = None, *, again: bool = False) -> None:
        """Do an act here, or in a process that dies at a crash point; then everything must be as the model says.

        `again` repeats what was interrupted, which must then end as if nothing had happened (I7).
        """
        expected = self._expect(act)
        self._is_clearing |= isinstance(act, acts.Discard)
        if crash is None:
            outcome = do(self.instance, act)
        else:
            outcome = self._victims.do(replace(self.place, ahead=self.instance.clock.ahead), act, crash)
            self.restart()
        if not isinstance(outcome, Died):
            self._accept(act, expected, outcome)
            self.check()
            return
        self.met.append(outcome.point)
        self._find_out(act, expected)
        self.check()
        if again or isinstance(act, acts.Repair):
            self._repeat(act)

    def restart(self) -> None:
        """The process ends, and another one starts a while later, which writes heads that are not there."""
        self.instance.application.close()
        ahead = self.instance.clock.ahead + _TIME_OF_A_RESTART
        self.instance = start(replace(self.place, ahead=ahead))
        self.instance.application.archives.heads.fold_quiet()

    def let_uploads_expire(self) -> None:
        """Time passes; the next upkeep ends what was not finished in time."""
        self.instance.clock.ahead += timedelta(hours=25)
        for upload in self.model.uploads.values():
            upload.is_late = True

    def damage(self, archive: UUID, number: int) -> None:
        """Flip a bit in the second store's copy of some file, if it has one."""
        found = sorted(self._find_copied_files(archive))
        if found:
            victim = found[number % len(found)]
            data = bytearray(victim.read_bytes() or b"\0")
            data[number % len(data)] ^= 1
            victim.unlink()
            victim.write_bytes(data)
            self.model.layers[archive].is_damaged = True

    def rebuild(self) -> None:
        """The database is lost, and made again from the stores (I9).

        What waits in the queue is lost with it: what a job has begun, or has to clear away, is ended before.
        """
        if self._half_done or self._is_clearing:
            self.act(acts.Work())
        lost = self.instance.application
        lost.archives.heads.fold_quiet()
        export_all(lost)
        self.place = replace(self.place, database_url=self._make_database())
        application = compose(self.place.folder, self.place.database_url, self.instance.clock)
        report = rebuild(application.context)
        differences = compare(lost.db, application.db, tables=_comparable(lost.db))
        application.close()
        if not self._unsure:
            known = self._list_contradictions()
            _require_same(([one for one in report.problems if one not in known], differences), ([], []))
        lost.close()
        self.instance = start(replace(self.place, ahead=self.instance.clock.ahead))
        self.model.uploads = {}
        self._lent.clear()
        for layer in self.model.layers.values():
            layer.is_closing = layer.is_withdrawing = False
        self._find_out_what_returned()
        self.check()

    def check(self) -> None:
        """Everything is as the model says."""
        for archive in self.model.layers:
            seen = self._see(archive)
            _require_same(seen, self._foresee(self.model, archive))
            self._remember(archive)
        listed = {key for key, layer in self.model.layers.items() if layer.state != "discarded"}
        _require_same(self._list_archives(), listed)
        _require_same(self._see_uploads(), {key: len(upload.sent) for key, upload in self.model.uploads.items()})

    def check_contents(self) -> None:
        """Every byte, and every moment of the past."""
        for archive, layer in list(self.model.layers.items()):
            if layer.state not in LIVE:
                continue
            shown = self.model.shown(archive)
            for path, (given, _) in shown.items():
                if given.kind == "file":
                    assert self._read(archive, path) == given.data, path
            for moment, said in layer.past:
                paths = {b"", *said, *layer.said}
                then = {path: self._read_metadata(archive, path, as_of=moment) for path in paths}
                _require_same(then, {path: said.get(path, {}) for path in paths})

    def _read(self, archive: UUID, path: bytes) -> bytes:
        """The bytes of a file; what died while a part was sealed is ended by a worker first."""
        reading = self.instance.application.archives.reading
        try:
            return b"".join(reading.open_content(self.instance.actor, archive, path).read())
        except ContentMovingError:
            self.act(acts.Work())
            return b"".join(reading.open_content(self.instance.actor, archive, path).read())

    def finish(self, require_valid: Callable[[Path], None]) -> None:
        """All work is done, all damage repaired: stores and log of events must be sound, and give all of it back."""
        for archive in [key for key, layer in self.model.layers.items() if layer.state == "closing"]:
            self.act(acts.Close(archive))
        self.act(acts.Work())
        for archive, layer in list(self.model.layers.items()):
            if layer.state == "closed" and layer.is_damaged:
                self.act(acts.Repair(archive))
            if layer.state == "closed":
                self.act(acts.Verify(archive))
        self.check_contents()
        self.rebuild()
        self.check_contents()
        self._check_events()
        for name in STORES:
            require_valid(self.place.folder / "stores" / name / "root")

    def close(self) -> None:
        self.instance.application.close()

    # What is expected of an act

    def _expect(self, act: acts.Act) -> Estate | str:
        """The model afterwards, or the code of the refusal."""
        try:
            return self.model.after(act)
        except RefusedError as refusal:
            return refusal.code

    def _accept(self, act: acts.Act, expected: Estate | str, outcome: Outcome) -> None:
        """An act that was answered: the answer is the model's."""
        if isinstance(expected, str):
            _require_same(outcome, Refused(expected))
            return
        if self._is_allowed_refusal(act, outcome):
            return
        if isinstance(act, acts.Send) and (late := self.model.refusal_of_send(act)):
            _require_same(outcome, Refused(late))
        else:
            assert isinstance(outcome, Done), f"{outcome} was not foreseen"
            self._accept_answer(act, expected, outcome.answer)
        self._settle(act, self.model, expected)
        self.model = expected
        if isinstance(outcome, Done):
            self._learn(act, outcome.answer)
        if isinstance(act, _WORKS):
            self._half_done.clear()
            self._is_clearing = False
        if isinstance(act, acts.Upkeep):
            self._unsure.clear()  # the logs were put right

    def _is_allowed_refusal(self, act: acts.Act, outcome: Outcome) -> bool:
        """A statement that an interrupted closing signed stays; an upload that nobody was told of holds its room."""
        if isinstance(act, acts.Reopen) and act.archive in self._half_done:
            return outcome == Refused("not_reopenable")
        if isinstance(act, acts.Close) and act.archive in self._lent:
            return outcome == Refused("uploads_unfinished")
        return False

    def _accept_answer(self, act: acts.Act, after: Estate, answer: Any) -> None:  # Any: what each act answers
        if isinstance(act, acts.Batch):
            taken = accepted(self.model.layers[act.archive].entries, act.items)
            _require_same([act.items[index] for index in answer["stored"]], taken)
        if isinstance(act, acts.Verify):
            was_read = answer["copies"] > 0  # none, if a withdrawal that waited was carried out before
            assert was_read or after.layers[act.archive].state == "withdrawn", "no copy was read"
            _require_same(answer["good"], was_read and not self.model.layers[act.archive].is_damaged)

    def _learn(self, act: acts.Act, answer: Any) -> None:  # Any: as above
        if isinstance(act, acts.Open | acts.Append) and answer["id"] not in self.model.layers:
            parent = act.parent if isinstance(act, acts.Append) else None
            self.model.add(answer["id"], parent, act.title, answer["keep_until"])
        if isinstance(act, acts.BeginUpload):
            self.model.uploads[answer["id"]] = Upload(act.archive, act.path, act.size)

    def _repeat(self, act: acts.Act) -> None:
        """Do what was interrupted again. What has an identity of its own is asked for under that."""
        if isinstance(act, acts.Send) and act.upload in self.model.uploads:
            upload = self.model.uploads[act.upload]
            sent = len(upload.sent) - act.offset
            self.act(acts.Send(act.upload, len(upload.sent), act.data[sent:]))
        elif not isinstance(act, acts.Send | acts.Abort | acts.BeginUpload) or (
            isinstance(act, acts.Abort) and act.upload in self.model.uploads
        ):
            self.act(act)

    # After a death

    def _find_out(self, act: acts.Act, expected: Estate | str) -> None:
        """Each archive is as before the act, or as after it."""
        after = copy.deepcopy(self.model) if isinstance(expected, str) else expected
        self._adopt(act, self.model, after)
        if isinstance(act, _FILLS):
            self._doubt(act, self.model, after)
        if isinstance(act, _WORKS):
            self._half_done |= {key for key, layer in self.model.layers.items() if layer != after.layers[key]}
        for archive in self.model.layers:
            seen = self._see(archive)
            if seen == self._foresee(after, archive):
                self.model.layers[archive] = after.layers[archive]
            else:
                try:
                    _require_same(seen, self._foresee(self.model, archive))
                except AssertionError as error:
                    error.add_note(f"or else, after it: {self._foresee(after, archive)}")
                    raise
            self.model.layers[archive].is_withdrawing = self._is_withdrawing(archive)
        self._find_out_uploads(act, after)

    def _adopt(self, act: acts.Act, *estates: Estate) -> None:
        """An archive that the act opened before it died."""
        if not isinstance(act, acts.Open | acts.Append):
            return
        parent = act.parent if isinstance(act, acts.Append) else None
        for archive in self._list_archives() - self.model.layers.keys():
            opened = self.instance.application.archives.life.get(self.instance.actor, archive).archive
            for estate in estates:
                estate.add(archive, parent, act.title, opened.keep_until)

    def _find_out_uploads(self, act: acts.Act, after: Estate) -> None:
        """An upload is where it was, or as far as the act may have brought it, or ended if the act ends it."""
        before, seen = self.model.uploads, self._see_uploads()
        for key in before.keys() - seen.keys():
            assert key not in after.uploads
            del before[key]
        for key, offset in seen.items():
            if key not in before:
                assert isinstance(act, acts.BeginUpload)
                before[key] = Upload(act.archive, act.path, act.size)
            if isinstance(act, acts.Send) and key == act.upload:
                before[key].sent = (before[key].sent + act.data)[: max(offset, len(before[key].sent))]
            assert offset == len(before[key].sent)
        if isinstance(act, acts.BeginUpload):
            self._lent.add(act.archive)

    def _is_withdrawing(self, archive: UUID) -> bool:
        application = self.instance.application
        with application.db.begin() as tx:
            found = application.jobs.find_for_thing(tx, archive, kind=WITHDRAW_JOB)
        return any(not job.state.is_final for job in found)

    # What nobody was promised, and a rebuild may show all the same

    def _doubt(self, act: acts.Act, before: Estate, after: Estate) -> None:
        """The logs of staged parts may know of an interrupted change what the database does not, and the reverse.

        They also know of what would have been refused.
        """
        for target, item in _offered(act, before):
            known = before.layers[target].entries.get(item.path)
            self._unsure.setdefault((target, item.path), set()).update({item, known})
        for archive, layer in before.layers.items():
            new = after.layers[archive].entries
            for path in layer.entries.keys() | new.keys():
                if layer.entries.get(path) != new.get(path):
                    self._unsure.setdefault((archive, path), set()).update({layer.entries.get(path), new.get(path)})

    def _settle(self, act: acts.Act, before: Estate, after: Estate) -> None:
        """What an acknowledged act has put at a path is what a rebuild shows."""
        offered = {(archive, item.path): item for archive, item in _offered(act, before)}
        for archive, path in list(self._unsure):
            old, new = before.layers[archive], after.layers[archive]
            found = new.entries.get(path)
            is_put = found is not None and found == offered.get((archive, path))
            if is_put or old.entries.get(path) != found or new.state not in ("open", "closing"):
                del self._unsure[archive, path]

    def _find_out_what_returned(self) -> None:
        """Of what is unsure, the rebuilt database shows one or the other."""
        for archive, layer in self.model.layers.items():
            paths = [path for key, path in self._unsure if key == archive]
            seen, choices = (
                self._see(archive),
                [self._unsure[archive, path] | {layer.entries.get(path)} for path in paths],
            )
            for chosen in itertools.product(*choices):
                entries = {**layer.entries, **dict(zip(paths, chosen, strict=True))}
                layer.entries = {path: given for path, given in entries.items() if given is not None}
                if seen == self._foresee(self.model, archive):
                    break
        self._unsure.clear()

    def _list_contradictions(self) -> set[str]:
        """What an earlier rebuild brought back that cannot be beside each other: every rebuild tells of it again."""
        advice = "is a file and a folder; remove the one that is wrong"
        return {
            f"archive {short_form(archive)}: {display_path(path)!r} {advice}"
            for archive, layer in self.model.layers.items()
            for path, given in layer.entries.items()
            if given.kind in FOLDERLESS and any(path in ancestors(other) for other in layer.entries)
        }

    # What is seen, and what should be

    def _foresee(self, estate: Estate, archive: UUID) -> Seen:
        layer = estate.layers[archive]
        if layer.state not in LIVE:
            return Seen(layer.state, layer.title, layer.keep_until)
        shown = estate.shown(archive)
        tree = {path: (given.kind, _mark(given), owner) for path, (given, owner) in shown.items()}
        said = {path: to_text(said) for path, said in layer.said.items() if said and path in {b"", *shown}}
        top = tuple(sorted({path.split(b"/")[0] for path in shown}))
        return Seen(layer.state, layer.title, layer.keep_until, tree, top, said, tuple(layer.history))

    def _see(self, archive: UUID) -> Seen:
        actor, archives = self.instance.actor, self.instance.application.archives
        one = archives.life.get(actor, archive).archive
        record = Seen(one.state.value, one.description.title, one.keep_until)
        if record.state not in LIVE:
            return record
        listed = archives.reading.list_entries(actor, archive, recursive=True, limit=10_000).items
        tree = {
            entry.path: (entry.kind.value, entry.digests.get("sha512") or (entry.target or b"").hex(), entry.archive_id)
            for entry in listed
        }
        described = [entry.path for entry in listed if entry.metadata_digest]
        said = {path: self._read_metadata(archive, path) for path in (b"", *described)}
        top = tuple(sorted(entry.path for entry in archives.reading.list_entries(actor, archive).items))
        history = archives.describing.metadata_history(actor, archive, limit=1000)
        return replace(
            record,
            tree=tree,
            top=top,
            said={path: to_text(document) for path, document in said.items() if document},
            history=tuple(change.path for change in history),
        )

    def _read_metadata(self, archive: UUID, path: bytes, **options: Any) -> Json:  # Any: of the use case
        describing = self.instance.application.archives.describing
        document: Json = json.loads(describing.read_metadata(self.instance.actor, archive, path, **options).value)
        return document

    def _remember(self, archive: UUID) -> None:
        """Keep what is said at this moment, to be asked for later."""
        layer = self.model.layers[archive]
        if not layer.past or layer.past[-1][1] != layer.said:
            layer.past.append((self.instance.clock.now(), copy.deepcopy(layer.said)))

    def _list_archives(self) -> set[UUID]:
        listed = self.instance.application.archives.life.list_archives(self.instance.actor, limit=200)
        return {view.archive.id for view in listed.items}

    def _see_uploads(self) -> dict[UUID, int]:
        filling = self.instance.application.archives.filling
        return {
            view.id: view.offset
            for archive in self.model.layers
            for view in filling.list_uploads(self.instance.actor, archive)
        }

    def _find_copied_files(self, archive: UUID) -> Iterator[Path]:
        root = self.place.folder / "stores" / STORES[1] / "root"
        for part in self.instance.application.archives.life.get(self.instance.actor, archive).parts:
            for folder in root.rglob(object_uri(part.id).replace(":", "%3a")):
                yield from (path for path in (folder / "v1/content/data").rglob("*") if path.is_file())

    def _check_events(self) -> None:
        events = self.instance.application.events
        events.sequence_pending()
        with self.instance.application.db.begin() as tx:
            assert verify_chain(events.read(tx, after=0, limit=100_000)) is None


def _comparable(lost: Database) -> Mapping[str, tuple[str, ...]]:
    """The derived tables. A staged part that never held anything is in no store, and those after it move up by one."""
    entries = select(files.c.path).where(files.c.archive_id == parts.c.archive_id, files.c.part == parts.c.number)
    with lost.begin() as tx:
        empty = tx.execute(select(parts.c.id).where(parts.c.sealed_at.is_(None), ~entries.exists())).first()
    if empty is None:
        return DERIVED
    numbered = {"files": ("added_at", "part"), "superseded": ("at", "part")}
    return {name: numbered.get(name, left_out) for name, left_out in DERIVED.items() if name != "parts"}


def _offered(act: acts.Act, before: Estate) -> list[tuple[UUID, Given]]:
    """What the act would put where, whether or not that is taken; the same content again is noted again, too."""
    if isinstance(act, acts.Put):
        return [(act.archive, act.given)]
    if isinstance(act, acts.Batch):
        return [(act.archive, item) for item in act.items]
    if isinstance(act, acts.Send):
        upload = before.uploads[act.upload]
        sent = upload.sent + act.data
        return [(upload.archive, Given(upload.path, "file", sent))] if len(sent) == upload.size else []
    return []


def _mark(given: Given) -> str:
    if given.kind == "file":
        return digest_bytes(given.data, ("sha512",))["sha512"]
    return given.data.hex() if given.kind == "symlink" else ""


def _require_same(found: object, foreseen: object) -> None:
    if found != foreseen:
        raise AssertionError(f"found    {found}\nforeseen {foreseen}")
