"""What the people of a soak do, each in a thread with archives of his own: everything that the main job has."""

from __future__ import annotations

import hashlib
import random
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from perdure.testing.invariants import Breach, KnownArchive, Ledger
from perdure.testing.soak_tree import Tree
from perdure_client import Client
from perdure_client.errors import ApiError, ClientError, ConnectionLostError, JobFailedError
from perdure_client.local import scan_sources
from perdure_client.progress import Progress
from perdure_client.settings import Session
from perdure_client.upload import LargeUpload

RECORD: Mapping[str, Any] = {  # Any: members of a record
    "creators": [{"name": "Ada Example"}],
    "publisher": "Example Source",
    "licence": "CC0-1.0",
}
_LARGEST = 8 << 20  # bytes of an upload
_ARCHIVES_EACH = 6  # of a person: older ones are left alone, and looked at in the end
# What a person may be told while he closes: something of his is still on its way, or he has asked already
_OF_CLOSING = frozenset({"uploads_unfinished", "archive_closing", "archive_closed"})
_ABANDONED = "its worker died"  # the sentence of a job that was killed too often, in lower case


class Person:
    """One user with a client, a random mind and a list of his archives; used by one thread."""

    def __init__(self, tree: Tree, token: str, ledger: Ledger, name: str, chance: random.Random) -> None:
        self.client = Client(Session(tree.url, token))
        self.name = name
        self.breaches: list[Breach] = []
        self.acts_done = 0
        self.acts_lost = 0
        self._tree = tree
        self._ledger = ledger
        self._chance = chance
        self._all: list[KnownArchive] = []
        self._archives: list[KnownArchive] = []
        self._closing: set[str] = set()
        self._count = 0
        self._folder = tree.folder / "people" / name
        self._folder.mkdir(parents=True, exist_ok=True)

    # The days of a person

    def live(self, may_go_on: Callable[[], bool]) -> None:
        """Do one thing after the other as long as it is allowed."""
        while may_go_on():
            act = self._choose()
            self.attempt(act)

    def attempt(self, act: Callable[[], object]) -> bool:
        """Do it; False when it is not known whether it was done. What nobody should be told is a breach."""
        try:
            act()
        except ClientError as error:
            self.acts_lost += 1
            if not _is_foreseen(error):
                name = getattr(act, "__name__", str(act))
                self.breaches.append(Breach("clean errors", f"{self.name}, {name}: {_describe(error)}"))
            return False
        self.acts_done += 1
        return True

    def _choose(self) -> Callable[[], object]:
        fillable = [known for known in self._archives if not known.is_closed and known.id not in self._closing]
        if not fillable or (len(self._archives) < 2 and self._chance.random() < 0.1):
            return self._open_or_append
        known = self._chance.choice(fillable)
        acts: list[tuple[Callable[[KnownArchive], object], int]] = [
            (self.put_one, 6),
            (self.put_batch, 4),
            (self.put_large, 3),
            (self.ingest, 2),
            (self.replace, 3),
            (self.remove, 2),
            (self.patch_metadata, 5),
            (self.describe, 2),
            (self.close, 2 if len(known.settled()) > 10 else 0),  # what nobody acknowledged may not be there
        ]
        acts_of_any: list[tuple[Callable[[KnownArchive], object], int]] = [(self.download, 5), (self.patch_metadata, 1)]
        weights = [weight for _, weight in acts]
        act = self._chance.choices([act for act, _ in acts], weights)[0]
        if self._chance.random() < 0.25:
            known = self._chance.choice(self._archives)
            act = self._chance.choices([act for act, _ in acts_of_any], [weight for _, weight in acts_of_any])[0]
        return _named(act, known)

    def _open_or_append(self) -> None:
        closed = [known for known in self._archives if known.is_closed]
        unfinished = [known for known in self._archives if known.id in self._closing and not known.is_closed]
        if unfinished:
            self.close(unfinished[0])
        elif closed and self._chance.random() < 0.6:
            self.append(self._chance.choice(closed))
        else:
            self.open()

    # The acts

    def open(self) -> KnownArchive:
        """Open an archive."""
        return self._keep(self._ledger.add(self.client.open_archive(title=f"Of {self.name}", **RECORD).id))

    def append(self, parent: KnownArchive) -> KnownArchive:
        """Open an archive that appends to a closed one."""
        return self._keep(self._ledger.add(self.client.append(parent.id, title="A child").id, parent))

    def put_one(self, known: KnownArchive, *, path: str | None = None) -> str:
        """Send one file in one stream."""
        path = path or f"single/{self._number()}.bin"
        content = self._chance.randbytes(self._chance.randrange(0, 200_000))
        with known.promising({path.encode(): _digest(content)}):
            self.client._transport.request("PUT", f"/archives/{known.id}/files/{path}", content=content, plane="data")
        return path

    def put_batch(self, known: KnownArchive) -> None:
        """Send a folder of small files."""
        self._send(known, [self._chance.randrange(0, 30_000) for _ in range(self._chance.randrange(1, 25))])

    def put_large(self, known: KnownArchive) -> None:
        """Send a file by the protocol that goes on after an interruption, whatever the client does at this size."""
        name = f"large-{self.name}-{self._number()}"
        digests = self._make(self._folder / name, [self._chance.randrange(1 << 20, _LARGEST)])
        [item] = scan_sources([str(self._folder / name)], name.encode()).items
        with known.promising({item.path: digests["0.dat"]}):
            LargeUpload(self.client._transport, known.id, item, Progress("Sent")).run()
        shutil.rmtree(self._folder / name)

    def ingest(self, known: KnownArchive) -> None:
        """Let the server read a folder; every name in it must be accounted for (I5)."""
        name = f"ingest-{self.name}-{self._number()}"
        source = self._tree.sources / name
        sizes = [self._chance.randrange(0, 50_000) for _ in range(self._chance.randrange(1, 60))]
        digests = self._make(source, sizes)
        with known.promising({f"{name}/{path}".encode(): digest for path, digest in digests.items()}):
            job = self.client.ingest(known.id, str(source), into=name)
        told = job.result or {}
        accounted = int(told.get("stored", 0)) + int(told.get("present", 0)) + int(told.get("refused", 0))
        if accounted != len(sizes) or told.get("refused"):
            self.breaches.append(Breach("I5", f"{known.id}: of {len(sizes)} files an ingest tells {told}"))
        shutil.rmtree(source)

    def replace(self, known: KnownArchive) -> None:
        """Send other bytes to a path that holds some."""
        settled = [path for path in known.settled() if path.startswith(b"single/")]
        if settled:
            self.put_one(known, path=self._chance.choice(settled).decode())

    def remove(self, known: KnownArchive) -> None:
        """Take some files out, of an appending archive also inherited ones."""
        inherited = known.parent.settled() if known.parent else []
        choices = known.settled() + [path for path in inherited if path not in known.files]
        chosen = self._chance.sample(choices, min(len(choices), self._chance.randrange(1, 4)))
        if chosen:
            with known.promising(dict.fromkeys(chosen)):
                self.client.remove(known.id, chosen)

    def patch_metadata(self, known: KnownArchive) -> None:
        """Add a member that nobody else adds."""
        name, value = f"of_{self.name}_{self._number()}", self._chance.randrange(1 << 30)
        self.client.patch_metadata(known.id, {name: value})
        known.metadata[name] = value

    def describe(self, known: KnownArchive) -> None:
        """Change the record."""
        self.client.describe(known.id, title=f"Described {self._number()}")

    def download(self, known: KnownArchive) -> None:
        """Read a file, and compare."""
        settled = known.settled()
        if settled:
            path = self._chance.choice(settled)
            found, expected = _digest(self.client.read(known.id, path)), known.files[path]
            if found not in expected and known.files[path] == expected:
                self.breaches.append(Breach("I1", f"{known.id} {path!r} was read with other bytes"))

    def close(self, known: KnownArchive) -> None:
        """Close the archive, and wait; asked again after anything, it goes on."""
        self._closing.add(known.id)
        self.client.close(known.id, discard_uploads=True)
        known.is_closed = True

    def withdraw(self, known: KnownArchive) -> None:
        """Withdraw a closed archive, and wait until its bytes are gone."""
        self._ledger.archives.pop(known.id, None)
        if self.client.archive(known.id).state == "closed":
            self.client.withdraw(known.id, "to see it go", wait=False)
        until = time.monotonic() + 60
        while not (self.client.archive(known.id).raw["tombstone"] or {}).get("removed"):
            if time.monotonic() > until:
                raise ConnectionLostError("The withdrawal has not ended in a minute.")
            time.sleep(0.1)

    def settle(self) -> None:
        """Ask again for everything of which he does not know whether it was done, as people do; raises ClientError."""
        for known in self._all:
            if known.id in self._closing and not known.is_closed:
                self.close(known)
            for path in [path for path, held in known.files.items() if len(held) > 1 and not known.is_closed]:
                self.put_one(known, path=path.decode())

    def take_breaches(self) -> list[Breach]:
        """What he was told or read that must not be, each once."""
        found, self.breaches = self.breaches, []
        return found

    # Inside

    def _keep(self, known: KnownArchive) -> KnownArchive:
        self._all.append(known)
        self._archives = self._all[-_ARCHIVES_EACH:]
        return known

    def _number(self) -> int:
        self._count += 1
        return self._count

    def _send(self, known: KnownArchive, sizes: list[int]) -> None:
        name = f"folder-{self.name}-{self._number()}"
        digests = self._make(self._folder / name, sizes)
        with known.promising({f"{name}/{path}".encode(): digest for path, digest in digests.items()}):
            report = self.client.put(known.id, self._folder / name, into=name)
            if report.refused or report.stored + report.present != len(sizes):
                raise JobFailedError(f"{len(sizes)} files were sent, and told was {report}")
        shutil.rmtree(self._folder / name)

    def _make(self, folder: Path, sizes: list[int]) -> dict[str, str]:
        """Files of these sizes; their digests by name."""
        folder.mkdir(parents=True)
        digests = {}
        for number, size in enumerate(sizes):
            content = self._chance.randbytes(size)
            (folder / f"{number}.dat").write_bytes(content)
            digests[f"{number}.dat"] = _digest(content)
        return digests


class Crowd:
    """People in threads, who can be made to rest."""

    def __init__(self, people: list[Person]) -> None:
        self.people = people
        self._gate = threading.Event()
        self._is_over = False
        self._busy = 0
        self._turn = threading.Condition()
        self._threads = [threading.Thread(target=self._live, args=(person,), name=person.name) for person in people]

    def start(self) -> None:
        self._gate.set()
        for thread in self._threads:
            thread.start()

    def rest(self, seconds: float = 300.0) -> None:
        """Let everybody end what he does, and wait for it; raises TimeoutError."""
        self._gate.clear()
        with self._turn:
            if not self._turn.wait_for(lambda: self._busy == 0, seconds):
                raise TimeoutError(f"Somebody's request has not ended for {seconds:.0f} seconds.")

    def go_on(self) -> None:
        self._gate.set()

    def end(self) -> None:
        """Let everybody end what he does and go home."""
        self._is_over = True
        self._gate.set()
        for thread in self._threads:
            thread.join(300)

    def take_breaches(self) -> list[Breach]:
        """What people were told or read that must not be, each once."""
        return [breach for person in self.people for breach in person.take_breaches()]

    def _live(self, person: Person) -> None:
        while not self._is_over:
            self._gate.wait()
            with self._turn:
                self._busy += 1
            try:
                person.live(lambda: self._gate.is_set() and not self._is_over)
            except Exception as error:  # a driver that dies unseen would make the rest look good
                person.breaches.append(Breach("driver", f"{person.name}: {error!r}"))
                time.sleep(1)
            finally:
                with self._turn:
                    self._busy -= 1
                    self._turn.notify_all()


def _named(act: Callable[[KnownArchive], object], known: KnownArchive) -> Callable[[], object]:
    def do() -> object:
        return act(known)

    do.__name__ = f"{act.__name__} {known.id}"
    return do


def _is_foreseen(error: ClientError) -> bool:
    """Whether a person may be told this while processes die around him."""
    if isinstance(error, JobFailedError):
        return _ABANDONED in error.detail.lower()
    if isinstance(error, ApiError):
        return error.is_worth_a_retry or error.code in _OF_CLOSING
    return isinstance(error, ConnectionLostError)


def _describe(error: ClientError) -> str:
    status = f" {error.status}" if isinstance(error, ApiError) else ""
    return f"{type(error).__name__}{status} {error.code}: {error.detail}"


def _digest(content: bytes) -> str:
    return hashlib.sha512(content).hexdigest()
