"""A stream is called held back only when it came so each time: a prober that looks late sees one burst, once."""

from __future__ import annotations

from typing import Any, Mapping, cast

import pytest

from gonogo.control.probe import STREAMS_ASKED, _Asker


class Streams:
    """Answers of 18 pieces, spread over so many milliseconds each."""

    def __init__(self, *spreads_ms: float) -> None:
        self.left = list(spreads_ms)

    def _streamed(self) -> Mapping[str, Any]:
        return {"pieces": 18, "spread_ms": self.left.pop(0)}


@pytest.mark.parametrize(
    ("spreads_ms", "told_ms", "left"),
    [((76.0, 4.0, 4.0), 76.0, 2), ((4.0, 76.0, 4.0), 76.0, 1), ((4.0, 4.0, 3.0), 3.0, 0)],
    ids=["at once", "the second time", "never"],
)
def test_a_burst_is_asked_about_again(spreads_ms: tuple[float, ...], told_ms: float, left: int) -> None:
    streams = Streams(*spreads_ms)
    assert _Asker.stream(cast(_Asker, streams)) == {"pieces": 18, "spread_ms": told_ms}
    assert len(streams.left) == left
    assert len(spreads_ms) == STREAMS_ASKED
