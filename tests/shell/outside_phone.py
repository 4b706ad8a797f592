"""A program: a server as `outside_engine.py` that, asked by a phone agent, answers with the steps of a script.

    with OutsidePhone("phone", folder) as engine: ...

Usage: python -m tests.shell.outside_phone PORT MODEL --folder DIR. Which script it is, the first word of the task says;
which step, the number of answers in the conversation: several such servers answer alike. Each request of an agent is
a line of DIR/asked.jsonl before it is answered, and waits without a byte while DIR/hold-STEP is there, or in the
middle of its answer while DIR/hold-middle-STEP is.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
from pathlib import Path
from typing import Any, Mapping

from tests.shell.outside_engine import OutsideEngine, Program, _event, options

TYPED = "晚上好, Zhang San!"
TAP = "<think>点击。</think><answer>" + 'do(action="Tap", element=[500, 250])'
LOOK = "<think>看看。</think><answer>" + 'do(action="Wait", duration="0 seconds")'
DONE = "<think>完成了。</think><answer>" + 'finish(message="已发送")'
SCRIPTS: Mapping[str, tuple[str, ...]] = {
    "send": (
        "<think>先启动微信。</think><answer>" + 'do(action="Launch", app="微信")',
        TAP,
        "<think>输入文字。</think><answer>" + f'do(action="Type", text="{TYPED}")',
        DONE,
    ),
    "taps": (LOOK, TAP, LOOK, DONE),
    "pay": (TAP, "<think>付款。</think><answer>" + 'do(action="Tap", element=[1, 1], message="pay 10 yuan")'),
    "login": (TAP, "<think>登录。</think><answer>" + 'do(action="Take_over", message="a code is asked for")'),
    "chat": ("I am sorry, I cannot do that.",),
    "endless": (TAP,) * 200,
}
PIECE = 6


class PhoneProgram(Program):
    def __init__(self, told: argparse.Namespace) -> None:
        super().__init__(told)
        self._folder: Path = told.folder
        self._port: int = told.port

    async def _answered(
        self, question: Mapping[str, Any], headers: Mapping[str, str], writer: asyncio.StreamWriter
    ) -> None:
        messages = question["messages"]
        if not isinstance(messages[-1]["content"], list) or not question.get("stream"):
            await super()._answered(question, headers, writer)
            return
        task = str(messages[1]["content"][-1]["text"])
        step = sum(message["role"] == "assistant" for message in messages)
        with (self._folder / "asked.jsonl").open("a") as asked:
            asked.write(json.dumps({"port": self._port, "step": step, "task": task, "pid": os.getpid()}) + "\n")
        while (self._folder / f"hold-{step}").exists():
            await asyncio.sleep(0.02)
        said = SCRIPTS[task.split(maxsplit=1)[0]][step]
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        pieces = [said[at : at + PIECE] for at in range(0, len(said), PIECE)]
        for at, (delta, ended) in enumerate([*(({"content": piece}, None) for piece in pieces), ({}, "stop")]):
            while at == len(pieces) // 2 and (self._folder / f"hold-middle-{step}").exists():
                await asyncio.sleep(0.02)
            choice = {"index": 0, "delta": delta, "finish_reason": ended}
            _event(writer, json.dumps({**self._head("chat.completion.chunk"), "choices": [choice]}))
            await writer.drain()
        _event(writer, "[DONE]")
        writer.write(b"0\r\n\r\n")
        await writer.drain()


class OutsidePhone(OutsideEngine):
    """One such process."""

    program = ("-m", "tests.shell.outside_phone")

    def __init__(self, model: str, folder: Path) -> None:
        super().__init__(model, "--folder", str(folder))


def main() -> None:
    parser = options()
    parser.add_argument("--folder", type=Path, required=True)
    asyncio.run(PhoneProgram(parser.parse_args()).serve())


if __name__ == "__main__":
    main()
