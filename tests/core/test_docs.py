"""What the papers say is so: every command, option, reason, path and link in them exists."""

from __future__ import annotations

import re
import shlex
import subprocess
from functools import lru_cache
from pathlib import Path

import click
import pytest
import typer
import yaml

from gonogo.cli.main import application
from gonogo.store.kinds import KINDS

ROOT = Path(__file__).parents[2]
PAPERS = sorted(
    path
    for path in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("**/*.md"))
    if not path.name.startswith(".")
)  # fmt: skip
TOP_FOLDERS = ("src", "tests", "docs", "examples", "scripts", "benchmarks", ".ci")


def spans(text: str) -> list[str]:
    """Everything that is set as code: `spans`, fenced blocks and indented lines, one string each."""
    fenced = re.findall(r"^```[^\n]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    lines = [line.strip() for block in fenced for line in block.splitlines()]
    lines += [line.strip() for line in text.splitlines() if line.startswith("    ")]
    return lines + [span.replace("\\|", "|") for span in re.findall(r"`([^`\n]+)`", text)]


@lru_cache
def reasons() -> set[str]:
    found: set[str] = set()
    for file in (ROOT / "src/gonogo/words").glob("*.yaml"):
        found |= set(yaml.safe_load(file.read_text(encoding="utf-8")))
    return found


@pytest.fixture(params=PAPERS, ids=lambda path: str(path.relative_to(ROOT)))
def paper(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


def test_every_reason_event_and_class_named_exists(paper: Path) -> None:
    known = reasons() | names_of_classes() | set(KINDS) | names_of_calls()
    camel = {span for span in spans(paper.read_text(encoding="utf-8")) if re.fullmatch(r"(?:[A-Z][a-z]+){2,}", span)}

    assert camel - known == set()


@lru_cache
def names_of_classes() -> set[str]:
    found: set[str] = set()
    for file in (ROOT / "src").rglob("*.py"):
        found |= set(re.findall(r"^class (\w+)", file.read_text(encoding="utf-8"), re.MULTILINE))
    return found


def names_of_calls() -> set[str]:
    proto = (ROOT / "src/gonogo/rpc/proto/gonogo/v1/inference.proto").read_text(encoding="utf-8")
    return set(re.findall(r"^ *(?:rpc|message|enum) (\w+)", proto, re.MULTILINE))


def test_every_gonogo_command_and_option_named_exists(paper: Path) -> None:
    program = the_program()
    for span in spans(paper.read_text(encoding="utf-8")):
        for line in re.findall(r"(?:^|[/ ])gonogo ([a-z][^#&;]*)", span):
            assert_exists(program, line, span)


@lru_cache
def the_program() -> click.Command:
    return typer.main.get_command(application())


def assert_exists(program: click.Command, line: str, where: str) -> None:
    command, words = program, shlex.split(line.replace("|", " ").replace("[", " ").replace("]", " "))
    if line.count(" | ") > 1:  # a list of verbs: `gonogo up | check | plan`
        assert set(words) <= set(command.commands), where  # type: ignore[attr-defined]
        return
    while words and hasattr(command, "commands"):
        assert words[0] in command.commands, f"no command {words[0]!r} in `{where}`"
        command = command.commands[words.pop(0)]
    options = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    for word in words:
        if word.startswith("-"):
            assert word.partition("=")[0] in options | {"--help"}, f"no option {word!r} in `{where}`"


def test_every_make_target_named_exists(paper: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for span in spans(paper.read_text(encoding="utf-8")):
        for target in re.findall(r"(?:^|PYTHON=\S+ )make ([a-z]+)\b", span):
            assert target in targets, span


def test_every_path_named_exists_and_none_is_of_one_machine(paper: Path) -> None:
    text = paper.read_text(encoding="utf-8")
    for span in spans(text):
        for path in re.findall(rf"(?:^|[\s(])((?:{'|'.join(map(re.escape, TOP_FOLDERS))})/[\w./*-]*)", span):
            assert list(ROOT.glob(path.rstrip("./"))), f"{paper.name} names {path}, which is not there"
    assert not re.findall(r"(?<![\w.~])/(?:work|root|home|opt|Users)/\S*", text)


def test_every_link_leads_somewhere(paper: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", paper.read_text(encoding="utf-8")):
        if not target.startswith(("http://", "https://", "mailto:")):
            assert (paper.parent / target).exists(), f"{paper.name} links to {target}"


def test_the_two_readmes_have_the_same_commands() -> None:
    def commands(name: str) -> list[str]:
        text = (ROOT / name).read_text(encoding="utf-8")
        return [
            re.sub(r"\s+#.*", "", span) for span in spans(text) if re.match(r"(?:make |sh |gonogo |PYTHON=|--)", span)
        ]

    assert commands("README.md") == commands("README.zh-CN.md")


def test_every_runtime_dependency_has_its_reason_and_no_other_has() -> None:
    named = set(re.findall(r"^([a-z][\w-]*)", (ROOT / "requirements.in").read_text(), re.MULTILINE))
    rows = re.findall(r"^\| (`[^|]+`) \|", (ROOT / "docs/decisions/0002-dependencies.md").read_text(), re.MULTILINE)

    assert {name for row in rows for name in re.findall(r"`([^`]+)`", row)} == named


def test_architecture_is_short_enough_to_be_read() -> None:
    assert len((ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8").splitlines()) <= 150


def test_every_part_of_the_guide_is_in_the_map() -> None:
    text = (ROOT / "docs/guide.zh-CN.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith(("| --- ", "| 指南的"))]
    for item in GUIDE:
        assert any(item in row.split("|")[1] for row in rows), f"the map lacks {item}"
    for row in rows:
        ours = row.replace("\\|", " ").split("|")[2]
        assert "`" in ours or "尚未实现" in ours, f"a row without command, check or 尚未实现: {row}"


GUIDE = (
    "显存 ≥ 80 GB", "312 TFLOPS", "4 卡", "estimate_gpu_memory", "热存储", "温存储", "冷存储",
    "Ubuntu 22.04", "535.154.02", "CUDA Toolkit 12.2", "Docker ≥ 24", "conda", "torch==2.0.1", "版本矩阵",
    "4bit", "load_in_4bit", "性能对比", "DynamicBatchScheduler", "服务发现", "负载均衡", "gRPC", "Envoy 配置", "Celery",
    "TLS 1.3", "AES-256", "encrypt_data", "10 类", "模型加载/卸载", "用户认证", "脱敏", "异常请求拦截", "阈值告警",
    "灰度", "85 %", "RPO", "Spot", "21 天", "99.97", "检查清单",
)  # fmt: skip


def test_the_licence_is_the_one_that_is_declared() -> None:
    licence = (ROOT / "LICENSE").read_text()
    assert 'license = "Apache-2.0"' in (ROOT / "pyproject.toml").read_text()
    assert "Apache License" in licence
    assert "9. Accepting Warranty or Additional Liability" in licence


def test_no_lock_names_a_host_and_no_paper_a_directory_of_the_machine_it_was_written_on() -> None:
    """Locks and papers are for everybody: a lock has no address, and no tracked file this checkout's or home's path."""
    locks = ("git", "grep", "-nIE", "://|--(extra-)?index-url|--find-links", "--", "*.lock")
    places = [str(place) for place in (ROOT, Path.home()) if len(place.parts) > 2]
    words = [word for place in places for word in ("-e", place)] or ["-e", str(ROOT)]
    for command in (locks, ("git", "grep", "-nIF", *words)):
        found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if found.returncode > 1:
            pytest.skip(f"not a git checkout: {found.stderr.strip()}")
        assert found.stdout == ""
