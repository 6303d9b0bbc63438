"""A process that a crash point ends: puts a file, or closes the archive. Run by test_crashes."""

from __future__ import annotations

import sys
from pathlib import Path
from uuid import UUID

from perdure.db import Database
from perdure.jobs import run_pending

from .workshop import make_workshop

LARGE = b"large" * 500_000


def main(url: str, folder: str, archive: str, act: str) -> None:
    shop = make_workshop(Database(url), Path(folder), is_new=False)
    if act == "put":
        receiver = shop.filling.begin_file(shop.ada, UUID(archive), b"b", len(LARGE))
        receiver.write(LARGE)
        receiver.finish()
    else:
        shop.closing.close(shop.ada, UUID(archive))
        run_pending(shop.ctx.jobs)
    sys.stdout.write("acknowledged")


if __name__ == "__main__":
    main(*sys.argv[1:])
