"""llama.cpp's streams: token ids with each piece, and the rest of an answer from `/completion`.

What llama-server does (2026.10; seen on the wire): a chat stream has no field for ids, but with `logprobs` each piece
names the id of its *last* token, and with `timings_per_token` how many tokens there are so far. `post_sampling_probs`
makes that cheap (it looks at the sampled candidates, not at the whole vocabulary) and changes no sampled token. A piece
stands for several tokens where the text was not whole UTF-8 yet, or was held back because a stop string could begin in
it; where it ends among the tokens, and which they are: `llamacpp_seam`. What it counts and times: `llamacpp_timings`.
Penalties count the prompt too, so that a continued answer is sampled as the undisturbed one; a grammar's and
mirostat's state is not to be had again.
"""

from __future__ import annotations

from typing import Any, Generator, Mapping

from gonogo.engines.llamacpp_seam import Piece, find_seam, ids_of, tokenized
from gonogo.engines.llamacpp_timings import Timings
from gonogo.engines.stream import (
    AGAIN,
    BY_TEXT,
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
    number,
)

_OF_CHAT = names(
    "messages tools tool_choice parallel_tool_calls stream_options max_tokens max_completion_tokens n_predict logprobs "
    "top_logprobs response_format chat_template_kwargs reasoning_format add_generation_prompt n user prompt "
    "timings_per_token best_of echo"
)
_FIELDS = ["content", "tokens", "stop", "stop_type", "tokens_predicted", "tokens_evaluated", "timings"]
_PROBABILITIES = ("logprobs", "top_logprobs", "n_probs", "post_sampling_probs")
_DEFAULT_TOP = 20


class LlamaCppTranscript:
    """One answer of llama-server. `event` is told events of the chat (or completions) stream first, and of
    `/completion` once it was continued there."""

    verbatim = False

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._why_not = cannot_continue(asked) or _own_reason(asked)
        self._own_probabilities = not any(asked.body.get(name) for name in _PROBABILITIES)
        self._pieces: list[Piece] = []
        self._known = 0  # tokens that `_pieces` stand for
        self._before = 0  # of them, given before the running attempt
        self._predicted = 0  # tokens that the running attempt generated, also unsent ones
        self._pending: list[int] = []  # ids told by /completion whose text is not given yet
        self._native = False  # the running attempt is /completion
        self._again = False
        self._role_sent = self._odd = False
        self._frame: Json = {}
        self._timings = Timings()
        self.finished = False
        self._usage_sent = False

    @property
    def tokens(self) -> int | None:
        return self._before + self._predicted

    @property
    def complete(self) -> bool:
        return self._native and self.finished

    @property
    def prompt_tokens(self) -> int | None:
        return self._timings.prompt_tokens

    @property
    def cached_tokens(self) -> int | None:
        return self._timings.cached_tokens

    @property
    def prompt_ms(self) -> float | None:
        return self._timings.prompt_ms

    @property
    def ids(self) -> tuple[int, ...]:
        if any(piece.ids is None for piece in self._pieces):
            return ()
        return tuple(number for piece in self._pieces for number in piece.ids or ())

    @property
    def text(self) -> str:
        """What the client got as content."""
        return "".join(piece.text for piece in self._pieces)

    def opening(self) -> Json:
        body = dict(self._asked.body)
        body["timings_per_token"] = True
        if self._why_not is None and self._own_probabilities:
            body["logprobs"] = True if self._asked.chat else 1
            if self._asked.chat:
                body["top_logprobs"] = 1
            body["post_sampling_probs"] = True
        return body

    def event(self, event: Json) -> tuple[Json, ...]:
        return self._of_completion(event) if self._native else self._of_chat(event)

    def resume(self) -> Resume:
        if self.finished:
            return Finished(events=self.ending())
        self._timings.another_attempt()
        self._before, self._predicted, self._pending = self._known, 0, []
        if not self._pieces and not self._odd:
            self._again, self._native = True, False
            return Continuation(path=self._asked.path, body=self.opening(), how=AGAIN)
        if self._why_not is not None:
            return NotContinued(reason=self._why_not)
        if self._odd or self._known > MOST_HELD_TOKENS:
            return NotContinued(reason="reasoning" if self._odd else "too_long")
        left = None if self._asked.max_tokens is None else self._asked.max_tokens - self._known
        if left is not None and left <= 0 and not self._asked.stops:
            return Finished(events=self._end("length"))
        if self._asked.pictures:
            return self._prefilled(left)
        return (yield from self._from_ids(left))

    def ending(self) -> tuple[Json, ...]:
        if not self._asked.usage_asked or self._usage_sent or self.prompt_tokens is None:
            return ()  # without a single piece the replica has not told how long the prompt is: none is better than 0
        self._usage_sent = True
        return (self._usage_event(),)

    # the first attempt, and one from the beginning

    def _of_chat(self, event: Json) -> tuple[Json, ...]:
        choice = first_choice(event)
        delta = choice.get("delta") if self._asked.chat else choice
        delta = delta if isinstance(delta, dict) else {}
        timings = event.get("timings")
        if isinstance(timings, dict):
            self._predicted = number(timings.get("predicted_n"))
            self._timings.take(timings, self._before + self._predicted, continued=self._before > 0)
        last_ids = self._take_ids(choice)
        if text := delta.get("content" if self._asked.chat else "text"):
            self._add(text, last_ids[-1] if last_ids else None, last_ids)
        if delta.get("reasoning_content") or delta.get("tool_calls"):
            self._odd = True
        if reason := choice.get("finish_reason"):
            self.finished = True
            if not isinstance(timings, dict):  # with usage asked for, they come with it, in the event after this one
                self._predicted += reason == "stop" and not self._asked.stops  # the end is a token too
        if event.get("usage"):
            self._usage_sent = True
        if choice and not choice.get("finish_reason") and not self._asked.body.get("timings_per_token"):
            event.pop("timings", None)
        if choice and not self._frame:
            self._frame = {key: value for key, value in event.items() if key not in ("choices", "usage", "timings")}
        return self._told_again(event, delta) if self._again else self._told(event, delta)

    def _told(self, event: Json, delta: Json) -> tuple[Json, ...]:
        self._role_sent = self._role_sent or "role" in delta
        return (event,)

    def _told_again(self, event: Json, delta: Json) -> tuple[Json, ...]:
        """The same stream to the client: its id and time, and one role."""
        event.update({key: value for key, value in self._frame.items() if key in event})
        if self._before:  # what it counted itself began with the answer so far as its prompt
            ours = {"usage": self._usage(), "timings": self._timings.told}
            event.update({key: one for key, one in ours.items() if key in event})
        if "role" in delta and self._role_sent:
            return ()
        return self._told(event, delta)

    def _take_ids(self, choice: Json) -> list[int]:
        """The ids that the piece names; takes the field away where the client did not ask for it."""
        found = choice.get("logprobs")
        if self._own_probabilities and self._why_not is None and found is not None:
            if self._asked.chat:
                choice.pop("logprobs")
            else:
                choice["logprobs"] = None
        content = found.get("content") if isinstance(found, dict) else None
        return [one["id"] for one in content or () if isinstance(one, dict) and isinstance(one.get("id"), int)]

    def _add(self, text: str, last: int | None, ids: list[int] | None) -> None:
        count = self._before + self._predicted - self._known
        if count <= 0:
            count = 1
        exact = list(ids) if ids and len(ids) == count else None
        self._pieces.append(Piece(text, count, last, exact))
        self._known += count

    # the rest of it

    def _from_ids(self, left: int | None) -> Resume:
        prompt = yield from self._prompt_ids()
        if prompt is None:
            return NotContinued(reason="prompt_not_found")
        seam = yield from find_seam(self._pieces, self._asked.stops)
        if seam.ended:  # the replica died with the end found and not yet told
            return Finished(events=self._end("stop"))
        if left is not None and left <= 0:
            return Finished(events=self._end("length"))
        self._native = True
        body = self._body(prompt + list(seam.ids), left)
        return Continuation(path="/completion", body=body, how=EXACT if seam.exact else BY_TEXT)

    def _prompt_ids(self) -> Generator[Question, Mapping[str, Any], list[int] | None]:
        body = self._asked.body
        text = body.get("prompt")
        if self._asked.chat:
            said = yield Question(path="/apply-template", body={k: v for k, v in body.items() if k != "stream"})
            text = said.get("prompt")
        if isinstance(text, list) and all(isinstance(one, int) for one in text):
            return list(text)
        if not isinstance(text, str):
            return None
        found = ids_of((yield Question(path="/tokenize", body=tokenized(text, whole=True))))
        # What the first attempt counted: another build or template would show here.
        return found if self.prompt_tokens in (None, len(found)) else None

    def _body(self, prompt: list[int], left: int | None) -> Json:
        body: Json = {key: value for key, value in self._asked.body.items() if key not in _OF_CHAT}
        body |= {"prompt": prompt, "stream": True, "return_tokens": True, "response_fields": _FIELDS}
        if left is not None:
            body["n_predict"] = left
        if not self._own_probabilities:
            top = self._asked.body.get("top_logprobs")
            body["n_probs"] = top if isinstance(top, int) and top else _DEFAULT_TOP
        return body

    def _prefilled(self, left: int | None) -> Continuation:
        """With pictures ids cannot be asked for: the answer so far stands as the message to go on with."""
        body = self.opening()
        body["messages"] = [*self._asked.body["messages"], {"role": "assistant", "content": self.text}]
        if left is not None:
            body = {key: value for key, value in body.items() if key not in ("max_completion_tokens", "n_predict")}
            body["max_tokens"] = left
        self._again, self._role_sent = True, True
        return Continuation(path=self._asked.path, body=body, how=BY_TEXT)

    def _of_completion(self, event: Json) -> tuple[Json, ...]:
        self._predicted = number(event.get("tokens_predicted"))
        tokens = event.get("tokens")
        self._pending += tokens if isinstance(tokens, list) else []
        events: list[Json] = []
        if text := event.get("content"):
            self._add(text, self._pending[-1] if self._pending else None, self._pending)
            self._pending = []
            events.append(self._text_event(text, event.get("completion_probabilities")))
        if event.get("stop"):
            if isinstance(event.get("timings"), dict):
                self._timings.take(event["timings"], self._before + self._predicted, continued=self._before > 0)
            events += self._end("length" if event.get("stop_type") == "limit" else "stop")
        return tuple(events)

    def _text_event(self, text: str, probabilities: object) -> Json:
        choice: Json = {"finish_reason": None, "index": 0, "delta": {"content": text}}
        if not self._asked.chat:
            choice = {"text": text, "index": 0, "logprobs": None, "finish_reason": None}
        if isinstance(probabilities, list):
            choice["logprobs"] = {"content": probabilities}
        return {"choices": [choice], **self._frame}

    def _end(self, reason: str) -> tuple[Json, ...]:
        """The piece with the finish reason, and the usage where it was asked for."""
        self.finished = True
        choice: Json = {"finish_reason": reason, "index": 0, "delta": {}}
        if not self._asked.chat:
            choice = {"text": "", "index": 0, "logprobs": None, "finish_reason": reason}
        last: Json = {"choices": [choice], **self._frame}
        if not self._asked.chat:  # completions carry the usage in the last piece, asked for or not
            self._usage_sent = True
            last["usage"] = self._usage()
        if self._asked.chat and self._asked.usage_asked:
            return (last, *self.ending())
        return (self._timings.beside(last),)

    def _usage_event(self) -> Json:
        return self._timings.beside({"choices": [], **self._frame, "usage": self._usage()})

    def _usage(self) -> Json:
        return self._timings.usage(self.tokens or 0)


def _own_reason(asked: Asked) -> str | None:
    body = asked.body
    if body.get("mirostat"):
        return "mirostat"
    if body.get("n_probs") or body.get("post_sampling_probs"):
        return "probabilities"
    if isinstance(body.get("prompt"), list) and not all(isinstance(one, int) for one in body["prompt"]):
        return "several_prompts"
    return None
