"""Lines to paste, by which a client reaches a service: curl, openai's SDK, and the programs that a recipe names. Pure.

Each line is whole: base URL, CA, model and key. Not here: the sentences around them, and who prints them
(`gonogo.cli.handover`, `gonogo.cli.clients`). Options and variables are the programs' own:
zai-org/Open-AutoGLM@6b18d7b main.py and phone_agent/model/client.py; autoglm-gui 1.5.21 AutoGLM_GUI/__main__.py and
config_manager.py (an option goes before its variable). A key is given by a variable where the program has one: options
are seen by everybody in the process table.
"""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from typing import Callable, Mapping, Sequence

from gonogo.spec.recipe_parts import Program

QUESTION = "What is the capital of France? Answer with one word."
MAX_TOKENS = 64
KEY_VARIABLE = "GONOGO_API_KEY"


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """What a client needs. `endpoint` is the base URL, with /v1; without a `key` lines take $GONOGO_API_KEY."""

    endpoint: str
    ca_file: str
    service: str
    key: str | None = None

    @property
    def shell_key(self) -> str:
        """The key as a word of a POSIX shell."""
        return f'"${KEY_VARIABLE}"' if self.key is None else shlex.quote(self.key)

    @property
    def python_key(self) -> str:
        """The key as a Python expression; `os` must be imported."""
        return f'os.environ["{KEY_VARIABLE}"]' if self.key is None else json.dumps(self.key)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientLines:
    """The lines of one client. `replaces_trust`: they set SSL_CERT_FILE, which takes the place of all other CAs."""

    name: str
    lines: tuple[str, ...]
    replaces_trust: bool = False


def client_lines(access: Access, programs: Sequence[Program] = ()) -> tuple[ClientLines, ...]:
    """curl and openai's SDK, which every service answers, then `programs` in their order."""
    general = (
        ClientLines(name="curl", lines=(curl_line(access),)),
        ClientLines(name="openai", lines=sdk_lines(access)),
    )
    return (
        *general,
        *(ClientLines(name=one.value, lines=_OF[one](access), replaces_trust=True) for one in programs),
    )


def trust_line(access: Access, public_ca_file: str | None) -> str:
    """One line that joins the public CAs and this one in `trusted.crt`; without a file of the system, certifi's."""
    public = '"$(python3 -m certifi)"' if public_ca_file is None else shlex.quote(public_ca_file)
    return f"cat {public} {shlex.quote(access.ca_file)} > trusted.crt"


def curl_line(access: Access) -> str:
    """One line for a POSIX shell."""
    question = {
        "model": access.service,
        "max_tokens": MAX_TOKENS,
        "temperature": 0,
        "messages": [{"role": "user", "content": QUESTION}],
    }
    key = f'"Authorization: Bearer ${KEY_VARIABLE}"' if access.key is None else f"'Authorization: Bearer {access.key}'"
    words = ("curl", "-sS", "--cacert", access.ca_file, access.endpoint + "/chat/completions")
    body = f"-H 'Content-Type: application/json' -d {shlex.quote(json.dumps(question))}"
    return f"{shlex.join(words)} -H {key} {body}"


def sdk_lines(access: Access) -> tuple[str, ...]:
    """Python for openai's SDK, with httpx (before 3) or httpx2 below it: the CA counts for this client alone."""
    messages = json.dumps([{"role": "user", "content": QUESTION}])
    model = json.dumps(access.service)
    return (
        "import os, ssl, openai",
        f"trust = ssl.create_default_context(cafile={json.dumps(access.ca_file)})",
        f"client = openai.OpenAI(base_url={json.dumps(access.endpoint)}, api_key={access.python_key},",
        "                       http_client=openai.DefaultHttpxClient(verify=trust))",
        f"asked = dict(model={model}, max_tokens={MAX_TOKENS}, temperature=0, messages={messages})",
        "answer = client.chat.completions.create(**asked)",
        "print(answer.choices[0].message.content)",
    )


def _open_autoglm(access: Access) -> tuple[str, ...]:
    # PYTHONUTF8: six threads of users on Windows and in other locales (Open-AutoGLM issues 45, 128, 149).
    variables = f"SSL_CERT_FILE={shlex.quote(access.ca_file)} PYTHONUTF8=1 PHONE_AGENT_API_KEY={access.shell_key}"
    return (f"{variables} python main.py {_options(access)}",)


def _phone_agent(access: Access) -> tuple[str, ...]:
    model, url = json.dumps(access.service), json.dumps(access.endpoint)
    return (
        "import os",
        f'os.environ["SSL_CERT_FILE"] = {json.dumps(access.ca_file)}',
        "from phone_agent import PhoneAgent",
        "from phone_agent.model import ModelConfig",
        f"model = ModelConfig(base_url={url}, model_name={model}, api_key={access.python_key})",
        'print(PhoneAgent(model_config=model).run(input("Task: ")))',
    )


def _autoglm_gui(access: Access) -> tuple[str, ...]:
    variables = f"SSL_CERT_FILE={shlex.quote(access.ca_file)} AUTOGLM_API_KEY={access.shell_key}"
    return (f"{variables} autoglm-gui {_options(access)}",)


def _options(access: Access) -> str:
    return f"--base-url {shlex.quote(access.endpoint)} --model {shlex.quote(access.service)}"


_OF: Mapping[Program, Callable[[Access], tuple[str, ...]]] = {
    Program.OPEN_AUTOGLM: _open_autoglm,
    Program.PHONE_AGENT: _phone_agent,
    Program.AUTOGLM_GUI: _autoglm_gui,
}
