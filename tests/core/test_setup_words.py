"""What a user reads when pip fails: one line and the command that mends it, made from what pip really printed."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def install() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gonogo_install", ROOT / "scripts" / "install.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("recorded", "words"),
    [
        ("disk-full", "the disk is full. See: df -h"),
        ("name-not-resolved", "the package index cannot be reached"),
        ("connection-refused", "the package index cannot be reached"),
        ("nothing-known", "cannot be reached, or has no annotated-doc==0.0.7"),
        ("no-wheel", "has no xllamacpp==2026.10.11549 for this Python and processor"),
        ("mirror-behind", "the package index has no xllamacpp==2026.10.11549: a mirror that is behind?"),
        ("hash-mismatch", "not the one that was locked"),
        ("certificate", "export PIP_CERT="),
        ("proxy", "the proxy does not answer"),
        ("something-else", "Its last lines:"),
    ],
)
def test_pip_words_become_the_users(
    install: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recorded: str, words: str
) -> None:
    case = ROOT / "tests" / "cases" / "setup" / f"{recorded}.txt"
    log = tmp_path / "setup.log"
    log.write_text(case.read_text())
    monkeypatch.setattr(install, "LOG", log)

    said = str(install._failure("pip could not install the packages"))

    assert words in said.splitlines()[0]
    assert said.endswith(f"log: {log}")
    assert all(len(line) < 250 for line in said.splitlines())
