"""Whether a process can work is asked by anybody, and looked up once a second at most."""

from __future__ import annotations

from perdure.app.composition import remember


def test_an_answer_is_remembered_for_a_while() -> None:
    clock = [0.0]
    asked: list[float] = []

    def ask() -> dict[str, str | None]:
        asked.append(clock[0])
        return {"database": str(clock[0])}

    answer = remember(ask, seconds=1, now=lambda: clock[0])
    answers = []
    for moment in (0.0, 0.9, 1.0, 5.0):
        clock[0] = moment
        answers.append(answer()["database"])
    assert answers == ["0.0", "0.0", "1.0", "5.0"]
    assert asked == [0.0, 1.0, 5.0]
