"""vLLM's streams: token ids with each piece, and the rest of an answer from `/v1/completions`.

Read in the source of 0.2x (`entrypoints/openai`, `v1/engine/detokenizer.py`): with `return_token_ids` the first event
names the prompt's ids and each event the ids of its step. The text runs *behind* the ids: bytes that are not whole
UTF-8 yet are kept back, and with stop strings always as many characters as the longest of them but one. So the ids are
cut back to whole characters, `/detokenize` says the text that was kept back, and the relay gives it to the client
itself, looking for a stop string that spans the seam. Penalties on frequency and presence count the answer only, which
a continued request holds in its prompt: not continued. `/v1/completions` has no reasoning or tool parser.
"""

from __future__ import annotations

from typing import Any, Generator, Mapping

from gonogo.engines.stream import (
    AGAIN,
    BY_TEXT,
    COMPLETIONS,
    EXACT,
    MOST_HELD_TOKENS,
    Asked,
    Continuation,
    Finished,
    Json,
    NotContinued,
    Question,
    Resume,
    cannot_continue,
    first_choice,
    names,
)

_PASSED_ON = names(
    "model seed stop stream temperature top_p top_k min_p repetition_penalty stop_token_ids include_stop_str_in_output "
    "ignore_eos skip_special_tokens spaces_between_special_tokens allowed_token_ids logit_bias priority cache_salt "
    "user min_tokens frequency_penalty presence_penalty"
)
_WITHOUT_MEANING_HERE = names(
    "messages prompt max_tokens max_completion_tokens stream_options n best_of tools tool_choice parallel_tool_calls "
    "response_format chat_template_kwargs add_generation_prompt add_special_tokens return_token_ids logprobs "
    "top_logprobs echo documents chat_template metadata store reasoning_effort include_reasoning "
    "truncate_prompt_tokens request_id mm_processor_kwargs media_io_kwargs continue_final_message"
)
_NOT_OF_THE_FRAME = ("choices", "usage", "prompt_token_ids")
_UNFINISHED = "\ufffd"
_MOST_BYTES_OF_A_CHARACTER = 4


class VllmTranscript:
    """One answer of vLLM's server. `event` is told events of the client's own endpoint first, and of
    `/v1/completions` once it was continued there."""

    verbatim = False
    prompt_ms = None

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._why_not = cannot_continue(asked) or _own_reason(asked)
        self._prompt: list[int] | None = None
        self._ids: list[int] = []
        self._text = ""  # what the client got as content
        self._unsent = ""  # known, and kept back, after a continuation
        self._inner = False  # the running attempt is one of ours on /v1/completions
        self._attempts = 0
        self._role_sent = self._odd = self._reasoning = self._usage_sent = False
        self._frame: Json = {}
        self._choice: Json = {}
        self.finished = False

    @property
    def tokens(self) -> int | None:
        return len(self._ids) if self._ids or not self._text else None  # an older release tells no ids

    @property
    def complete(self) -> bool:
        return self._inner and self.finished

    @property
    def prompt_tokens(self) -> int | None:
        return None if self._prompt is None else len(self._prompt)

    @property
    def cached_tokens(self) -> int | None:
        return None  # told only with the usage, and only where vLLM was started so

    @property
    def ids(self) -> tuple[int, ...]:
        return tuple(self._ids)

    def opening(self) -> Json:
        return {**self._asked.body, "return_token_ids": True}

    def event(self, event: Json) -> tuple[Json, ...]:
        return self._of_ours(event) if self._inner else self._of_engine(event)

    def resume(self) -> Resume:
        self._attempts += 1
        if self.finished:
            return Finished(events=self.ending())
        if not self._text and not self._odd and not self._reasoning:
            self._ids, self._inner, self._unsent = [], False, ""
            return Continuation(path=self._asked.path, body=self.opening(), how=AGAIN)
        if self._why_not is not None:
            return NotContinued(reason=self._why_not)
        if self._odd or not self._text:
            return NotContinued(reason="tools" if self._odd else "reasoning")
        if len(self._ids) > MOST_HELD_TOKENS:
            return NotContinued(reason="too_long")
        if self._asked.pictures:
            return self._prefilled()
        if self._prompt is None or not self._ids:
            return NotContinued(reason="ids_not_told")
        return (yield from self._from_ids())

    def ending(self) -> tuple[Json, ...]:
        if not self._asked.usage_asked or self._usage_sent:
            return ()
        self._usage_sent = True
        return ({**self._frame, "choices": [], "usage": self._usage()},)

    # the client's own endpoint

    def _of_engine(self, event: Json) -> tuple[Json, ...]:
        choice = first_choice(event)
        delta = choice.get("delta") if self._asked.chat else choice
        delta = delta if isinstance(delta, dict) else {}
        self._take_ids(event, choice)
        if text := delta.get("content" if self._asked.chat else "text"):
            self._text += text
        self._odd = self._odd or bool(delta.get("tool_calls"))
        self._reasoning = self._reasoning or bool(delta.get("reasoning") or delta.get("reasoning_content"))
        if choice.get("finish_reason"):
            self.finished = True
        if choice and not self._frame:
            self._frame = {key: one for key, one in event.items() if key not in _NOT_OF_THE_FRAME}
        if choice and delta and "role" not in delta:
            self._choice = {key: one for key, one in choice.items() if key not in ("delta", "text")}
        if event.get("usage") and not choice:
            self._usage_sent = True
        if choice and not delta and not choice.get("finish_reason") and not self._asked.body.get("return_token_ids"):
            return ()  # vLLM sends it for its ids alone
        return self._one_stream(event, delta)

    def _take_ids(self, event: Json, choice: Json) -> None:
        """Take note of the ids; leave null where they were, as vLLM does for who did not ask."""
        asked = bool(self._asked.body.get("return_token_ids"))
        for place in (event, choice):
            prompt = place.get("prompt_token_ids")
            if isinstance(prompt, list) and self._prompt is None:
                self._prompt = prompt
            if prompt is not None and not asked:
                place["prompt_token_ids"] = None
        ids = choice.get("token_ids")
        if isinstance(ids, list):
            self._ids += ids
        if ids is not None and not asked:
            choice["token_ids"] = None

    def _one_stream(self, event: Json, delta: Json) -> tuple[Json, ...]:
        """Of a second attempt: the same id and time as the first one's, and one role."""
        if self._attempts:
            if "role" in delta and self._role_sent:
                return ()
            event.update({key: one for key, one in self._frame.items() if key in event})
            if event.get("usage"):
                event["usage"] = self._usage()
        self._role_sent = self._role_sent or "role" in delta
        return (event,)

    # the rest of it

    def _from_ids(self) -> Resume:
        known = yield from self._known_text()
        if known is None:
            return NotContinued(reason="text_not_found")
        self._unsent = known[len(self._text) :]
        self._inner = True
        if (stop := self._stop_in(self._unsent)) is not None:
            return Finished(events=self._end("stop", *stop))
        limit = self._asked.max_tokens
        if limit is not None and len(self._ids) >= limit:
            return Finished(events=self._end("length", self._unsent))
        assert self._prompt is not None
        body: Json = {key: one for key, one in self._asked.body.items() if key in _PASSED_ON}
        # Null is "as much as there is room for" there; without the field vLLM stops after 16 tokens.
        body |= {"prompt": self._prompt + self._ids, "add_special_tokens": False, "return_token_ids": True}
        body["max_tokens"] = None if limit is None else limit - len(self._ids)
        if isinstance(body.get("min_tokens"), int):
            body["min_tokens"] = max(0, body["min_tokens"] - len(self._ids))
        return Continuation(path=COMPLETIONS, body=body, how=EXACT)

    def _known_text(self) -> Generator[Question, Mapping[str, Any], str | None]:
        """The text of the ids, which are cut back to whole characters. None: it is not what the client got."""
        for _ in range(_MOST_BYTES_OF_A_CHARACTER):
            body: Json = {"tokens": self._ids}
            if "model" in self._asked.body:
                body["model"] = self._asked.body["model"]
            said = str((yield Question(path="/detokenize", body=body)).get("prompt"))
            for text in (said, f" {said}"):  # sentencepiece takes the first space away where a text begins
                if text.startswith(self._text) and not text.endswith(_UNFINISHED):
                    return text
            if self._reasoning and said.endswith(self._text) and not self._asked.stops:
                return self._text
            if not said.endswith(_UNFINISHED) or len(self._ids) == 1:
                return None
            self._ids = self._ids[:-1]
        return None

    def _prefilled(self) -> Continuation | Finished:
        """With pictures ids cannot be asked for: the answer so far stands as the message to go on with."""
        body = self.opening() | {"continue_final_message": True, "add_generation_prompt": False}
        body["messages"] = [*self._asked.body["messages"], {"role": "assistant", "content": self._text}]
        limit = self._asked.max_tokens
        if limit is not None:
            if len(self._ids) >= limit:
                return Finished(events=self._end("length", ""))
            body.pop("max_completion_tokens", None)
            body["max_tokens"] = limit - len(self._ids)
        self._inner, self._role_sent = False, True
        return Continuation(path=self._asked.path, body=body, how=BY_TEXT)

    def _of_ours(self, event: Json) -> tuple[Json, ...]:
        choice = first_choice(event)
        ids = choice.get("token_ids")
        self._ids += ids if isinstance(ids, list) else []
        if not choice or self.finished:
            return ()
        self._unsent += choice.get("text") or ""
        # The stop string that vLLM found itself is not in the text, and one that began before the seam may end in it.
        found = choice.get("stop_reason") if not self._asked.body.get("include_stop_str_in_output") else None
        if (stop := self._stop_in(self._unsent + (found if isinstance(found, str) else ""))) is not None:
            return self._end("stop", *stop)
        if choice.get("finish_reason"):
            return self._end(choice["finish_reason"], self._unsent, choice.get("stop_reason"))
        # As vLLM itself does, so that no stop string is given away by its beginning.
        kept = 0 if self._asked.body.get("include_stop_str_in_output") else self._longest_stop() - 1
        ready = self._unsent[: len(self._unsent) - kept] if kept > 0 else self._unsent
        self._unsent = self._unsent[len(ready) :]
        self._text += ready
        return (self._event(ready, None),)

    def _stop_in(self, unsent: str) -> tuple[str, str] | None:
        """The text up to the first stop string that ends in `unsent`, and that stop string; None: there is none."""
        before = self._text[max(0, len(self._text) - max(0, self._longest_stop() - 1)) :]
        places = [(place, stop) for stop in self._asked.stops if (place := (before + unsent).find(stop)) >= 0]
        found = [(place, stop) for place, stop in places if place + len(stop) > len(before)]
        if not found:
            return None
        place, stop = min(found)
        end = place + len(stop) if self._asked.body.get("include_stop_str_in_output") else place
        return (before + unsent)[len(before) : max(end, len(before))], stop

    def _longest_stop(self) -> int:
        return max((len(stop) for stop in self._asked.stops), default=0)

    def _event(self, text: str, reason: str | None) -> Json:
        choice: Json = {"index": 0, **({"delta": {"content": text}} if self._asked.chat else {"text": text})}
        choice |= {key: one for key, one in self._choice.items() if key != "index"}
        event: Json = {**self._frame, "choices": [{**choice, "finish_reason": reason}]}
        options = self._asked.body.get("stream_options")
        if isinstance(options, Mapping) and options.get("continuous_usage_stats"):
            event["usage"] = self._usage()
        return event

    def _end(self, reason: str, text: str, stop_reason: object = None) -> tuple[Json, ...]:
        self.finished = True
        self._text, self._unsent = self._text + text, ""
        event = self._event(text, reason)
        event["choices"][0]["stop_reason"] = stop_reason
        return (event, *self.ending())

    def _usage(self) -> Json:
        prompt, tokens = self.prompt_tokens or 0, len(self._ids)
        return {"prompt_tokens": prompt, "total_tokens": prompt + tokens, "completion_tokens": tokens}


def _own_reason(asked: Asked) -> str | None:
    body = asked.body
    if body.get("frequency_penalty") or body.get("presence_penalty"):
        return "penalties"
    if body.get("logprobs") or body.get("prompt_logprobs") or body.get("top_logprobs"):
        return "probabilities"
    prompt = body.get("prompt")
    if isinstance(prompt, list) and not all(isinstance(one, int) for one in prompt):
        return "several_prompts"
    given = {key for key, one in body.items() if one not in (None, False)}
    return "fields" if given - _PASSED_ON - _WITHOUT_MEANING_HERE else None
