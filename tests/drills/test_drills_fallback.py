"""A hosted API as fallback: a key that others can read, and requests that leave the house while nobody looks."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from gonogo.spec import Spec
from tests.acceptance.deployment import wait_for
from tests.drills.harness import Yard, assert_only, spec, until
from tests.drills.test_drills_external import FAR, deployed
from tests.free_ports import free_port
from tests.shell.outside_engine import OutsideEngine
from tests.shell.test_external_behind_envoy import certificate

HOSTED, KEY = "glm-hosted", "hosted-key-7"
PARAMETERS = ["model", "messages", "max_tokens", "temperature", "stream"]


def asked(own: str, hosted: str, key_file: Path, ca: str) -> Spec:
    fallback = {"url": hosted, "model": HOSTED, "key_file": str(key_file), "ca_file": ca, "parameters": PARAMETERS}
    port = {"port": free_port()}
    return spec(service=FAR, model=FAR, replicas={"external": [own]}, gateway=port, probes=[], fallback=fallback)


def test_fallback_key(yard: Yard, tmp_path: Path) -> None:
    """Everybody on this host can read the key of the API, and spend its account."""
    key_file = tmp_path / "key"
    key_file.write_text(KEY)
    key_file.chmod(0o644)
    ca, _, _ = certificate(tmp_path, "hosted", "localhost")
    with OutsideEngine(FAR) as own:
        wanted = asked(own.url, "https://localhost:9", key_file, ca)
        found = assert_only(yard.refused(wanted), "fallback_key", "FallbackKeyExposed", f"service/{FAR}")
        assert found["values"]["path"] == str(key_file)
        key_file.unlink()
        assert_only(yard.refused(wanted), "fallback_key", "FallbackKeyUnusable")
        with yard.faults.broken(without=["fallback_key"]), deployed(yard, wanted) as service:
            own.kill()
            with service.client(yard) as client:
                until(lambda: yard.chat(client, model=FAR).status_code == 503, "a fallback without a key is none")


def test_fallback_in_use(yard: Yard, tmp_path: Path) -> None:
    """The only replica dies: every client is answered, by another model, elsewhere, for money."""
    key_file = tmp_path / "key"
    key_file.write_text(KEY)
    key_file.chmod(0o600)
    ca, crt, key = certificate(tmp_path, "hosted", "localhost")
    tls = ("--certificate", crt, "--key", key, "--wants-key", KEY, "--base", "/api/v4")
    with OutsideEngine(FAR) as own, OutsideEngine(HOSTED, *tls) as hosted, contextlib.ExitStack() as stack:
        url, before = f"https://localhost:{hosted.port}/api/v4", yard.last_event()
        service = stack.enter_context(deployed(yard, asked(own.url, url, key_file, ca)))
        client = stack.enter_context(service.client(yard))
        assert "x-gonogo-fallback" not in yard.chat(client, model=FAR).headers
        own.kill()

        def told() -> Any:
            live = [one for one in yard.control.check(FAR) if one["stage"] == "live"]
            return live if any(one["reason"] == "FallbackInUse" for one in live) else None

        found = assert_only(wait_for(told, 30, "it is told"), "fallback_in_use", "FallbackInUse", f"service/{FAR}")
        assert found["values"]["url"] == url
        until(lambda: _away(yard, client) == f"localhost:{hosted.port}", "the hosted API answers")
        streamed = yard.chat(client, model=FAR, stream=True)
        assert streamed.text.endswith("data: [DONE]\n\n")
        assert streamed.headers["x-gonogo-fallback"] == f"localhost:{hosted.port}"
        own.start()
        until(lambda: _away(yard, client) == "", "a replica answers again")
        kinds = wait_for(lambda: _kinds(yard, before), 30, "both events are written")
        assert kinds == ["FallbackBegun", "FallbackEnded"]
        kept = (one for one in yard.state_dir.rglob("*") if one.is_file())
        assert [one for one in kept if KEY.encode() in one.read_bytes()] == [], "the key is in its own file alone"


def _away(yard: Yard, client: Any) -> str | None:
    answer = yard.chat(client, model=FAR)
    return answer.headers.get("x-gonogo-fallback", "") if answer.status_code == 200 else None


def _kinds(yard: Yard, after: int) -> list[str] | None:
    found = [one["kind"] for one in yard.control.events(after) if one["kind"].startswith("Fallback")]
    return found if len(found) >= 2 else None
