"""Creating requests that may come twice: what was answered the first time is kept and answered again."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import timedelta
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, and_, delete, select, update
from sqlalchemy.dialects.postgresql import insert

from perdure.archives.documents import JsonObject
from perdure.archives.errors import IdempotencyKeyReusedError, RequestUnderWayError
from perdure.archives.records import Context
from perdure.archives.tables import idempotency_keys
from perdure.formats.canonical import canonical_json

_STALE = timedelta(minutes=1)  # no creating request takes longer: whoever began it is gone
_UNANSWERED: JsonObject = {}


class Repeats:
    """Keeps one answer for each identity and key; the periodic job that forgets those of archives forgets these."""

    def __init__(self, context: Context) -> None:
        self._ctx = context

    def begin(self, identity_id: UUID, key: str, request: Mapping[str, object]) -> JsonObject | None:
        """The answer that this very request had before; None makes the caller the one to carry it out.

        Raises IdempotencyKeyReusedError when the key came with another request, RequestUnderWayError while a twin of
        this one is carried out.
        """
        digest = hashlib.sha256(canonical_json(dict(request))).hexdigest()
        now = self._ctx.clock.now()
        row = {"identity_id": identity_id, "key": key, "request_digest": digest, "answer": _UNANSWERED, "at": now}
        with self._ctx.db.begin() as tx:
            claimed = insert(idempotency_keys).values(row).on_conflict_do_nothing().returning(idempotency_keys.c.key)
            if tx.execute(claimed).first() is not None:
                return None
            return self._recall(tx, identity_id, key, digest)

    def keep(self, identity_id: UUID, key: str, answer: JsonObject) -> None:
        """Keep the answer of a request that `begin` let through."""
        with self._ctx.db.begin() as tx:
            tx.execute(update(idempotency_keys).where(_is(identity_id, key)).values(answer=answer))

    def give_up(self, identity_id: UUID, key: str) -> None:
        """Let a request that failed be carried out when it comes again."""
        with self._ctx.db.begin() as tx:
            tx.execute(delete(idempotency_keys).where(_is(identity_id, key), idempotency_keys.c.answer == _UNANSWERED))

    def _recall(self, tx: Connection, identity_id: UUID, key: str, digest: str) -> JsonObject | None:
        row = tx.execute(select(idempotency_keys).where(_is(identity_id, key)).with_for_update()).one_or_none()
        if row is None:
            raise RequestUnderWayError("The same request failed at this moment.")
        if row.request_digest != digest:
            raise IdempotencyKeyReusedError(f"The key {key[:100]!r} was sent with another request before.")
        answer: JsonObject = row.answer
        if answer != _UNANSWERED:
            return answer
        if row.at > self._ctx.clock.now() - _STALE:
            raise RequestUnderWayError("The same request came before and is still being carried out.")
        tx.execute(update(idempotency_keys).where(_is(identity_id, key)).values(at=self._ctx.clock.now()))
        return None


def _is(identity_id: UUID, key: str) -> ColumnElement[bool]:
    return and_(idempotency_keys.c.identity_id == identity_id, idempotency_keys.c.key == key)
