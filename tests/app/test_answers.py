"""The head of an answer goes out with what follows at once, and waits for nothing that does not."""

from __future__ import annotations

import asyncio

import pytest

from perdure.app.wire import _LARGE_PIECE, _Together


class Wire(asyncio.Transport):
    """Notes what is written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[bytes] = []
        self.is_closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.is_closed
        self.pieces.append(bytes(data))

    def close(self) -> None:
        self.is_closed = True

    def is_closing(self) -> bool:
        return self.is_closed


@pytest.mark.parametrize(
    ("pieces", "written"),
    [
        ([b"head", b"body"], [b"headbody"]),
        ([b"head", b"body", b"more"], [b"headbody", b"more"]),
        ([b"head", b"x" * _LARGE_PIECE], [b"head", b"x" * _LARGE_PIECE]),
        ([b"head", b""], [b"head"]),
        ([b"head"], [b"head"]),
    ],
    ids=["one", "more", "large", "empty", "head"],
)
@pytest.mark.parametrize("is_ended", [True, False], ids=["ended", "kept"])
def test_head_and_body_are_one_piece(pieces: list[bytes], written: list[bytes], is_ended: bool) -> None:
    async def answer() -> Wire:
        wire = Wire()
        together = _Together(wire, asyncio.get_running_loop())
        for piece in pieces:
            together.write(piece)
        if is_ended:
            together.close()
        await asyncio.sleep(0)
        return wire

    wire = asyncio.run(answer())
    assert (wire.pieces, wire.is_closed) == (written, is_ended)


def test_a_head_whose_body_comes_later_waits_for_one_turn_of_the_loop_only() -> None:
    async def answer() -> list[list[bytes]]:
        wire, seen = Wire(), []
        together = _Together(wire, asyncio.get_running_loop())
        for piece in (b"head", b"first", b"second"):
            together.write(piece)
            await asyncio.sleep(0)
            seen.append(list(wire.pieces))
        return seen

    assert asyncio.run(answer()) == [[b"head"], [b"head", b"first"], [b"head", b"first", b"second"]]
