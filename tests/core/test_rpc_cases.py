"""Between gRPC and OpenAI's JSON, both ways: tests/cases/rpc. `--accept` writes the expected files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Mapping

import pytest
import yaml
from google.protobuf import json_format, text_format
from google.protobuf.message import Message
from grpc import StatusCode
from hypothesis import given
from hypothesis import strategies as st

from gonogo.gateway.rpc import answered, asked, statuses
from gonogo.gateway.rpc.events import LARGEST_EVENT_BYTES, Events, TooLarge
from gonogo.gateway.rpc.statuses import Failed, Failure
from gonogo.rpc.v1 import inference_pb2 as pb

CASES = Path(__file__).parent.parent / "cases/rpc"
TABLES = ("asked", "answered", "statuses")


def table(name: str) -> Mapping[str, Any]:
    read: Mapping[str, Any] = yaml.safe_load((CASES / f"{name}.yaml").read_text(encoding="utf-8"))
    return read


def of_asked(case: Mapping[str, Any]) -> Any:
    try:
        if case["method"] == "Chat":
            made = asked.chat(text_format.Parse(case["request"], pb.ChatRequest()))
        else:
            made = asked.generate(text_format.Parse(case["request"], pb.GenerateRequest()))
    except asked.Wrong as error:
        return {"wrong": str(error)}
    return {"path": made.path, "body": json.loads(made.body)}


def of_answered(case: Mapping[str, Any]) -> Any:
    said: list[Any] = []
    try:
        if "stream" in case:
            pieces = answered.Pieces()
            for event in case["stream"]:
                made = pieces.end() if event == "[DONE]" else pieces.read(json.dumps(event).encode())
                said += [plain(made)] if made is not None else []
            return said
        if "models" in case:
            return plain(answered.models(json.dumps(case["models"]).encode()))
        return plain(answered.chat(case["raw"].encode() if "raw" in case else json.dumps(case["chat"]).encode()))
    except Failed as error:
        return [*said, told(error.failure)]


def of_statuses(case: Mapping[str, Any]) -> Any:
    body = case["raw"] if "raw" in case else json.dumps({"error": case["error"]})
    return told(statuses.of_answer(case["status"], case.get("headers", {}), body.encode()))


def plain(message: Message) -> Any:
    return json_format.MessageToDict(message, preserving_proto_field_name=True)


def told(failure: Failure) -> Mapping[str, Any]:
    return {
        "code": failure.code.name,
        "reason": failure.reason,
        "message": failure.message,
        "retry_after_s": failure.retry_after_s,
        "request_id": failure.request_id,
    }


@pytest.mark.parametrize("name", TABLES)
def test_each_case_becomes_what_is_written_down(name: str, pytestconfig: pytest.Config) -> None:
    becomes = {"asked": of_asked, "answered": of_answered, "statuses": of_statuses}[name]
    seen = {case: becomes(content) for case, content in table(name).items()}
    file = CASES / f"{name}.expected.json"
    if pytestconfig.getoption("--accept"):
        file.write_text(json.dumps(seen, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    expected = json.loads(file.read_text(encoding="utf-8"))
    assert list(seen) == list(expected)
    for case, content in seen.items():
        assert content == expected[case], case


def test_no_message_repeats_what_a_client_sent() -> None:
    secret = "f0rty-two"
    requests = (
        pb.ChatRequest(
            conversation=pb.Conversation(messages=[pb.Message(role=pb.ROLE_USER, parts=[pb.Part(image=image)])])
        )
        for image in (pb.Image(data=b"x", media_type=secret), pb.Image(media_type="image/png"))
    )
    tools = pb.Tools(functions=[pb.Function(name=secret, parameters_json=secret)])
    user = pb.Conversation(messages=[pb.Message(role=pb.ROLE_USER)])
    for request in (*requests, pb.ChatRequest(conversation=user, tools=tools)):
        with pytest.raises(asked.Wrong) as error:
            asked.chat(request)
        assert secret not in str(error.value)


TEXTS = st.text(max_size=20)
PARTS = st.one_of(
    st.builds(lambda text: pb.Part(text=text), TEXTS),
    st.builds(lambda data: pb.Part(image=pb.Image(data=data, media_type="image/png")), st.binary(min_size=1)),
)
ROLES = st.sampled_from([pb.ROLE_SYSTEM, pb.ROLE_USER, pb.ROLE_ASSISTANT, pb.ROLE_TOOL, pb.ROLE_DEVELOPER])
MESSAGES = st.builds(
    lambda role, parts, name: pb.Message(role=role, parts=parts, name=name), ROLES, st.lists(PARTS, max_size=3), TEXTS
)


@given(st.lists(MESSAGES, min_size=1, max_size=4), TEXTS)
def test_every_conversation_becomes_json_that_says_all_of_it(messages: list[pb.Message], model: str) -> None:
    made = asked.chat(pb.ChatRequest(model=model, conversation=pb.Conversation(messages=messages)))
    body = json.loads(made.body)
    assert body["model"] == model
    assert [len(one["content"]) if isinstance(one["content"], list) else None for one in body["messages"]] == [
        None if not one.parts or (len(one.parts) == 1 and one.parts[0].HasField("text")) else len(one.parts)
        for one in messages
    ]
    flat = json.dumps(body, ensure_ascii=False)
    for one in messages:
        assert all(json.dumps(part.text, ensure_ascii=False)[1:-1] in flat for part in one.parts)


@given(st.lists(TEXTS, max_size=6), st.lists(TEXTS, max_size=3), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_the_pieces_of_a_stream_say_what_the_whole_answer_says(
    texts: list[str], thoughts: list[str], read: int, written: int
) -> None:
    usage = {"prompt_tokens": read, "completion_tokens": written}
    deltas = [*({"reasoning": one} for one in thoughts), *({"content": one} for one in texts)]
    chunks = [
        *({"id": "a", "choices": [{"index": 0, "delta": one, "finish_reason": None}]} for one in deltas),
        {"id": "a", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
        {"id": "a", "choices": [], "usage": usage},
    ]
    pieces = answered.Pieces()
    made = [pieces.read(json.dumps(one).encode()) for one in chunks]
    stream = [one for one in (*made, pieces.end()) if one is not None]
    message = {"content": "".join(texts), "reasoning": "".join(thoughts)}
    whole = answered.chat(
        json.dumps({"id": "a", "choices": [{"message": message, "finish_reason": "stop"}], "usage": usage}).encode()
    )
    assert "".join(one.text for one in stream) == "".join(part.text for part in whole.message.parts)
    assert "".join(one.reasoning for one in stream) == whole.message.reasoning
    assert [one.finish_reason for one in stream if one.finish_reason] == [whole.finish_reason]
    assert [one.usage for one in stream if one.HasField("usage")] == [whole.usage]
    assert stream[-1].HasField("usage"), "usage is last"
    assert {one.id for one in stream} == {whole.id}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["choices", "delta", "message", "content", "text", "usage", "prompt_tokens", "completion_tokens", "id",
                 "tool_calls", "function", "arguments", "index", "finish_reason", "error", "code", "type", "data"]
            ),
            inner,
            max_size=6,
        )
    ),
    max_leaves=25,
)  # fmt: skip


@given(st.one_of(JSON.map(lambda one: json.dumps(one).encode()), st.binary(max_size=60)))
def test_whatever_an_engine_answers_is_read_or_is_a_failure(body: bytes) -> None:
    for read in (answered.chat, answered.models, answered.Pieces().read):
        try:
            read(body)
        except Failed as error:
            statuses.trailing(error.failure, "r")
    failure = statuses.of_answer(500, {}, body)
    assert failure.code is StatusCode.INTERNAL
    assert failure.message


@given(
    st.lists(st.binary(max_size=12).map(lambda one: one.replace(b"\n", b"").replace(b"\r", b"")), max_size=6), st.data()
)
def test_events_come_out_whole_however_the_bytes_were_cut(events: list[bytes], data: st.DataObject) -> None:
    end = data.draw(st.sampled_from([b"\n", b"\r\n"]))
    whole = b"".join(b": a comment" + end + b"data: " + one + end + end for one in events)
    reader, found = Events(), []
    while whole:
        size = data.draw(st.integers(1, len(whole)))
        found += reader.feed(whole[:size])
        whole = whole[size:]
    assert found == events


def test_an_event_without_an_end_is_not_kept_for_ever() -> None:
    reader = Events()
    with pytest.raises(TooLarge):
        for _ in range(LARGEST_EVENT_BYTES // 65536 + 2):
            reader.feed(b"x" * 65536)


def test_a_long_message_fits_into_the_metadata_that_a_client_takes() -> None:
    body = json.dumps({"error": {"message": "字" * 5000, "code": "c"}}).encode()
    failure = statuses.of_answer(400, {"x-request-id": "r" * 36}, body)
    size = sum(len(name) + len(value) + 32 for name, value in statuses.trailing(failure, None))
    percent_encoded = 3 * len(failure.message.encode())
    assert size * 4 // 3 + percent_encoded < 8192
    assert failure.message.endswith("…")
