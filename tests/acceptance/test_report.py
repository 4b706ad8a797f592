"""The report in a real browser: what a reader sees, in both languages, and that hostile texts stay texts."""

from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from gonogo.api.report.facts import host_rows
from gonogo.api.report.page import render, view
from gonogo.words import message
from tests.acceptance import reports

BROWSER = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
LIMIT_S = 90
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine (apt-get install chromium)")


class Seen(HTMLParser):
    """Tags with their attributes, and the text of a page as it was parsed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def ids(self) -> set[str]:
        return {str(attributes["id"]) for _, attributes in self.tags if "id" in attributes}


def dumped(tmp_path: Path, html: str) -> Seen:
    """The DOM that Chromium makes of a page, after its scripts would have run."""
    assert BROWSER is not None
    file = tmp_path / "report.html"
    file.write_text(html, encoding="utf-8")
    words = (BROWSER, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", file.as_uri())
    done = subprocess.run(words, capture_output=True, text=True, timeout=LIMIT_S, check=True)
    return Seen(done.stdout)


@needs_browser
def test_a_reader_sees_the_verdict_the_five_conditions_and_the_numbers(tmp_path: Path) -> None:
    seen = dumped(tmp_path, render(reports.good(), "en"))
    assert "GO smollm2-135m was asked through its own front door" in seen.text
    assert {"hardware", "software", "model", "network", "security"} <= seen.ids()
    assert {"verdict", "probes", "timing", "memory", "running", "queue", "facts", "events"} <= seen.ids()
    assert "The capital of France is Paris." in seen.text
    assert "6.1 s in all" in seen.text
    assert "= 259.6 MiB" in seen.text, "the addition has its sum"


def test_the_measured_availability_stands_there_with_its_interval_and_the_budget() -> None:
    (hour, month) = view(reports.good(), "en")["availability"]
    assert hour == ("1h", "100.000 % (95 % sure: 99.076–100.000), 0 of 412 failed, 100 % of the error budget left")
    assert month == ("30d", "99.985 % (95 % sure: 99.957–99.995), 3 of 20,483 failed, 51 % of the error budget left")
    assert "99.985 %" in Seen(render(reports.good(), "zh")).text
    assert view(reports.broken(), "en")["availability"] == []


def test_the_queue_stands_there_in_numbers_and_that_nothing_begins_where_that_is_so() -> None:
    rows = dict(view(reports.good(), "en")["queue"])
    told = (rows["waiting"], rows["the oldest of them has waited"], rows["dead letters"], rows["running"])
    assert told == ("12,345", "61.4 s", "1", "8")
    drained = reports.good()
    drained["status"]["queue"] = {**reports.QUEUE, "oldest_age_s": None, "draining": True}
    rows = dict(view(drained, "en")["queue"])
    assert "drain --off" in rows["drained"] and rows["the oldest of them has waited"] == "–"
    assert view(reports.broken(), "en")["queue"] == [], "not read is no empty queue"
    assert "12,345" in Seen(render(reports.good(), "zh")).text


@needs_browser
def test_a_reader_of_chinese_sees_chinese_and_the_findings_that_block(tmp_path: Path) -> None:
    seen = dumped(tmp_path, render(reports.broken(), "zh"))
    assert "不可上线" in seen.text and "5 项阻止性检查" in seen.text
    assert "没有密钥的请求得到 200" in seen.text
    assert dict(seen.tags)["html"]["lang"] == "zh-CN"


@needs_browser
def test_a_hostile_answer_stays_a_text_in_the_browser(tmp_path: Path) -> None:
    data = reports.good(answer=reports.HOSTILE)
    data["events"][0]["detail"] = {"name": reports.HOSTILE}
    data["events"][0]["kind"] = "KeyAdded"
    data["model"]["path"] = reports.HOSTILE
    seen = dumped(tmp_path, render(data, "en"))
    tags = {tag for tag, _ in seen.tags}
    assert "script" not in tags and "img" not in tags
    assert seen.text.count("<script>document.title='taken over'</script>") >= 3
    assert "taken over" not in seen.text[: seen.text.index("gonogo · Deployment report")], "the title is ours"


@needs_browser
@pytest.mark.parametrize("width", [500, 1280])
@pytest.mark.parametrize("lang", ["en", "zh"])
def test_nothing_is_wider_than_the_window(tmp_path: Path, width: int, lang: str) -> None:
    assert BROWSER is not None
    data = reports.good(answer="word" * 200)
    html = render(data, "zh" if lang == "zh" else "en").replace('<meta http-equiv="Content-Security-Policy"', "<meta ")
    measure = "<script>document.title = document.documentElement.scrollWidth + '/' + innerWidth</script></body>"
    file = tmp_path / "report.html"
    file.write_text(html.replace("</body>", measure), encoding="utf-8")
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    words = (BROWSER, *FLAGS, profile, f"--window-size={width},900", "--dump-dom", file.as_uri())
    done = subprocess.run(words, capture_output=True, text=True, timeout=LIMIT_S, check=True)
    found = re.search(r"<title>(\d+)/(\d+)</title>", done.stdout)
    assert found is not None
    assert int(found[1]) <= int(found[2])


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_the_file_needs_nothing_from_outside(lang: str) -> None:
    html = render(reports.broken(), "zh" if lang == "zh" else "en")
    seen = Seen(html)
    for tag, attributes in seen.tags:
        assert tag not in ("script", "link", "img", "iframe", "object"), tag
        assert not (attributes.get("src") or attributes.get("href") or "#").startswith(("http", "//")), tag
    assert "url(" not in html and "@import" not in html
    assert "default-src 'none'" in html


def test_hostile_texts_are_escaped_wherever_they_come_from() -> None:
    data = reports.good(answer=reports.HOSTILE, model_list_right={"wanted": "x", "seen": reports.HOSTILE})
    data["host"]["name"] = data["spec"]["model"] = data["status"]["services"][0]["endpoint"] = reports.HOSTILE
    data["measured"][0]["replica"] = data["memory_plan"]["terms"][0]["source"] = reports.HOSTILE
    for one in data["answers"]:
        one["subject"] = reports.HOSTILE
    assert "<script" not in render(data, "en")


def test_only_a_proven_revision_without_blocking_findings_is_a_go() -> None:
    proven = reports.good()
    assert view(proven, "en")["banner"]["kind"] == "go"
    proven["status"]["services"][0]["phase"] = "proving"
    assert view(proven, "en")["banner"]["kind"] == "open"
    assert view(reports.broken(), "en")["banner"]["kind"] == "nogo"
    unknown = reports.good(keyless_refused=None)
    assert view(unknown, "en")["banner"]["kind"] == "nogo", "an unknown that blocks is no GO"


def test_what_was_not_observed_is_said_and_never_a_zero() -> None:
    data = reports.broken()
    data |= {"host": None, "model": None, "memory_plan": None, "measured": [], "events": []}
    html = render(data, "en")
    assert "not observed" in html
    assert message("report.memory.none", "en") in html
    assert "Not measured yet" in html


def test_planned_stands_beside_measured_with_the_difference() -> None:
    memory = view(reports.good(), "en")["memory"]
    assert memory["replicas"] == ["smollm2-135m/1/0", "smollm2-135m/1/1"]
    weights = next(row for row in memory["rows"] if row["name"] == "weights")
    assert weights["planned"] == "91.6 MiB" and weights["measured"][0] == {"size": "91.0 MiB", "off": "-1 %"}
    assert sum(row["percent"] for row in memory["rows"]) == pytest.approx(100, abs=0.5)


def test_what_was_seen_of_the_host_is_told_with_its_cards_and_tools() -> None:
    data = reports.good()
    data["host"] |= {
        "glibc": "2.36",
        "instruction_sets": ["avx2", "fma", "amx_bf16"],
        "driver": {"version": "550.54.15", "cuda_version": "12.4"},
        "others": [{"name": "Ascend 910B", "count": 2}],
        "tools": {
            "container_engine": {"name": "docker", "server_version": "24.0.7", "client_version": "24.0.7"},
            "container_toolkit": None,
            "cuda_toolkit": {"version": "12.4"},
            "nccl": {"version": None},
        },
    }
    rows = dict(host_rows(data["host"], "en"))
    assert rows["C library (glibc)"] == "2.36"
    assert rows["Instruction sets"] == "avx2 amx_bf16", "those that make inference faster"
    assert rows["NVIDIA driver"] == "550.54.15 · CUDA 12.4"
    assert rows["Other accelerators"] == "2 × Ascend 910B"
    assert rows["Tools"] == "docker 24.0.7 · nvcc 12.4 · NCCL ?"
    plain = dict(host_rows(reports.good()["host"], "en"))
    assert "NVIDIA driver" not in plain and "Other accelerators" not in plain
