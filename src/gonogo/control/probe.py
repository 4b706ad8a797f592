"""Asks a revision through the front door: the real listener, real TLS, a real key. Looks only; `checks.probes` judges.

A probe key is pinned to the revision, so that a revision without traffic is proven before it gets any.
"""

from __future__ import annotations

import json
import socket
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, Callable, Mapping, Sequence

import httpx

from gonogo.checks.answers import names_of
from gonogo.checks.probes import stream_in_pieces, worst_repeat
from gonogo.control.ask import ONE_S, Chat, Clock, Look, looks
from gonogo.facts.chat import parse_chat
from gonogo.facts.probe import ProbeFacts, Value
from gonogo.security.keys import with_other_secret
from gonogo.spec import Revision

AT_ONCE = 4
"""Questions at the same time, or as many as the spec expects requests, whichever is less."""
LARGE_BODY_BYTES = 1_300_000
REVOCATION_WATCH_S = 3.0
KEY_KNOWN_WITHIN_S = 3.0
UNKNOWN_PATH = "/v1/gonogo-does-not-know-this"
COUNT_PROMPT = "Write one short sentence about the sea."
MAX_TOKENS_ASKED = 5
STREAMS_ASKED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontDoor:
    """Where and how to ask. `revoke` revokes `revocable_key` when called.

    `ca_file` None: the system's own trust store.
    """

    address: str
    port: int
    ca_file: str | None
    key: str
    revocable_key: str
    revoke: Callable[[], None]

    @property
    def base(self) -> str:
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.address, self.address)
        return f"https://{host}:{self.port}"


def ask_everything(
    door: FrontDoor, revision: Revision, sees_images: bool | None, clock: Callable[[], float]
) -> tuple[ProbeFacts, ...]:
    """All probes of one revision, a few at a time; those by the clock at the end, each alone. Blocks for seconds.

    `sees_images` False: probes with pictures are left out. Run it in a thread.
    """
    trust = ssl.create_default_context(cafile=door.ca_file)
    with httpx.Client(base_url=door.base, verify=trust, timeout=ONE_S, trust_env=False) as client:
        left = Clock()
        asker = _Asker(door, revision, client, left)
        asker.wait_until_known()
        chat = Chat(client=client, headers=asker.headers, model=revision.service, clock=left)
        beside, alone = looks(revision, chat, sees_images)
        general: dict[str, Look] = {name: (name, partial(question, asker)) for name, question in GENERAL.items()}
        alone = [*(general.pop(name) for name in BY_THE_CLOCK), *alone]
        at_once = min(AT_ONCE, revision.spec.expect.concurrent_requests)
        with ThreadPoolExecutor(at_once) as pool:
            asked = [pool.submit(_look, look, revision, clock) for look in (*beside, *general.values())]
        return (*(one.result() for one in asked), *(_look(look, revision, clock) for look in alone))


def not_asked(revision: Revision, error: str, at: float) -> tuple[ProbeFacts, ...]:
    """The facts of a revision whose probes could not be asked at all: each of them, and the general ones, with why."""
    names = (*GENERAL, *(name for probe in revision.spec.probes for name in names_of(probe)))
    return tuple(
        ProbeFacts(name=name, service=revision.service, revision=revision.number, at=at, error=error) for name in names
    )


def _look(look: Look, revision: Revision, clock: Callable[[], float]) -> ProbeFacts:
    name, question = look
    error, seen = None, {}
    try:
        seen = dict(question())
    except (httpx.HTTPError, OSError, ValueError, KeyError, TypeError, IndexError) as problem:
        error = f"{type(problem).__name__}: {problem}"[:300]
    return ProbeFacts(name=name, service=revision.service, revision=revision.number, at=clock(), error=error, seen=seen)


def _lines(reads: Sequence[tuple[float, bytes]]) -> list[tuple[float, str]]:
    """Each whole line, with the time of the read that completed it."""
    found: list[tuple[float, str]] = []
    rest = b""
    for at, read in reads:
        *whole, rest = (rest + read).split(b"\n")
        found.extend((at, line.decode("utf-8", "replace").strip()) for line in whole)
    return found


def _hop(answer: httpx.Response) -> str | None:
    """Who made this error, as its envelope says; None where it is not the gateway's envelope."""
    try:
        return str(answer.json()["error"]["hop"])
    except (ValueError, KeyError, TypeError):
        return None


class _Asker:
    def __init__(self, door: FrontDoor, revision: Revision, client: httpx.Client, clock: Clock) -> None:
        self._door = door
        self._revision = revision
        self._client = client
        self._clock = clock
        self.key = door.key
        self.headers = {"authorization": f"Bearer {door.key}"}

    def wait_until_known(self) -> None:
        """Wait until several answers in a row are right, so that nothing is judged in the moment of its change.

        Policy servers read new keys each 100 ms, each by itself (401 until then) and list models by themselves; Envoy
        sends nothing to a replica, or to a relay, that it was just told of before it has asked for its health itself
        (503 until then).
        """
        deadline, known = time.monotonic() + KEY_KNOWN_WITHIN_S, 0
        while known < 6 and time.monotonic() < deadline:
            status = self._client.get("/v1/models", headers=self.headers).status_code
            known = known + 1 if status == 200 else 0
            time.sleep(0.04)
        for streamed in (False, True):
            while time.monotonic() < deadline and not self._reaches_a_replica(streamed):
                time.sleep(0.04)

    def _reaches_a_replica(self, streamed: bool) -> bool:
        """Whatever takes its time has got there. `streamed`: by the way through the relays."""
        question = {**self._question("Hello", 1), "stream": streamed}
        try:
            answer = self._client.post(
                "/v1/chat/completions", headers=self.headers, json=question, timeout=KEY_KNOWN_WITHIN_S
            )
        except httpx.TimeoutException:
            return True
        return answer.status_code != 503

    def old_tls(self) -> Mapping[str, Value]:
        """Offer TLS 1.2 at most. `version` is what was agreed, None when the gateway refused."""
        trust = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        trust.check_hostname = False
        trust.verify_mode = ssl.CERT_NONE
        trust.maximum_version = ssl.TLSVersion.TLSv1_2
        host = httpx.URL(self._door.base).host
        with socket.create_connection((host, self._door.port), timeout=5.0) as plain:
            try:
                with trust.wrap_socket(plain, server_hostname=host) as secured:
                    return {"accepted": True, "version": secured.version()}
            except ssl.SSLError:
                return {"accepted": False, "version": None}

    def status_with(self, key: str | None) -> Mapping[str, Value]:
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        return {"status": self._post(headers, self._question("Hello", 1)).status_code}

    def models(self) -> Mapping[str, Value]:
        answer = self._client.get("/v1/models", headers=self.headers)
        answer.raise_for_status()
        names = sorted(str(model["id"]) for model in answer.json()["data"])
        return {"wanted": self._revision.service, "seen": ", ".join(names)}

    def unknown_path(self) -> Mapping[str, Value]:
        """`hop` is who refused it, as the error says: an engine that got it would answer 404 too."""
        answer = self._client.get(UNKNOWN_PATH, headers=self.headers)
        return {"path": UNKNOWN_PATH, "status": answer.status_code, "hop": _hop(answer)}

    def stream(self) -> Mapping[str, Value]:
        """How far apart the pieces came. What buffers does so each time; this process may be late to look once."""
        seen = self._streamed()
        for _ in range(STREAMS_ASKED - 1):
            if stream_in_pieces(seen):
                break
            seen = self._streamed()
        return seen

    def _streamed(self) -> Mapping[str, Value]:
        """When each piece came, by the clock of the read that brought its end: nothing is parsed before the last."""
        question = {**self._question(COUNT_PROMPT, 24), "stream": True}
        reads: list[tuple[float, bytes]] = []
        timeout = self._clock.left_s()
        with self._client.stream(
            "POST", "/v1/chat/completions", headers=self.headers, json=question, timeout=timeout
        ) as answer:
            answer.raise_for_status()
            for read in answer.iter_bytes():
                reads.append((time.monotonic(), read))
                self._clock.left_s()
        lines = _lines(reads)
        if not any(line == "data: [DONE]" for _, line in lines):
            raise ValueError("the stream ended without [DONE]")
        arrivals = [at for at, line in lines if line.startswith("data: {") and _piece(line)]
        spread_ms = round((arrivals[-1] - arrivals[0]) * 1000, 1) if arrivals else 0.0
        return {"pieces": len(arrivals), "spread_ms": spread_ms}

    def max_tokens(self) -> Mapping[str, Value]:
        _, tokens, _ = self._chat(self._question(COUNT_PROMPT, MAX_TOKENS_ASKED))
        return {"asked": MAX_TOKENS_ASKED, "got": tokens}

    def stop(self) -> Mapping[str, Value]:
        """Ask, take the second word of the answer as stop string, ask the same again.

        Under load a near-tie may flip and the word not come up at all: then ask once more.
        """
        for _ in range(3):
            first, _, _ = self._chat(self._question(COUNT_PROMPT, 24))
            words = first.split()
            stop = words[min(1, len(words) - 1)]
            text, _, reason = self._chat({**self._question(COUNT_PROMPT, 24), "stop": [stop]})
            if stop in text or reason == "stop":
                return {"stop": stop, "answer": text[:400], "finish_reason": reason}
        raise ValueError(f"the model did not come to {stop!r} again in three tries")

    def repetition(self) -> Mapping[str, Value]:
        text, _, _ = self._chat(self._question(COUNT_PROMPT, 64))
        times, words = worst_repeat(text)
        return {"longest_repeat": times, "repeated_words": words, "answer": text[:400]}

    def large_body(self) -> Mapping[str, Value]:
        question = {**self._question("Hello", 1), "metadata": {"padding": "x" * LARGE_BODY_BYTES}}
        answer = self._post(self.headers, question)
        return {"size_mb": round(LARGE_BODY_BYTES / 1e6, 1), "status": answer.status_code}

    def revoked_key(self) -> Mapping[str, Value]:
        """The key works, is revoked, and is asked until it is refused (3 s at most)."""
        headers = {"authorization": f"Bearer {self._door.revocable_key}"}
        before = self._client.get("/v1/models", headers=headers)
        if before.status_code != 200:
            raise ValueError(f"the key to be revoked got {before.status_code} before")
        self._door.revoke()
        revoked_at = time.monotonic()
        while True:
            status = self._client.get("/v1/models", headers=headers).status_code
            seconds = time.monotonic() - revoked_at
            if status == 401 or seconds > REVOCATION_WATCH_S:
                return {"status": status, "seconds": round(seconds, 2)}
            time.sleep(0.05)

    def _question(self, prompt: str, tokens: int) -> dict[str, Any]:
        return {
            "model": self._revision.service,
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": tokens,
            "temperature": 0,
        }

    def _chat(self, question: Mapping[str, Any]) -> tuple[str, int, str]:
        """(what was written, reasoning included; tokens; why it ended)."""
        answer = self._post(self.headers, question)
        answer.raise_for_status()
        reply = parse_chat(answer.status_code, answer.content, answer.elapsed.total_seconds())
        return reply.whole, int(answer.json()["usage"]["completion_tokens"]), reply.finish_reason

    def _post(self, headers: Mapping[str, str], question: Mapping[str, Any]) -> httpx.Response:
        limit_s = self._clock.left_s()
        return self._client.post("/v1/chat/completions", headers=headers, json=question, timeout=limit_s)


def _piece(line: str) -> bool:
    choices = json.loads(line.removeprefix("data: ")).get("choices") or [{}]
    delta = choices[0].get("delta", {})
    return any(delta.get(field) for field in ("content", "reasoning_content", "reasoning"))


GENERAL: Mapping[str, Callable[[_Asker], Mapping[str, Value]]] = MappingProxyType(
    {
        "revoked_key_refused": _Asker.revoked_key,
        "stream_in_pieces": _Asker.stream,
        "max_tokens_honoured": _Asker.max_tokens,
        "stop_honoured": _Asker.stop,
        "no_repetition": _Asker.repetition,
        "large_body_accepted": _Asker.large_body,
        "model_list_right": _Asker.models,
        "unknown_path_refused": _Asker.unknown_path,
        "old_tls_refused": _Asker.old_tls,
        "keyless_refused": lambda asker: asker.status_with(None),
        "wrong_key_refused": lambda asker: asker.status_with(with_other_secret(asker.key)),
    }
)
"""What every service is asked, by the name of its check."""
BY_THE_CLOCK = ("stream_in_pieces",)
"""Judged by when something came: beside other questions this process itself would be late to see it."""
