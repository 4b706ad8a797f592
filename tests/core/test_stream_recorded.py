"""What a real llama-server streamed, asked directly and asked as the relay asks: the client must see no difference.

`python -m tests.shell.record_streams PORT` records the cases of tests/cases/streams/llamacpp anew.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gonogo.engines.llamacpp_stream import LlamaCppTranscript
from gonogo.engines.stream import Asked, Continuation, Finished
from gonogo.gateway.relay.sse import Events, event_of, json_of

FOLDER = Path(__file__).parents[1] / "cases" / "streams" / "llamacpp"
FILES = sorted(FOLDER.glob("*.json"))
TIMES = ("_ms", "_per_second")


def settled(event: dict[str, Any]) -> dict[str, Any]:
    """Without what differs from one request to the next: its name, and what depends on time and cache."""
    event = {key: value for key, value in event.items() if key not in ("id", "created")}
    if "timings" in event:
        event["timings"] = sorted(event["timings"])
    if event.get("usage"):
        event["usage"] = {key: one for key, one in event["usage"].items() if key != "prompt_tokens_details"}
    return event


def lines(content: list[str]) -> list[dict[str, Any]]:
    events = Events().feed("".join(f"{line}\n\n" for line in content).encode())
    return [json_of(event) for event in events if not event.done]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_client_sees_what_the_engine_would_have_said_directly(path: Path) -> None:
    case = json.loads(path.read_text(encoding="utf-8"))
    transcript = LlamaCppTranscript(Asked(path=case["path"], body=case["body"]))
    transcript.opening()
    told = [one for event in lines(case["asked"]) for one in transcript.event(event)]
    direct = lines(case["direct"])
    by_choice = _by_choice if case["body"].get("n", 1) > 1 else list  # choices are told in no fixed order
    assert by_choice([settled(one) for one in told]) == by_choice([settled(one) for one in direct])
    assert transcript.finished
    assert [list(one) for one in told] == [list(one) for one in direct] or by_choice is _by_choice, (
        "the order of fields"
    )


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_counts_and_ids_are_known_while_the_answer_runs(path: Path) -> None:
    case = json.loads(path.read_text(encoding="utf-8"))
    transcript = LlamaCppTranscript(Asked(path=case["path"], body=case["body"]))
    transcript.opening()
    events = lines(case["asked"])
    for event in events:
        transcript.event(event)
    last = next(event for event in reversed(events) if "timings" in event)["timings"]
    if case["body"].get("n", 1) == 1:
        assert transcript.tokens == last["predicted_n"]
        assert transcript.prompt_tokens == last["prompt_n"] + last["cache_n"]
    if path.stem in ("plain", "until-the-end", "completion", "sampled", "probabilities-asked"):
        assert transcript.ids, "each piece is a token whose id is told"


def test_what_is_written_again_is_written_as_the_engine_wrote_it() -> None:
    for path in FILES:
        for line in json.loads(path.read_text(encoding="utf-8"))["direct"]:
            if line != "data: [DONE]":
                (event,) = Events().feed(f"{line}\n\n".encode())
                assert event_of(json_of(event)) == event.raw


def _by_choice(events: list[dict[str, Any]]) -> list[Any]:
    return sorted((event["choices"][0]["index"] if event["choices"] else 99, json.dumps(event)) for event in events)


CUT_FOLDER = FOLDER.parent / "llamacpp_cut"
CUT = [(path, cut) for path in sorted(CUT_FOLDER.glob("*.json")) for cut in json.loads(path.read_text())["cuts"]]


@pytest.mark.parametrize(("path", "cut"), CUT, ids=[f"{path.stem}-{cut}" for path, cut in CUT])
def test_an_answer_lost_behind_any_piece_goes_on_as_the_undisturbed_one(path: Path, cut: int) -> None:
    """Greedy: what was held back comes once, a stop string across the seam stops there and is not shown."""
    case = json.loads(path.read_text(encoding="utf-8"))
    rest = case["rest"][str(cut)]
    transcript = LlamaCppTranscript(Asked(path=case["path"], body=case["body"]))
    transcript.opening()
    told = [one for event in lines(case["asked"][:cut]) for one in transcript.event(event)]
    going = _resumed(transcript, rest["questions"])
    if isinstance(going, Finished):
        assert rest == {"questions": rest["questions"], "ended": True}
        told += going.events
    else:
        assert isinstance(going, Continuation)
        assert (going.path, going.how, going.body) == (rest["path"], rest["how"], rest["body"])
        told += [one for event in lines(rest["lines"]) for one in transcript.event(event)]
    direct = lines(case["direct"])
    assert _said(told) == _said(direct)
    assert [event["usage"]["completion_tokens"] for event in told if event.get("usage")] == [
        event["usage"]["completion_tokens"] for event in direct if event.get("usage")
    ]
    assert transcript.finished


def test_the_ids_of_an_answer_that_a_stop_string_ended_go_as_far_as_the_token_in_which_it_begins() -> None:
    """The text ends with ` `, of the token ` and`: who holds ids against text must know."""
    case = json.loads((CUT_FOLDER / "stop-behind-the-seam.json").read_text(encoding="utf-8"))
    transcript = LlamaCppTranscript(Asked(path=case["path"], body=case["body"]))
    transcript.opening()
    for event in lines(case["asked"][:4]):
        transcript.event(event)
    _resumed(transcript, case["rest"]["4"]["questions"])
    for event in lines(case["rest"]["4"]["lines"]):
        transcript.event(event)
    last = json.loads(case["asked"][7].removeprefix("data: "))["choices"][0]
    assert last["delta"] == {"content": " "} and transcript.text.endswith(", ")
    assert transcript.ids[-1] == last["logprobs"]["content"][0]["id"]


def _resumed(transcript: LlamaCppTranscript, answers: list[Any]) -> Any:
    """Every question must be the one that was asked when its answer was recorded."""
    resume, left = transcript.resume(), iter(answers)
    try:
        question = next(resume)
        while True:
            path, body, answer = next(left)
            assert (question.path, question.body) == (path, body)
            question = resume.send(answer)
    except StopIteration as end:
        return end.value


def _said(events: list[dict[str, Any]]) -> tuple[str, list[str]]:
    choices = [choice for event in events for choice in event["choices"]]
    text = "".join(choice["delta"].get("content") or "" for choice in choices)
    return text, [choice["finish_reason"] for choice in choices if choice["finish_reason"]]
