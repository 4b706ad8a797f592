"""Condition 3, the model as it answers: each drill breaks the engine's build under a running service."""

from __future__ import annotations

import json
import time

from tests.drills.harness import JAPAN, SERVICE, Yard, assert_only

SEA = "Write one short sentence about the sea."


def test_answers_right(yard: Yard) -> None:
    with yard.faults.broken(engine={"": "answers_something_else"}):
        assert_only(yard.live(), "answers_right", "AnswersWrong", "service/drill")
        answer = yard.ask_once(JAPAN, tokens=12)
    assert answer.status_code == 200
    assert "tokyo" not in answer.json()["choices"][0]["message"]["content"].lower()


def test_stream_in_pieces(yard: Yard) -> None:
    with yard.faults.broken(engine={"": "stream_held_back"}):
        assert_only(yard.live(), "stream_in_pieces", "StreamNotInPieces", "service/drill")
        first_s, whole_s, pieces = _streamed(yard)
    assert pieces > 5
    assert first_s > 0.9 * whole_s, "the first word comes with the last"
    first_s, whole_s, _ = _streamed(yard)
    assert first_s < 0.7 * whole_s, "and it did not before"


def test_max_tokens_honoured(yard: Yard) -> None:
    with yard.faults.broken(engine={"": "max_tokens_ignored"}):
        assert_only(yard.live(), "max_tokens_honoured", "MaxTokensIgnored", "service/drill")
        answer = yard.ask_once(SEA, tokens=3)
    assert answer.status_code == 200
    assert answer.json()["usage"]["completion_tokens"] > 3


def test_stop_honoured(yard: Yard) -> None:
    with yard.faults.broken(engine={"": "stop_ignored"}):
        assert_only(yard.live(), "stop_honoured", "StopIgnored", "service/drill")
        answer = yard.ask_once(SEA, tokens=24, stop=["sea"])
    assert answer.status_code == 200
    assert "sea" in answer.json()["choices"][0]["message"]["content"]


def test_no_repetition(yard: Yard) -> None:
    with yard.faults.broken(engine={"": "repeats_itself"}):
        assert_only(yard.live(), "no_repetition", "RepetitionSeen", "service/drill")
        answer = yard.ask_once(SEA, tokens=24)
    text = answer.json()["choices"][0]["message"]["content"]
    assert answer.status_code == 200
    assert text.count(text[:20]) >= 12


def test_model_list_right(yard: Yard) -> None:
    with yard.faults.broken(policy="list_renamed"):
        assert_only(yard.live(), "model_list_right", "ModelListWrong", "service/drill")
        with yard.client() as client:
            listed = client.get("/v1/models")
    assert listed.status_code == 200
    assert [one["id"] for one in listed.json()["data"]] != ["drill"]


def _streamed(yard: Yard) -> tuple[float, float, int]:
    """Seconds to the first piece and to the last, and how many there were."""
    question = {"model": SERVICE, "messages": [{"role": "user", "content": SEA}], "max_tokens": 24, "stream": True}
    began, arrivals = time.monotonic(), []
    with yard.client() as client, client.stream("POST", "/v1/chat/completions", json=question) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: {") and json.loads(line[6:])["choices"][0]["delta"].get("content"):
                arrivals.append(time.monotonic() - began)
    return arrivals[0], arrivals[-1], len(arrivals)
