"""llama-server and vLLM on paper: a vocabulary, the ids that a model gives, and the rules by which text goes out.

They hold text back as the real ones do (`update_slots`/`process_token` of llama-server, vLLM's `detokenizer.py`), and
they insist: a prompt that is not theirs, or ids that the model would not have given, raise AssertionError. So a test
that gets a whole answer through a continuation has proven that the seam is exact.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Iterator, Mapping, Sequence

from gonogo.engines.stream import Question

Json = dict[str, Any]

END = 0
VOCABULARY: Mapping[int, bytes] = {
    END: b"",
    **{100 + byte: bytes([byte]) for byte in range(256)},
    **{
        400 + index: text.encode()
        for index, text in enumerate(
            ("one", "two", " three", "st", "op", "stop", ". ", "\n", "好", "世界", "é", "  ", "END")
        )
    },
    **{440 + index: piece for index, piece in enumerate(("😀".encode()[:2], "👌".encode()[:3], "好".encode()[1:]))},
}
END_NAMED = b"<|im_end|>"
"""What llama-server's `/detokenize` says of the end; in an answer it is no text."""
PROMPT = (7, 8, 9)
PROMPT_TEXT = "<user>hi<assistant>"


def bytes_of(ids: Sequence[int]) -> bytes:
    """What these ids stand for."""
    return b"".join(VOCABULARY[one] for one in ids)


def tokenize(text: str) -> list[int]:
    """The longest token first, as a tokenizer would; not always the ids that a model gave for the text."""
    rest, ids = text.encode(), []
    by_length = sorted((-len(piece), one) for one, piece in VOCABULARY.items() if piece)
    while rest:
        one = next(one for _, one in by_length if rest.startswith(VOCABULARY[one]))
        ids.append(one)
        rest = rest[len(VOCABULARY[one]) :]
    return ids


@dataclass(frozen=True)
class PaperModel:
    """Gives `script` for `PROMPT`, whatever the sampling; continues it from any beginning of it."""

    script: tuple[int, ...]

    def after(self, given: Sequence[int]) -> tuple[int, ...]:
        """What it gives after these ids, which must be its own."""
        assert tuple(given) == self.script[: len(given)], "these are not the ids that were given"
        return self.script[len(given) :]


class PaperLlama:
    """llama-server."""

    def __init__(self, model: PaperModel) -> None:
        self.model = model
        self.loosely = False
        """Take a continuation whose ids are other ones for the same text."""

    def answer(self, question: Question) -> Json:
        """The inner paths."""
        if question.path == "/apply-template":
            assert question.body["messages"] == [{"role": "user", "content": "hi"}]
            return {"prompt": PROMPT_TEXT}
        if question.path == "/tokenize":
            if question.body["add_special"]:
                assert question.body["content"] == PROMPT_TEXT
                return {"tokens": list(PROMPT)}
            return {"tokens": tokenize(question.body["content"])}
        assert question.path == "/detokenize"
        said = b"".join(END_NAMED if one == END else VOCABULARY[one] for one in question.body["tokens"])
        return {"content": said.decode("utf-8", "replace")}

    def stream(self, path: str, body: Mapping[str, Any]) -> Iterator[Json]:
        """The events of a request, without `[DONE]`."""
        if path == "/completion":
            return self._completion(body)
        return self._chat(body)

    def _chat(self, body: Mapping[str, Any]) -> Iterator[Json]:
        frame = {"created": 1, "id": f"chatcmpl-{id(body)}", "model": "m", "object": "chat.completion.chunk"}
        begun = False
        usage_asked = (body.get("stream_options") or {}).get("include_usage")
        for step in _steps(self.model.after(()), body.get("max_tokens"), _stops(body)):
            timings = {"cache_n": 1, "prompt_n": len(PROMPT) - 1, "predicted_n": step.count, "predicted_ms": 1.0}
            if step.end is not None:
                choice: Json = {"finish_reason": step.end, "index": 0, "delta": {}}
                last = {"choices": [choice], **frame}
                if not usage_asked:
                    yield {**last, "timings": timings}
                    return
                yield last
                yield {"choices": [], **frame, "usage": usage(step.count), "timings": timings}
                return
            if not begun and step.count == 1:
                yield {"choices": [_delta({"role": "assistant", "content": None})], **frame}
            begun = True
            if step.text:
                choice = _delta({"content": step.text})
                if body.get("logprobs"):
                    choice["logprobs"] = {"content": [{"id": step.token, "token": step.text}]}
                yield {"choices": [choice], **frame, **({"timings": timings} if body.get("timings_per_token") else {})}

    def _completion(self, body: Mapping[str, Any]) -> Iterator[Json]:
        prompt = body["prompt"]
        assert tuple(prompt[: len(PROMPT)]) == PROMPT, "this is not the prompt"
        given = prompt[len(PROMPT) :]
        rest = self._loosely_after(given) if self.loosely else self.model.after(given)
        for step in _steps(rest, body.get("n_predict"), _stops(body)):
            known = {"tokens_predicted": step.count, "tokens_evaluated": len(prompt)}
            if step.end is not None:
                kind = "limit" if step.end == "length" else "eos"
                yield {"content": "", "tokens": [], "stop": True, "stop_type": kind, **known, "timings": {}}
                return
            yield {"content": step.text, "tokens": [step.token], "stop": False, **known}

    def _loosely_after(self, given: Sequence[int]) -> tuple[int, ...]:
        wanted = bytes_of(given)
        for size in range(len(self.model.script) + 1):
            if bytes_of(self.model.script[:size]) == wanted:
                return self.model.script[size:]
        raise AssertionError("this is not the text that was given")


class PaperVllm:
    """vLLM's server. `per_step` tokens come in one event."""

    def __init__(self, model: PaperModel, per_step: int = 1) -> None:
        self.model = model
        self.per_step = per_step

    def answer(self, question: Question) -> Json:
        """The inner paths."""
        assert question.path == "/detokenize"
        return {"prompt": bytes_of(question.body["tokens"]).decode("utf-8", "replace")}

    def stream(self, path: str, body: Mapping[str, Any]) -> Iterator[Json]:
        """The events of a request, without `[DONE]`."""
        chat = path.endswith("/chat/completions")
        if chat:
            rest, limit = self.model.after(()), body.get("max_tokens")
        else:
            assert tuple(body["prompt"][: len(PROMPT)]) == PROMPT, "this is not the prompt"
            rest, limit = self.model.after(body["prompt"][len(PROMPT) :]), body.get("max_tokens", 16)
        told = bool(body.get("return_token_ids"))
        frame = {"id": f"cmpl-{id(body)}", "object": "chunk", "created": 2, "model": "m"}
        if chat:
            role = {"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}
            yield {**frame, "choices": [role], "prompt_token_ids": list(PROMPT) if told else None}
        count = 0
        for text, ids, end, stop in _vllm_steps(rest, limit, _stops(body), self.per_step):
            count += len(ids)
            content: Json = {"delta": {"content": text}} if chat else {"text": text}
            choice = {"index": 0, **content, "finish_reason": end, "token_ids": list(ids) if told else None}
            if end:
                choice["stop_reason"] = stop
            yield {**frame, "choices": [choice]}
        if (body.get("stream_options") or {}).get("include_usage"):
            yield {**frame, "choices": [], "usage": vllm_usage(count)}


def usage(tokens: int) -> Json:
    """What llama-server says of an answer with so many tokens."""
    prompt = len(PROMPT)
    details = {"cached_tokens": 1}
    return {
        "completion_tokens": tokens,
        "prompt_tokens": prompt,
        "total_tokens": prompt + tokens,
        "prompt_tokens_details": details,
    }


def vllm_usage(tokens: int) -> Json:
    """What vLLM says of an answer with so many tokens."""
    return {"prompt_tokens": len(PROMPT), "total_tokens": len(PROMPT) + tokens, "completion_tokens": tokens}


@dataclass(frozen=True)
class _Step:
    text: str
    token: int
    count: int
    end: str | None = None


def _steps(ids: Sequence[int], limit: int | None, stops: Sequence[str]) -> Iterator[_Step]:
    """llama-server: nothing goes out while a character is not whole, or while a stop string may have begun."""
    text, sent = b"", 0
    count = 0
    for count, one in enumerate(ids, 1):
        text += VOCABULARY[one]
        whole = _is_whole(text)
        ended: str | None = "stop" if one == END else None
        if whole:
            unsent = text[sent:].decode()
            found = min((place for stop in stops if (place := unsent.find(stop)) >= 0), default=-1)
            if found >= 0:
                out, ended = unsent[:found], "stop"
            elif ended is None and _may_begin(unsent, stops):
                out = ""
            else:
                out = unsent
            sent += len(out.encode())
            yield _Step(out, one, count)
        if ended is None and limit is not None and count >= limit:
            ended = "length"
        if ended:
            yield _Step("", one, count, ended)
            return
    yield _Step("", END, count, "length")  # the context is full


def _vllm_steps(
    ids: Sequence[int], limit: int | None, stops: Sequence[str], per_step: int
) -> Iterator[tuple[str, tuple[int, ...], str | None, str | None]]:
    """vLLM: as many characters are kept back as the longest stop string has, but one."""
    kept = max((len(stop) for stop in stops), default=1) - 1
    given: list[int] = []
    sent, step = 0, []
    for number, one in enumerate(ids, 1):
        given.append(one)
        step.append(one)
        text = bytes_of(given).decode("utf-8", "ignore") if not _is_whole(bytes_of(given)) else bytes_of(given).decode()
        found = [(text.find(stop), stop) for stop in stops if stop in text]
        end = "stop" if one == END or found else ("length" if limit is not None and number >= limit else None)
        end = end or ("length" if number == len(ids) else None)
        if end:
            text, stop = (text[: min(found)[0]], min(found)[1]) if found else (text, None)
            yield text[sent:], tuple(step), end, stop
            return
        if len(step) >= per_step:
            ready = max(sent, len(text) - kept)
            yield text[sent:ready], tuple(step), None, None
            sent, step = ready, []
    yield "", (), "length", None


def _is_whole(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _may_begin(text: str, stops: Sequence[str]) -> bool:
    return any(text.endswith(stop[:size]) for stop in stops for size in range(1, len(stop)))


def _stops(body: Mapping[str, Any]) -> list[str]:
    stop = body.get("stop") or []
    return [stop] if isinstance(stop, str) else list(stop)


def _delta(content: Json) -> Json:
    return {"finish_reason": None, "index": 0, "delta": content}


def copied(event: Json) -> Json:
    """As it would come out of the wire: the transcript may change it."""
    value: Json = json.loads(json.dumps(event))
    return value
