"""An answer that is cut off anywhere, once or more often, is the undisturbed one for the client; on paper engines."""

from __future__ import annotations

from typing import Any, Mapping, Protocol, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gonogo.engines.llamacpp_stream import LlamaCppTranscript
from gonogo.engines.stream import Asked, Continuation, Finished, NotContinued, Question, Transcript
from gonogo.engines.vllm_stream import VllmTranscript
from tests.core.paper_engines import (
    END,
    VOCABULARY,
    Json,
    PaperLlama,
    PaperModel,
    PaperVllm,
    bytes_of,
    copied,
    usage,
    vllm_usage,
)

CHAT = "/v1/chat/completions"
ASCII = [100 + ord(letter) for letter in "stop END.ab\n"]


class Engine(Protocol):
    def answer(self, question: Question) -> Json: ...
    def stream(self, path: str, body: Mapping[str, Any]) -> Any: ...


def body(**more: Any) -> Json:
    return {"messages": [{"role": "user", "content": "hi"}], "stream": True, **more}


def relayed(engine: Engine, transcript: Transcript, cuts: Sequence[int]) -> list[Json]:
    """What the client gets when the first attempt is cut off after `cuts[0]` events, the next after `cuts[1]`, …"""
    got: list[Json] = []
    going: Any = Continuation(path=CHAT, body=transcript.opening(), how="first")
    for cut in (*cuts, 10**6):
        if not isinstance(going, Continuation):
            break
        whole = True
        for number, event in enumerate(engine.stream(going.path, going.body)):
            if number >= cut:
                whole = False
                break
            got += [copied(one) for one in transcript.event(copied(event))]
            if transcript.complete:
                return got
        if whole and transcript.finished and cut == 10**6:
            return got
        going = resumed(engine, transcript)
    assert isinstance(going, Finished), going
    return got + list(going.events)


def resumed(engine: Engine, transcript: Transcript) -> Any:
    resume = transcript.resume()
    try:
        question = next(resume)
        while True:
            question = resume.send(engine.answer(question))
    except StopIteration as end:
        return end.value


def text_of(events: Sequence[Json]) -> str:
    return "".join(choice["delta"].get("content") or "" for event in events for choice in event["choices"])


def ends_of(events: Sequence[Json]) -> list[str]:
    return [choice["finish_reason"] for event in events for choice in event["choices"] if choice["finish_reason"]]


def usages_of(events: Sequence[Json]) -> list[Json]:
    return [event["usage"] for event in events if event.get("usage")]


WORDS = [(one,) for one in (*VOCABULARY, *ASCII) if 400 <= one < 440 or one in ASCII]
DIVIDED = [(440, 100 + 0x98, 100 + 0x80), (441, 100 + 0x8C), (100 + 0xE5, 442), (100 + 0xC3, 100 + 0xA9)]
"""Characters of several tokens."""
words = st.lists(st.sampled_from(WORDS + DIVIDED), min_size=1, max_size=20)
scripts = st.builds(
    lambda some, ends: tuple(one for word in some for one in word) + (END,) * ends, words, st.booleans()
)
stops = st.lists(st.sampled_from(["stop", "END", "\n\n", "op. ", "好世", "one two"]), max_size=3, unique=True)
limits = st.one_of(st.none(), st.integers(1, 35))
cuts = st.lists(st.integers(0, 40), min_size=1, max_size=3)


@settings(max_examples=400, deadline=None)
@given(script=scripts, stop=stops, limit=limits, cut=cuts)
def test_llamacpp_a_cut_off_answer_is_the_undisturbed_one(
    script: tuple[int, ...], stop: list[str], limit: int | None, cut: list[int]
) -> None:
    asked = body(stop=stop, max_tokens=limit, stream_options={"include_usage": True})
    engine = PaperLlama(PaperModel(script))
    engine.loosely = True  # ids between two told ones may be others of the same text; the next test insists
    direct = list(engine.stream(CHAT, asked))
    got = relayed(engine, LlamaCppTranscript(Asked(path=CHAT, body=asked)), cut)
    assert text_of(got) == text_of(direct)
    assert ends_of(got) == ends_of(direct)
    assert len({event["id"] for event in got}) == 1
    assert len(usages_of(got)) == 1 or not text_of(got)
    for told in usages_of(got):
        # Cut off before the very last event, nobody has told of tokens that were held back: fewer, and never more.
        assert told["completion_tokens"] <= direct[-1]["usage"]["completion_tokens"]
        assert told["prompt_tokens"] == 3 and told["total_tokens"] == 3 + told["completion_tokens"]


@settings(max_examples=200, deadline=None)
@given(ids=st.lists(st.sampled_from(ASCII), min_size=2, max_size=20), cut=cuts, limit=limits)
def test_llamacpp_where_each_piece_is_a_token_the_very_ids_and_the_usage_are_those_of_the_undisturbed_answer(
    ids: list[int], cut: list[int], limit: int | None
) -> None:
    asked = body(max_tokens=limit, stream_options={"include_usage": True})
    engine = PaperLlama(PaperModel((*ids, END)))
    transcript = LlamaCppTranscript(Asked(path=CHAT, body=asked))
    got = relayed(engine, transcript, cut)
    assert text_of(got) == text_of(list(engine.stream(CHAT, asked)))
    count = min(len(ids) + 1, limit or 99)
    assert usages_of(got) == [usage(count)]
    assert bytes_of(transcript.ids).decode() == text_of(got)


@settings(max_examples=400, deadline=None)
@given(script=scripts, stop=stops, limit=limits, cut=cuts, per_step=st.integers(1, 3))
def test_vllm_a_cut_off_answer_is_the_undisturbed_one_from_the_very_ids(
    script: tuple[int, ...], stop: list[str], limit: int | None, cut: list[int], per_step: int
) -> None:
    asked = body(stop=stop, max_tokens=limit, stream_options={"include_usage": True})
    engine = PaperVllm(PaperModel(script), per_step)
    direct = list(engine.stream(CHAT, asked))
    got = relayed(engine, VllmTranscript(Asked(path=CHAT, body=asked)), cut)
    assert text_of(got) == text_of(direct)
    assert ends_of(got) == ends_of(direct)
    assert len({event["id"] for event in got}) == 1
    assert len(usages_of(got)) == 1


def test_llamacpp_a_stop_string_that_ends_with_half_a_character_of_its_own_is_the_end() -> None:
    """`op` was held back, and sent as `o` with the last byte of the stop string; nothing says that this was the end."""
    first, rest = "好".encode()[0], 442
    script = (400, 404, 100 + first, rest, 400)
    asked = body(stop=["p好"], stream_options={"include_usage": True})
    engine = PaperLlama(PaperModel(script))
    got = relayed(engine, LlamaCppTranscript(Asked(path=CHAT, body=asked)), [3])
    assert text_of(got) == text_of(list(engine.stream(CHAT, asked))) == "oneo"
    assert ends_of(got) == ["stop"] and usages_of(got) == [usage(4)]


def test_vllm_the_usage_counts_the_tokens_of_all_attempts() -> None:
    asked = body(max_tokens=6, stream_options={"include_usage": True})
    engine = PaperVllm(PaperModel(tuple(ASCII)))
    got = relayed(engine, VllmTranscript(Asked(path=CHAT, body=asked)), [4, 2])
    assert usages_of(got) == [vllm_usage(6)]


def test_vllm_asks_for_what_is_left_and_says_where_there_is_no_limit() -> None:
    """Without `max_tokens` its completions stop after 16."""
    asked = body(temperature=0.5, seed=4, min_tokens=3)
    transcript = VllmTranscript(Asked(path=CHAT, body=asked))
    engine = PaperVllm(PaperModel(tuple(ASCII)))
    for _, event in zip(range(3), engine.stream(CHAT, transcript.opening()), strict=False):
        transcript.event(event)
    going = resumed(engine, transcript)
    assert going.path == "/v1/completions"
    assert going.body["prompt"] == [7, 8, 9, *ASCII[:2]]
    kept = {key: going.body[key] for key in ("max_tokens", "temperature", "seed", "min_tokens")}
    assert kept == {"max_tokens": None, "temperature": 0.5, "seed": 4, "min_tokens": 1}


def test_llamacpp_keeps_sampling_and_seed_and_asks_for_what_is_left() -> None:
    asked = body(temperature=0.7, seed=5, top_k=3, stop=["x"], max_completion_tokens=9, user="me")
    transcript = LlamaCppTranscript(Asked(path=CHAT, body=asked))
    engine = PaperLlama(PaperModel(tuple(ASCII)))
    for _, event in zip(range(5), engine.stream(CHAT, {**transcript.opening(), "max_tokens": 9}), strict=False):
        transcript.event(event)
    going = resumed(engine, transcript)
    assert going.path == "/completion" and going.how == "ids"
    assert going.body["prompt"] == [7, 8, 9, *ASCII[:4]]
    kept = {key: going.body[key] for key in ("n_predict", "temperature", "seed", "top_k", "stop")}
    assert kept == {"n_predict": 5, "temperature": 0.7, "seed": 5, "top_k": 3, "stop": ["x"]}
    assert "messages" not in going.body and "user" not in going.body


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"n": 2}, "several_choices"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"response_format": {"type": "json_object"}}, "structured_output"),
        ({"grammar": "root ::= x"}, "structured_output"),
    ],
)
@pytest.mark.parametrize("family", [LlamaCppTranscript, VllmTranscript])
def test_what_has_a_state_beside_its_text_is_not_continued(family: Any, more: Json, reason: str) -> None:
    transcript = family(Asked(path=CHAT, body=body(**more)))
    transcript.event({"id": "a", "choices": [{"index": 0, "delta": {"content": "x"}, "finish_reason": None}]})
    assert resumed(PaperLlama(PaperModel((400,))), transcript) == NotContinued(reason=reason)


def test_before_anything_was_given_every_request_begins_again_and_keeps_its_name() -> None:
    asked = body(n=2)
    transcript = LlamaCppTranscript(Asked(path=CHAT, body=asked, continuable=False))
    engine = PaperLlama(PaperModel((400, 401, END)))
    first = next(iter(engine.stream(CHAT, transcript.opening())))
    (told,) = transcript.event(copied(first))
    going = resumed(engine, transcript)
    assert going.how == "again" and going.body["n"] == 2
    again = [one for event in engine.stream(CHAT, going.body) for one in transcript.event(copied(event))]
    assert {event["id"] for event in again} == {told["id"]}
    assert not [event for event in again if event["choices"] and "role" in event["choices"][0]["delta"]]


@pytest.mark.parametrize("penalty", ["frequency_penalty", "presence_penalty"])
def test_penalties_that_count_the_answer_alone_are_not_continued_on_vllm_and_are_on_llamacpp(penalty: str) -> None:
    """vLLM would find the answer so far in the prompt, where these penalties do not look."""
    asked = Asked(path=CHAT, body=body(**{penalty: 0.5}))
    piece = {
        "id": "a",
        "choices": [{"index": 0, "delta": {"content": "one"}, "finish_reason": None, "token_ids": [400]}],
    }
    vllm, llama = VllmTranscript(asked), LlamaCppTranscript(asked)
    vllm.event({**copied(piece), "prompt_token_ids": [7, 8, 9]})
    assert resumed(PaperVllm(PaperModel((400, 401))), vllm) == NotContinued(reason="penalties")
    llama.event(copied({**piece, "timings": {"predicted_n": 1, "prompt_n": 3, "cache_n": 0}}))
    assert isinstance(resumed(PaperLlama(PaperModel((400, 401))), llama), Continuation)


def test_a_stop_string_that_spans_the_seam_ends_the_answer_on_vllm() -> None:
    """`st` was known and kept back when the replica died; the next replica sees `op` alone."""
    script = (100 + ord("a"), 100 + ord("a"), 100 + ord("a"), 100 + ord("a"), 403, 404, 400)
    asked = body(stop=["stop"])
    engine = PaperVllm(PaperModel(script))
    got = relayed(engine, VllmTranscript(Asked(path=CHAT, body=asked)), [6])
    assert text_of(got) == "aaaa" and ends_of(got) == ["stop"]
    assert got[-1]["choices"][0]["stop_reason"] == "stop"


def test_a_stop_string_that_spans_the_seam_comes_before_one_that_vllm_finds_behind_it() -> None:
    """Of three line ends the first was known before the death: the pair that stops is the first, not the second."""
    line, space = 100 + ord("\n"), 100 + ord(" ")
    script = (line, space, 400, line, space, line, space, space, line, line, line)
    asked = body(stop=["stop", "\n\n"])
    engine = PaperVllm(PaperModel(script))
    got = relayed(engine, VllmTranscript(Asked(path=CHAT, body=asked)), [4, 6])
    assert text_of(got) == text_of(list(engine.stream(CHAT, asked))) == "\n one\n \n  "


def test_another_template_or_build_is_seen_by_the_number_of_tokens_and_not_continued() -> None:
    asked = body()
    transcript = LlamaCppTranscript(Asked(path=CHAT, body=asked))
    event = {"id": "a", "choices": [{"index": 0, "delta": {"content": "one"}, "logprobs": {"content": [{"id": 400}]}}]}
    transcript.event({**event, "timings": {"predicted_n": 1, "prompt_n": 5, "cache_n": 0}})
    assert resumed(PaperLlama(PaperModel((400,))), transcript) == NotContinued(reason="prompt_not_found")


def test_ids_that_cannot_be_told_from_the_text_are_called_approximate() -> None:
    """Two tokens, of which the last is known, whose text a tokenizer would divide otherwise."""
    transcript = LlamaCppTranscript(Asked(path=CHAT, body=body()))
    choice = {"index": 0, "delta": {"content": "stop"}, "logprobs": {"content": [{"id": 404}]}, "finish_reason": None}
    transcript.event({"id": "a", "choices": [choice], "timings": {"predicted_n": 2, "prompt_n": 3, "cache_n": 0}})
    going = resumed(PaperLlama(PaperModel((403, 404, 400))), transcript)
    assert going.how == "text" and going.body["prompt"] == [7, 8, 9, 405]
