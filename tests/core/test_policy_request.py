"""What policy makes of a body: tests/cases/policy/requests, and what holds for any body at all."""

from __future__ import annotations

import base64
import json
import re
import struct
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Mapping, Sequence

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gonogo.engines.settings import DOORS, MOST_CHOICES, MOST_LOGPROBS
from gonogo.gateway.policy import rules as policy_rules
from gonogo.gateway.policy.body import COUNTED_FROM_BYTES, MAX_BODY_BYTES, MAX_DEPTH, MAX_VALUES, parse
from gonogo.gateway.policy.content import BLOCK_BYTES, MOST_BLOCKS
from gonogo.gateway.policy.deny import Deny
from gonogo.gateway.policy.fields import CHAT, COMPLETIONS, EMBEDDINGS, EXTENSIONS, NEVER, OPENAI
from gonogo.gateway.policy.request import Head, Request, model_of, request_of
from gonogo.gateway.policy.rules import ServiceRules, rules_of
from gonogo.spec import Spec
from gonogo.spec.engine import EngineChoice
from gonogo.spec.model import Expect
from gonogo.spec.replicas import Replicas

FOLDER = Path(__file__).parents[1] / "cases" / "policy" / "requests"
CASES: Mapping[str, Mapping[str, Any]] = yaml.safe_load((FOLDER / "bodies.yaml").read_text(encoding="utf-8"))
EXPECTED = FOLDER / "bodies.expected.json"
HELLO = [{"role": "user", "content": "Hello"}]


def png(found: re.Match[str]) -> str:
    head = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", int(found[1]), int(found[2])) + bytes(40)
    return "data:image/png;base64," + base64.b64encode(head).decode()


def sent(case: Mapping[str, Any]) -> bytes:
    if "body_hex" in case:
        return bytes.fromhex(case["body_hex"])
    body = case["body"]
    text = body if isinstance(body, str) else json.dumps(body, ensure_ascii=False)
    return re.sub(r"\{png (\d+) (\d+)\}", png, text).encode()


def judged(raw: bytes, rules: ServiceRules | None = None, path: str = CHAT) -> Request | Deny:
    fields = parse(raw)
    if isinstance(fields, Deny):
        return fields
    model = model_of(fields)
    if isinstance(model, Deny):
        return model
    return request_of(Head(method="POST", path=path, request_id="r"), fields, rules or ServiceRules())


def chat(**fields: Any) -> Request | Deny:
    return judged(json.dumps({"model": "svc", "messages": HELLO, **fields}).encode())


_OF_EVERY = ("path", "method", "request_id", "model", "fields", "has_query")


def shown(outcome: Request | Deny) -> dict[str, Any]:
    seen = asdict(outcome)
    if isinstance(outcome, Request):
        seen["prefix"] = len(outcome.prefix)
        return {name: value for name, value in seen.items() if name not in _OF_EVERY}
    return {name: seen[name] for name in ("status", "code", "param", "message")}


def test_each_body_gives_the_request_or_the_refusal_that_is_expected_of_it(pytestconfig: pytest.Config) -> None:
    seen = {}
    for name, case in CASES.items():
        rules = {"media_hosts": (), **case.get("rules", {})}
        given_rules = ServiceRules(**{**rules, "media_hosts": tuple(rules["media_hosts"])})
        seen[name] = shown(judged(sent(case), given_rules, case.get("path", CHAT)))
    if pytestconfig.getoption("--accept"):
        EXPECTED.write_text(json.dumps(seen, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    assert seen == json.loads(EXPECTED.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", CASES)
def test_a_refusal_names_no_content_of_the_client(name: str) -> None:
    outcome = judged(sent(CASES[name]), ServiceRules(engine="vllm"), CASES[name].get("path", CHAT))
    if isinstance(outcome, Deny):
        said = outcome.message + (outcome.param or "")
        assert not re.search(r"attacker|passwd|sk-secret|10\.0\.0\.1|127\.0\.0\.1|robot|strange|AAAA|\{", said), said
        assert re.fullmatch(r"[a-z0-9_]+", outcome.code)
        assert said.isprintable()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
NAMES = sorted({*OPENAI[CHAT], *OPENAI[COMPLETIONS], *OPENAI[EMBEDDINGS], *NEVER})
PATHS = st.sampled_from(sorted(OPENAI))
RULES = st.builds(
    ServiceRules,
    engine=st.sampled_from(sorted(EXTENSIONS)),
    context_tokens=st.integers(1, 100_000),
    sees_pictures=st.sampled_from([None, True, False]),
)


@given(st.binary(max_size=200), PATHS)
def test_no_bytes_at_all_raise_anything(raw: bytes, path: str) -> None:
    judged(raw, path=path)


# The strategy is made at the first draw, which a busy machine takes a second for.
@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(NAMES), JSON, max_size=4), PATHS, RULES)
def test_no_json_at_all_raises_anything(fields: dict[str, Any], path: str, rules: ServiceRules) -> None:
    outcome = judged(json.dumps({"model": "svc", **fields}).encode(), rules, path)
    assert isinstance(outcome, (Request, Deny))


@given(JSON, JSON, RULES)
def test_no_message_and_no_tool_raises_anything(message: Any, tool: Any, rules: ServiceRules) -> None:
    fields = {"model": "svc", "messages": [{"role": "user", "content": [message]}, message], "tools": [tool]}
    assert isinstance(judged(json.dumps(fields).encode(), rules), Deny)
    schema = {"type": "function", "function": {"name": "f", "parameters": tool}}
    judged(json.dumps({"model": "svc", "messages": HELLO, "tools": [schema]}).encode(), rules)


@given(st.dictionaries(st.text(max_size=8), JSON, max_size=4), st.booleans())
def test_what_is_parsed_is_what_the_usual_parser_reads(fields: dict[str, Any], ascii_only: bool) -> None:
    text = json.dumps(fields, ensure_ascii=ascii_only)
    parsed = parse(text.encode("utf-8", "surrogatepass"))
    if isinstance(parsed, Deny):
        assert parsed.code in ("invalid_utf8", "json_too_deep"), parsed
    else:
        assert parsed == json.loads(text)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers()), min_size=2, max_size=6))
def test_a_name_twice_in_one_object_never_passes(pairs: list[tuple[str, int]]) -> None:
    inside = ",".join(f'"{name}":{value}' for name, value in pairs)
    parsed = parse(f'{{"a":[{{"b":{{{inside}}}}}]}}'.encode())
    assert (isinstance(parsed, Deny) and parsed.code == "duplicate_key") == (len(dict(pairs)) < len(pairs))


def test_depth_is_bounded_before_it_can_break_the_parser() -> None:
    for depth in (MAX_DEPTH, MAX_DEPTH + 1, 5_000, 400_000):
        parsed = parse(b'{"a":' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}")
        assert (isinstance(parsed, Deny) and parsed.code == "json_too_deep") == (depth > MAX_DEPTH), depth


def test_a_body_of_brackets_is_refused_before_it_is_parsed() -> None:
    parsed = parse(b'{"a":[' + b"[]," * (COUNTED_FROM_BYTES // 3) + b"[]]}")
    assert isinstance(parsed, Deny) and parsed.code == "json_too_many_values"
    assert not isinstance(parse(b'{"a":"' + b"," * (MAX_VALUES - 1) + b"x" * COUNTED_FROM_BYTES + b'"}'), Deny)


def test_a_screenshot_is_no_content_to_be_walked() -> None:
    picture = "data:image/png;base64," + "A" * (MAX_BODY_BYTES - 2000)
    content = [{"type": "image_url", "image_url": {"url": picture}}]
    raw = json.dumps({"model": "svc", "messages": [{"role": "user", "content": content}]}).encode()
    request = judged(raw, ServiceRules(engine="vllm"))
    assert isinstance(request, Request) and request.pictures == 1 and request.prompt_tokens < 5000


TURNS = st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=600), min_size=1, max_size=5)


def prefix(turns: list[str]) -> tuple[int, ...]:
    messages = [{"role": "user", "content": turn} for turn in turns]
    request = judged(json.dumps({"model": "svc", "messages": messages}).encode(), ServiceRules(context_tokens=10**6))
    assert isinstance(request, Request)
    return request.prefix


@given(TURNS, TURNS)
def test_a_conversation_that_goes_on_keeps_the_hashes_of_its_beginning(turns: list[str], more: list[str]) -> None:
    before, after = prefix(turns), prefix([*turns, *more])
    assert after[: len(before)] == before
    assert len(set(after)) == len(after), "each hash is of everything before it too"


def test_the_hashes_tell_where_conversations_part_and_end_after_512_blocks() -> None:
    same = "a" * (BLOCK_BYTES * 4)
    one, other = prefix([same + "b" * 600]), prefix([same + "c" * 600])
    assert one[:4] == other[:4] and not set(one[4:]) & set(other[4:])
    assert not set(prefix(["b" * 300 + same])) & set(prefix(["c" * 300 + same])), "what stands before counts"
    assert len(set(prefix([same * 4]))) == 16
    assert prefix(["ab"]) == ()
    assert prefix(["a", "b" * 600]) != prefix(["ab" + "b" * 599])
    assert len(prefix(["x" * 10**6])) == MOST_BLOCKS


def test_two_screens_differ_in_their_hashes_wherever_they_differ() -> None:
    def hashes(url: str) -> tuple[int, ...]:
        content = [{"type": "image_url", "image_url": {"url": url}}]
        fields = {"model": "svc", "messages": [{"role": "user", "content": content}]}
        request = judged(json.dumps(fields).encode(), ServiceRules(engine="vllm"))
        assert isinstance(request, Request)
        return request.prefix

    picture = "data:image/png;base64," + "A" * 100_000
    assert hashes(picture) == hashes(picture) != ()
    assert hashes(picture) != hashes(picture[:-2] + "BB")
    assert hashes(picture) != hashes(picture[:60] + "B" + picture[61:])
    assert hashes(picture) != hashes(picture + "AA")


def test_a_request_can_be_continued_only_where_one_plain_text_is_streamed() -> None:
    def continuable(**fields: Any) -> bool:
        request = chat(**{"stream": True, **fields})
        assert isinstance(request, Request), request
        return request.continuable

    assert continuable()
    assert continuable(n=1, tools=[], response_format={"type": "text"}, stop=["x"], seed=3, logprobs=False)
    tool = {"type": "function", "function": {"name": "f"}}
    assert not continuable(stream=False)
    assert not continuable(n=2)
    assert not continuable(tools=[tool])
    assert not continuable(logprobs=True)
    assert not continuable(json_schema={"type": "object"})
    assert not continuable(response_format={"type": "json_object"})
    counted = judged(b'{"model":"svc","prompt":"x","stream":true,"logprobs":0}', path=COMPLETIONS)
    assert isinstance(counted, Request) and not counted.continuable


def test_an_answer_is_expected_as_long_as_it_may_be_and_as_the_context_has_room() -> None:
    def expected(rules: ServiceRules, **fields: Any) -> int:
        raw = json.dumps({"model": "svc", "messages": HELLO, **fields}).encode()
        request = judged(raw, rules)
        assert isinstance(request, Request)
        return request.expected_tokens

    rules = ServiceRules(context_tokens=2048)
    assert (expected(rules), expected(rules, max_tokens=7), expected(rules, max_tokens=7, n=3)) == (512, 7, 21)
    assert expected(replace(rules, context_tokens=100)) == 100 - 6
    assert expected(replace(rules, context_tokens=5)) == 1, "what does not fit by the estimate is the engine's to say"


def test_the_rules_of_a_spec_are_read_from_its_json() -> None:
    plain = Spec(service="svc", model="m.gguf", expect=Expect(context_tokens=4096))
    seeing = Spec(service="svc", model="m.gguf", projector="p.gguf")
    cards = Spec(service="svc", model="org/m", engine=EngineChoice(name="sglang"))
    others = Spec(service="svc", model="m", replicas=Replicas.model_validate({"external": ["http://127.0.0.1:9"]}))
    rules = [rules_of(spec.model_dump(mode="json")) for spec in (plain, seeing, cards, others)]
    assert [one.engine for one in rules] == ["llama.cpp", "llama.cpp", "sglang", "external"]
    assert [one.context_tokens for one in rules] == [4096, *[Expect().context_tokens] * 3]
    assert [one.context_known for one in rules] == [True, True, True, False]
    assert [one.sees_pictures for one in rules] == [False, True, None, None]
    assert rules_of({}) == ServiceRules(sees_pictures=False)


def test_policy_bounds_what_the_engines_bound_by_the_same_numbers() -> None:
    assert (policy_rules.MOST_CHOICES, policy_rules.MOST_LOGPROBS) == (MOST_CHOICES, MOST_LOGPROBS)


def pictured(url: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]}


BEHIND_DOORS: Mapping[str, Sequence[Mapping[str, Any]]] = {
    "media_urls": [pictured("http://169.254.169.254/x.png"), pictured("https://example.org/x.png")],
    "local_files": [pictured("file:///etc/passwd"), pictured("/etc/passwd"), pictured("etc/passwd")],
    "choices": [{"n": 9}, {"n": 16384}],
    "logprobs": [{"logprobs": True, "top_logprobs": 21}],
}


@pytest.mark.parametrize("engine", ["vllm", "vllm-cpu", "sglang", "llama.cpp", "external"])
@pytest.mark.parametrize("door", sorted(DOORS))
def test_every_door_that_an_engine_leaves_open_is_shut_by_policy(door: str, engine: str) -> None:
    for fields in BEHIND_DOORS[door]:
        raw = json.dumps({"model": "svc", "messages": HELLO, **fields}).encode()
        assert isinstance(judged(raw, ServiceRules(engine=engine)), Deny), fields


def test_what_is_refused_with_a_reason_of_its_own_stands_on_no_list() -> None:
    for fields in (*OPENAI.values(), *EXTENSIONS.values()):
        assert not set(NEVER) & set(fields)
