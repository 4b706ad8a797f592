"""The rules by promtool, and the dashboard's queries by a real Prometheus that scrapes the real /metrics."""

from __future__ import annotations

import contextlib
import json
import math
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Iterator
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest
import yaml

from gonogo.api.server import Server, application
from gonogo.control.metrics import from_store
from gonogo.monitoring import file_text
from gonogo.monitoring.exposition import text
from gonogo.runtimes.paths import StatePaths
from gonogo.spec import Spec
from gonogo.spec.model import Slo
from gonogo.store import open_store
from tests.core.test_monitoring import measured
from tests.free_ports import free_port

CASES = Path(__file__).parent.parent / "cases" / "monitoring" / "rules"
MAY_BE_EMPTY: frozenset[str] = frozenset()
"""Panels that have nothing to show in a deployment of which everything is seen: none."""


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed (Debian: apt-get install prometheus)")
    return found


def promtool(*words: str, cwd: Path | None = None, given: str | None = None) -> None:
    """It has nothing to say against what it was given."""
    whole = [tool("promtool"), *words]
    done = subprocess.run(whole, check=False, cwd=cwd, input=given, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("case", sorted(CASES.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_rules_fire_when_they_should_and_only_then(case: Path) -> None:
    promtool("test", "rules", case.name, cwd=case.parent)


def test_the_rules_are_rules_and_each_alert_has_a_case_in_which_it_fires(tmp_path: Path) -> None:
    printed = run_gonogo("render", "rules")
    (tmp_path / "rules.yaml").write_text(printed)
    promtool("check", "rules", "rules.yaml", cwd=tmp_path)
    alerts = {one["alert"] for group in yaml.safe_load(printed)["groups"] for one in group["rules"] if "alert" in one}
    tests = [test for case in CASES.glob("*.yaml") for test in yaml.safe_load(case.read_text())["tests"]]
    asked = [one for test in tests for one in test.get("alert_rule_test", ())]
    assert {one["alertname"] for one in asked if one["exp_alerts"]} == alerts


def test_the_text_is_in_prometheus_form() -> None:
    promtool("check", "metrics", given=text(measured()))


def test_every_query_of_the_dashboard_has_an_answer(tmp_path: Path) -> None:
    """Control's real API, the real exporter, a real Prometheus; the deployment behind it is made, and works."""
    with exporter(tmp_path) as port, prometheus(tmp_path, port) as ask:
        until_scraped(ask)
        dashboard = json.loads(run_gonogo("render", "dashboard"))
        empty, asked = set(), 0
        for panel in dashboard["panels"]:
            for target in panel.get("targets", ()):
                expression = target["expr"].replace("$__rate_interval", "10s").replace("$__range", "1m")
                answer = ask("query", query=expression.replace("$service", ".*"))
                assert answer["status"] == "success", (panel["title"], answer)
                values = [float(one["value"][1]) for one in answer["data"]["result"]]
                asked += 1
                if not values or all(map(math.isnan, values)):
                    empty.add(panel["title"])
        assert asked > 30
        assert empty == MAY_BE_EMPTY
        (variable,) = [one for one in dashboard["templating"]["list"] if one["type"] == "query"]
        label = variable["definition"].removeprefix("label_values(").removesuffix(")").split(", ")
        found = ask("series", **{"match[]": label[0]})
        assert {one[label[1]] for one in found["data"]} == {"svc", "other", "-"}
        rules = ask("rules")["data"]["groups"]
        assert len(rules) == 6
        assert all(one["health"] == "ok" for group in rules for one in group["rules"])


def test_the_exporter_tells_what_the_store_knows_when_control_is_dead(tmp_path: Path) -> None:
    from gonogo.store import open_store

    paths = StatePaths.of(tmp_path / "state")
    paths.make()
    open_store(paths.database, clock=time.time).close()
    printed = run_gonogo("metrics", "--state-dir", str(paths.root))
    assert "gonogo_control_up 0.0" in printed
    nowhere = run_gonogo("metrics", "--state-dir", str(tmp_path / "nothing"), code=4)
    assert nowhere == ""


@pytest.mark.parametrize("address", ["0.0.0.0:9464", "192.0.2.1:9464", "localhost:9464", "127.0.0.1:http", "9464:"])
def test_metrics_are_served_on_the_loopback_alone(tmp_path: Path, address: str) -> None:
    run_gonogo("metrics", "--listen", address, "--state-dir", str(tmp_path), code=2)


def run_gonogo(*words: str, code: int = 0) -> str:
    whole = [sys.executable, "-m", "gonogo.cli.main", *words]
    done = subprocess.run(whole, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


class GrowingDesk:
    """In place of control's desk: at each look the deployment has served more."""

    def __init__(self) -> None:
        self.looks = 0

    def metrics(self) -> str:
        self.looks += 1
        return text(measured(self.looks))


@contextlib.contextmanager
def exporter(folder: Path) -> Iterator[int]:
    """Control's API on its socket and `gonogo metrics --listen` before it: the port."""
    import socket

    import uvicorn

    paths = StatePaths.of(folder / "state")
    paths.make()
    server = Server(uvicorn.Config(application(GrowingDesk()), log_level="warning", lifespan="off"))  # type: ignore[arg-type]
    bound = socket.socket(socket.AF_UNIX)
    bound.bind(str(paths.control_socket))
    thread = threading.Thread(target=server.run, args=([bound],), daemon=True)
    thread.start()
    port = free_port()
    words = [sys.executable, "-m", "gonogo.cli.main", "metrics", "--state-dir", str(paths.root)]
    process = subprocess.Popen([*words, "--listen", f"127.0.0.1:{port}"], stdout=subprocess.DEVNULL)
    try:
        yield port
    finally:
        process.terminate()
        process.wait(10)
        server.should_exit = True
        thread.join(10)


@contextlib.contextmanager
def prometheus(folder: Path, target: int) -> Iterator[Any]:
    """A Prometheus of its own with our rules: a function that asks its API."""
    binary, port = tool("prometheus"), free_port()
    (folder / "rules.yaml").write_text(file_text("rules.yaml").replace("interval: 30s", "interval: 1s"))
    job = {"job_name": "gonogo", "static_configs": [{"targets": [f"127.0.0.1:{target}"]}]}
    config = {
        "global": {"scrape_interval": "500ms", "evaluation_interval": "1s"},
        "rule_files": ["rules.yaml"],
        "scrape_configs": [job],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    words = [
        binary,
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=error",
    ]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def ask(path: str, **values: str) -> Any:
        query = f"?{urlencode(values)}" if values else ""
        with urlopen(f"http://127.0.0.1:{port}/api/v1/{path}{query}", timeout=10) as answer:
            return json.loads(answer.read())

    try:
        yield ask
    finally:
        process.terminate()
        process.wait(20)


def until_scraped(ask: Any) -> None:
    """Four scrapes are in: then rates over a few seconds have values."""
    ends = time.monotonic() + 60
    while time.monotonic() < ends:
        with contextlib.suppress(OSError):
            answer = ask("query", query="count_over_time(gonogo_audit_events_total[1m])")
            found = answer["data"]["result"]
            groups = ask("rules")["data"]["groups"]
            evaluated = groups and all(one["health"] != "unknown" for group in groups for one in group["rules"])
            if found and float(found[0]["value"][1]) >= 4 and evaluated:
                return
        time.sleep(0.1)
    raise AssertionError("Prometheus did not scrape")


def test_what_specs_promise_is_told_also_without_control(tmp_path: Path) -> None:
    with contextlib.closing(open_store(tmp_path / "gonogo.db", clock=time.time)) as store:
        with store.change(epoch=store.acquire_lease("test"), actor="control", principal="test") as change:
            for name, ttft_ms in (("strict", 800), ("silent", None)):
                change.add_revision(Spec(service=name, model="m.gguf", slo=Slo(ttft_ms=ttft_ms)))
        assert from_store(store).promised_s == {"strict": 0.8}
