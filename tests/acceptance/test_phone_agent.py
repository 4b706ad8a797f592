"""The real, unmodified `phone-agent` against the real gateway: Envoy, policy, TLS and a key; a scripted model behind.

The package has no program: `phone_main.py` stands for Open-AutoGLM's main.py, which GONOGO_AUTOGLM_MAIN=FILE can name.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from gonogo.runtimes.environment_host import look_at_limits
from gonogo.spec.recipe_parts import Program
from gonogo.words.client_lines import Access, client_lines, trust_line
from tests.acceptance.environments import build
from tests.acceptance.phone_parts import RESET, Agent, Ended, PhoneModel, Received, behind_the_gateway, line_of

TASK = "打开微信, 给张三发“晚上好”"
TYPED = "晚上好, Zhang San!"
PREFLIGHT = "Hello"
STEPS = [
    "<think>微信还没有打开, 先启动它。</think><answer>" + 'do(action="Launch", app="微信")',
    "<think>点击输入框。</think><answer>" + 'do(action="Tap", element=[500, 250])',
    "<think>输入文字。</think><answer>" + f'do(action="Type", text="{TYPED}")',
    "<think>完成了。</think><answer>" + 'finish(message="已发送")',
]
SHORT = [PREFLIGHT, STEPS[0], STEPS[3]]
RETRY_HEADER = "x-stainless-retry-count"
"""How often openai's SDK has sent this request before."""


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Agent:
    """The environment as `gonogo env create phone-agent` makes it, a phone, and main.py."""
    if not any(tuple(map(int, one.minor.split("."))) >= (3, 12) for one in look_at_limits().pythons):
        pytest.skip("phone-agent 0.1.1 needs Python 3.12 or newer, and there is none on this machine")
    root = tmp_path_factory.mktemp("phone-agent")
    made = build(root / "state", "phone-agent")
    real = os.environ.get("GONOGO_AUTOGLM_MAIN")
    main = Path(real) if real else Path(__file__).with_name("phone_main.py")
    return Agent.make(Path(made["python_path"]), root / "open-autoglm", main)


async def main_py(agent: Agent, access: Access, phone: Path) -> Ended:
    return await agent.run(f"{line_of(access, Program.OPEN_AUTOGLM)} '{TASK}'", phone)


def test_a_task_of_four_steps_arrives_byte_for_byte_and_the_phone_does_what_the_model_said(
    agent: Agent, tmp_path: Path
) -> None:
    async def story(model: PhoneModel, access: Access) -> None:
        direct = PhoneModel(script=[PREFLIGHT, *STEPS])
        await direct.start()
        plain = f"python main.py --base-url http://127.0.0.1:{direct.port}/v1 --model svc '{TASK}'"
        without = await agent.run(plain, tmp_path / "without", PHONE_AGENT_API_KEY="EMPTY")
        model.script = [PREFLIGHT, *STEPS]
        through = await main_py(agent, access, tmp_path / "through")
        assert direct.server is not None
        direct.server.close()

        assert (without.code, through.code) == (0, 0), through.out
        assert "Result: 已发送" in through.out
        assert [digest(one) for one in model.received] == [digest(one) for one in direct.received]
        assert_asked_as_the_agent_asks(agent, model.received)
        assert_done_on_the_phone(through)
        assert dump(through) == dump(without)
        for one in model.received:
            assert not {"authorization", "cookie"} & set(one.headers)
            assert one.headers["user-agent"].startswith("OpenAI/Python")
        assert_streamed(through.out)

    behind_the_gateway(tmp_path, story)


def digest(request: Received) -> str:
    return hashlib.sha256(request.body).hexdigest()


def dump(ended: Ended) -> list[list[str]]:
    """The calls without the names of temporary files."""
    return [call[:2] if call[0] == "pull" else call for call in ended.calls]


def assert_asked_as_the_agent_asks(agent: Agent, received: list[Received]) -> None:
    preflight, *steps = received
    assert preflight.json == {
        "model": "svc",
        "messages": [{"role": "user", "content": "Hi"}],
        "max_tokens": 5,
        "temperature": 0.0,
        "stream": False,
    }
    for number, request in enumerate(steps):
        asked = dict(request.json)
        messages = asked.pop("messages")
        assert asked == {
            "model": "svc",
            "max_tokens": 3000,
            "temperature": 0.0,
            "top_p": 0.85,
            "frequency_penalty": 0.2,
            "stream": True,
        }
        assert 1_200_000 < len(request.body) < 1_450_000
        assert [part["type"] for part in messages[-1]["content"]] == ["image_url", "text"]
        assert request.images == [messages[-1]["content"][0]["image_url"]["url"]], "old screens are taken out"
        assert hashlib.sha256(sent_png(request)).hexdigest() == as_the_agent_saves(agent, number)
        assert [message["role"] for message in messages] == ["system", *["user", "assistant"] * number, "user"]
        answers = [message["content"] for message in messages if message["role"] == "assistant"]
        for said, kept in zip(STEPS, answers, strict=False):
            assert said.partition("<answer>")[2] in kept, "the streamed answer was put together again"
    assert steps[0].json["messages"][1]["content"][1]["text"].startswith(TASK)


def sent_png(request: Received) -> bytes:
    return base64.b64decode(request.images[0].removeprefix("data:image/png;base64,"), validate=True)


def as_the_agent_saves(agent: Agent, number: int) -> str:
    """The hash of screen `number` after the agent's own library has read and saved it."""
    code = (
        "import hashlib, io, sys; from PIL import Image; out = io.BytesIO()\n"
        "Image.open(sys.argv[1]).save(out, format='PNG'); print(hashlib.sha256(out.getvalue()).hexdigest())"
    )
    words = [str(agent.python), "-I", "-c", code, str(agent.screens / f"{number}.png")]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


def assert_done_on_the_phone(ended: Ended) -> None:
    launched = ["shell", "monkey", "-p", "com.tencent.mm", "-c", "android.intent.category.LAUNCHER", "1"]
    assert ended.of_kind("shell", "monkey") == [launched]
    assert ended.of_kind("shell", "input") == [["shell", "input", "tap", "540", "600"]]
    typed = [call[-1] for call in ended.of_kind("shell", "am", "broadcast", "-a", "ADB_INPUT_B64")]
    assert [base64.b64decode(text).decode() for text in typed] == ["", TYPED]
    assert len(ended.of_kind("shell", "am", "broadcast", "-a", "ADB_CLEAR_TEXT")) == 1
    keyboards = [call[3] for call in ended.of_kind("shell", "ime", "set")]
    assert keyboards == ["com.android.adbkeyboard/.AdbIME", "com.android.inputmethod.latin/.LatinIME"]
    assert len(ended.of_kind("shell", "screencap")) == len(ended.of_kind("pull")) == len(STEPS)
    kinds = [call[1] for call in ended.calls if call[:2] in (["shell", "monkey"], ["shell", "input"], ["shell", "am"])]
    assert kinds == ["monkey", "input", "am", "am", "am"], "in the order of the steps"


def assert_streamed(out: str) -> None:
    """The agent measures itself: the first token of each step came well before the last."""
    first = [float(found) for found in re.findall(r"首 Token 延迟 \(TTFT\): ([\d.]+)s", out)]
    total = [float(found) for found in re.findall(r"总推理时间: +([\d.]+)s", out)]
    assert len(first) == len(total) == len(STEPS), out
    assert all(whole - begun > 0.1 for begun, whole in zip(first, total, strict=True)), (first, total)


@pytest.mark.parametrize("failure", [RESET, 503])
def test_an_engine_that_fails_once_is_asked_again_by_the_gateway_and_the_agent_sees_nothing(
    agent: Agent, tmp_path: Path, failure: str | int
) -> None:
    async def story(model: PhoneModel, access: Access) -> None:
        model.script = [PREFLIGHT, failure, STEPS[0], STEPS[3]]
        ended = await main_py(agent, access, tmp_path / "phone")
        assert "Result: 已发送" in ended.out, ended.out
        hi, failed, again, last = model.received
        assert failed.body == again.body and len(again.body) > 1_200_000
        assert [one.headers[RETRY_HEADER] for one in (hi, failed, again, last)] == ["0"] * 4

    behind_the_gateway(tmp_path, story)


def test_an_error_of_the_engine_reaches_the_agent_which_asks_again_itself_with_the_same_bytes(
    agent: Agent, tmp_path: Path
) -> None:
    async def story(model: PhoneModel, access: Access) -> None:
        model.script = [PREFLIGHT, 500, 429, STEPS[0], STEPS[3]]
        ended = await main_py(agent, access, tmp_path / "phone")
        assert "Result: 已发送" in ended.out, ended.out
        assert [one.headers[RETRY_HEADER] for one in model.received] == ["0", "0", "1", "2", "0"]
        assert len({digest(one) for one in model.received[1:4]}) == 1

    behind_the_gateway(tmp_path, story)


def test_an_engine_that_keeps_failing_costs_four_tries_of_the_gateway_for_each_of_the_agent(
    agent: Agent, tmp_path: Path
) -> None:
    async def story(model: PhoneModel, access: Access) -> None:
        model.script = [PREFLIGHT, 503, 503, 503, 503, STEPS[0], STEPS[3]]
        ended = await main_py(agent, access, tmp_path / "phone")
        assert "Result: 已发送" in ended.out, ended.out
        assert [one.headers[RETRY_HEADER] for one in model.received] == ["0", "0", "0", "0", "0", "1", "0"]

    behind_the_gateway(tmp_path, story)


def test_what_goes_wrong_before_the_start_is_told_to_the_user_in_the_gateways_words(
    agent: Agent, tmp_path: Path
) -> None:
    async def story(model: PhoneModel, access: Access) -> None:
        line = f"{line_of(access, Program.OPEN_AUTOGLM)} '{TASK}'"
        base, key = access.endpoint, access.key or ""
        wrong = {
            "no /v1": (line.replace(base, base.removesuffix("/v1")), "lacks /v1"),
            "whole URL": (line.replace(base, f"{base}/chat/completions"), "is the whole URL of a request"),
            "plain http": (line.replace("https://", "http://"), "This port speaks HTTPS"),
        }
        for name, (changed, told) in wrong.items():
            ended = await agent.run(changed, tmp_path / name.replace("/", ""))
            assert ended.code == 1, ended.out
            assert told in ended.out and f"The base URL is {base}." in ended.out, ended.out
        ended = await agent.run(line.replace(key, key[:-1] + ("x" if key[-1] != "x" else "y")), tmp_path / "key")
        assert ended.code == 1 and "401" in ended.out, ended.out
        ended = await agent.run(line.replace("SSL_CERT_FILE", "NO_CERT_FILE"), tmp_path / "ca")
        assert ended.code == 1 and "onnect" in ended.out, ended.out
        assert model.received == []

    behind_the_gateway(tmp_path, story)


def test_the_lines_for_the_package_and_for_more_than_one_ca_work_when_pasted(agent: Agent, tmp_path: Path) -> None:
    async def story(model: PhoneModel, access: Access) -> None:
        model.script = STEPS[2:]
        snippet = line_of(access, Program.PHONE_AGENT)
        (agent.folder / "paste.py").write_text(snippet, encoding="utf-8")
        ended = await agent.run("python paste.py", tmp_path / "package", stdin=f"{TASK}\n")
        assert "已发送" in ended.out and len(ended.of_kind("shell", "ime", "set")) == 2, ended.out

        public = subprocess.run(
            [str(agent.python), "-m", "certifi"], capture_output=True, text=True, check=True
        ).stdout.strip()
        model.script = list(SHORT)
        joined = trust_line(access, public)
        line = line_of(access, Program.OPEN_AUTOGLM).replace(access.ca_file, "$PWD/trusted.crt")
        ended = await agent.run(f"{joined}\n{line} '{TASK}'", tmp_path / "joined")
        assert "Result: 已发送" in ended.out, ended.out
        whole = (agent.folder / "trusted.crt").read_text(encoding="utf-8")
        assert Path(access.ca_file).read_text() in whole and whole.count("BEGIN CERTIFICATE") > 50

        keyless = Access(endpoint=access.endpoint, ca_file=access.ca_file, service="svc")
        model.script = list(SHORT)
        again = f"{line_of(keyless, Program.OPEN_AUTOGLM)} '{TASK}'"
        ended = await agent.run(again, tmp_path / "keyless", GONOGO_API_KEY=access.key or "")
        assert "Result: 已发送" in ended.out, ended.out

    behind_the_gateway(tmp_path, story)


def test_the_general_lines_work_with_the_agents_own_sdk(agent: Agent, tmp_path: Path) -> None:
    """That environment has openai with httpx2 and no httpx, as `pip install openai` makes it today."""

    async def story(model: PhoneModel, access: Access) -> None:
        curl, openai = client_lines(access)
        (agent.folder / "sdk.py").write_text("\n".join(openai.lines), encoding="utf-8")
        model.script = ["Paris", "Paris"]
        assert (await agent.run("python sdk.py", tmp_path / "sdk")).out == "Paris\n"
        told = await agent.run(curl.lines[0], tmp_path / "curl")
        assert json.loads(told.out)["choices"][0]["message"]["content"] == "Paris"

    behind_the_gateway(tmp_path, story)
