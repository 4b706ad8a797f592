"""The scripted engine keeps what clients rely on: a test that leans on it must not be fooled by it."""

from __future__ import annotations

import base64
import json
from typing import Any

import httpx

from tests.shell.scripted_engine import Answer, Asked, ScriptedEngine

PICTURE = b"\x89PNG\r\n\x1a\n not really"


def question(**more: Any) -> dict[str, Any]:
    url = f"data:image/png;base64,{base64.b64encode(PICTURE).decode()}"
    parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "Tap it."}]
    messages = [{"role": "system", "content": "You tap."}, {"role": "user", "content": parts}]
    return {"model": "m", "messages": messages, **more}


def script(asked: Asked) -> Answer:
    return Answer(text=f"one two {len(asked.pictures)} {asked.prompt}", reasoning="hm hm")


def test_a_whole_answer_has_reasoning_text_and_counts() -> None:
    with ScriptedEngine(script, model="m") as engine, httpx.Client(base_url=f"http://127.0.0.1:{engine.port}") as ask:
        body = ask.post("/v1/chat/completions", json=question()).json()
        seen = engine.asked[0]
    assert body["choices"][0] == {
        "index": 0,
        "message": {"role": "assistant", "content": "one two 1 Tap it.", "reasoning_content": "hm hm"},
        "finish_reason": "stop",
    }
    assert (body["usage"]["completion_tokens"], seen.system, seen.pictures) == (7, "You tap.", (PICTURE,))


def test_max_tokens_cuts_and_stop_ends() -> None:
    with ScriptedEngine(script, model="m") as engine, httpx.Client(base_url=f"http://127.0.0.1:{engine.port}") as ask:
        cut = ask.post("/v1/chat/completions", json=question(max_tokens=3)).json()["choices"][0]
        ended = ask.post("/v1/chat/completions", json=question(stop=["two"])).json()["choices"][0]
    assert (cut["message"]["content"], cut["finish_reason"]) == ("one", "length")
    assert (ended["message"]["content"], ended["finish_reason"]) == ("one ", "stop")


def test_a_stream_has_the_same_words_and_ends_with_done() -> None:
    with ScriptedEngine(script, model="m") as engine, httpx.Client(base_url=f"http://127.0.0.1:{engine.port}") as ask:
        text = ask.post("/v1/chat/completions", json=question(stream=True)).text
    events = [line.removeprefix("data: ") for line in text.splitlines() if line]
    choices = [json.loads(event)["choices"][0] for event in events[:-1]]
    assert events[-1] == "[DONE]"
    assert "".join(one["delta"].get("content", "") for one in choices) == "one two 1 Tap it."
    assert "".join(one["delta"].get("reasoning_content", "") for one in choices) == "hm hm"
    assert [one["finish_reason"] for one in choices][-1] == "stop"


def test_errors_tool_calls_and_other_names_come_as_engines_send_them() -> None:
    engine = ScriptedEngine(lambda asked: Answer(status=400, text="too big"), model="m")
    with engine, httpx.Client(base_url=f"http://127.0.0.1:{engine.port}") as ask:
        refused = ask.post("/v1/chat/completions", json=question())
        unknown = ask.post("/v1/chat/completions", json={**question(), "model": "other"})
        engine.script = lambda asked: Answer(tool_calls=(("look_up", '{"city": "Oslo"}'),))
        called = ask.post("/v1/chat/completions", json=question()).json()["choices"][0]
        assert ask.get("/health").status_code == 200
        assert [one["id"] for one in ask.get("/v1/models").json()["data"]] == ["m"]
    assert (refused.status_code, refused.json()["error"]["message"], unknown.status_code) == (400, "too big", 404)
    assert called["finish_reason"] == "tool_calls"
    assert called["message"]["tool_calls"][0]["function"] == {"name": "look_up", "arguments": '{"city": "Oslo"}'}
