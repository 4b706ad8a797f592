"""`gonogo clients`, and what `up` prints for a recipe with programs, against a small control process."""

from __future__ import annotations

import ast
import shlex
from pathlib import Path
from typing import Any, Iterator

import pytest

from gonogo.cli import clients
from gonogo.security.keys import ParsedKey, parse
from tests.shell.command_line import gonogo, write_spec
from tests.shell.fake_control import FakeControl, running

ALL = ["curl", "openai", "open-autoglm", "phone-agent", "autoglm-gui"]


@pytest.fixture
def state(tmp_path: Path) -> Path:
    write_spec(tmp_path)
    return tmp_path / "state"


@pytest.fixture
def control(state: Path) -> Iterator[FakeControl]:
    with running(state) as fake:
        fake.polls_until_end = 0
        yield fake


def serve(control: FakeControl, *models: str) -> None:
    """Services of these models, as control's status has them; each is named after its model."""
    first: dict[str, Any] = control.report["status"]["services"][0]
    services = [{**first, "name": model, "model": model, "endpoint": "https://h:1/v1"} for model in models]
    control.broken_status = {**control.status(), "services": services}


def test_a_recipes_programs_are_listed_after_curl_and_openai(state: Path, control: FakeControl) -> None:
    serve(control, "autoglm-phone-9b")
    told = gonogo(state, "clients", "--json").json
    assert [one["name"] for one in told["clients"]] == ALL
    assert (told["endpoint"], told["service"]) == ("https://h:1/v1", "autoglm-phone-9b")
    assert told["ca_file"] == str(control.paths.ca_file) and told["ca_file"] in told["trust_line"]
    assert [one["replaces_trust"] for one in told["clients"]] == [False, False, True, True, True]
    out = gonogo(state, "clients").out
    for one in told["clients"]:
        assert "\n".join(one["lines"]) in out
    assert told["trust_line"] in out


def test_a_model_without_programs_has_curl_and_openai_and_no_word_on_other_cas(
    state: Path, control: FakeControl
) -> None:
    serve(control, "smollm2-135m")
    ran = gonogo(state, "clients")
    assert ran.code == 0 and "SSL_CERT_FILE" not in ran.out and "curl " in ran.out
    assert [one["name"] for one in gonogo(state, "clients", "--json").json["clients"]] == ["curl", "openai"]


def test_the_line_that_makes_a_key_makes_one_for_this_service(state: Path, control: FakeControl) -> None:
    serve(control, "smollm2-135m")
    out = gonogo(state, "clients").out
    made = next(line for line in out.splitlines() if line.startswith("export GONOGO_API_KEY="))
    words = shlex.split(made.partition("$(")[2].removesuffix(")"))
    assert words[3:5] == ["--service", "smollm2-135m"]
    assert isinstance(parse(gonogo(state, *words[1:]).out.strip()), ParsedKey)


def test_with_several_services_one_must_be_named_and_it_must_exist(state: Path, control: FakeControl) -> None:
    serve(control, "smollm2-135m", "autoglm-phone-9b")
    assert gonogo(state, "clients", "--json").json["error"]["reason"] == "WhichService"
    assert gonogo(state, "clients", "autoglm-phone-9b", "--json").json["service"] == "autoglm-phone-9b"
    unknown = gonogo(state, "clients", "other", "--json")
    assert (unknown.code, unknown.json["error"]["reason"]) == (2, "NoService")
    serve(control)
    assert gonogo(state, "clients", "--json").json["error"]["reason"] == "NoService"


def test_without_control_it_says_so(state: Path) -> None:
    ran = gonogo(state, "clients", "--json")
    assert (ran.code, ran.json["error"]["reason"]) == (4, "ControlNotRunning")


def test_up_prints_the_programs_lines_with_the_new_key_and_each_is_whole(state: Path, control: FakeControl) -> None:
    control.report["status"]["services"][0]["model"] = "autoglm-phone-9b"
    out = gonogo(state, "up", "--lang", "zh").out
    line = next(one for one in out.splitlines() if " python main.py " in one)
    words = dict(word.split("=", 1) for word in shlex.split(line) if "=" in word)
    assert isinstance(parse(words["PHONE_AGENT_API_KEY"]), ParsedKey)
    assert words["SSL_CERT_FILE"] == str(control.paths.ca_file)
    snippet = out[out.index("import os\nos.environ") : out.index("\n\nAutoGLM-GUI")]
    assert ast.parse(snippet)
    assert "autoglm-gui --base-url https://127.0.0.1:8443/v1 --model smollm2-135m" in out
    assert "/tls/ca.crt > trusted.crt" in out
    assert "SSL_CERT_FILE会取代其他所有CA" in "".join(out.split()), "wrapped to the terminal"


def test_the_public_cas_are_a_file_of_this_system_or_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(clients, "PUBLIC_CA_FILES", (str(tmp_path / "not"), str(tmp_path / "there.pem")))
    monkeypatch.setattr(clients.ssl, "get_default_verify_paths", lambda: type("P", (), {"openssl_cafile": ""}))
    assert clients.public_ca_file() is None
    (tmp_path / "there.pem").touch()
    assert clients.public_ca_file() == str(tmp_path / "there.pem")
