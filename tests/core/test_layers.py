"""Each law of the import contracts, broken on purpose in a copy: exactly the contract that keeps it says so."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMES = {
    "layers": "A package imports only what stands below it in this list",
    "pure": "Deciding touches no clock, chance, file, process or network",
    "runners": "Nobody imports a runner: it is a process of its own",
    "verifier": "The verifier of the event chain shares no code with its writer",
}


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The package and its contracts, to be broken."""
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__", "*.yaml"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def broken_contracts(copy: Path) -> set[str]:
    """Names of the contracts that import-linter finds broken in the copy."""
    seen = subprocess.run(
        (str(Path(sys.executable).with_name("lint-imports")), "--no-logo", "--no-cache"),
        cwd=copy, env={**os.environ, "PYTHONPATH": str(copy / "src")}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    verdicts = dict(re.findall(r"^(.+?) (KEPT|BROKEN)\b", seen.stdout, re.MULTILINE))
    assert set(verdicts) == set(NAMES.values()), seen.stdout + seen.stderr
    assert seen.returncode == (1 if "BROKEN" in verdicts.values() else 0)
    return {name for name, verdict in verdicts.items() if verdict == "BROKEN"}


def add(copy: Path, module: str, line: str) -> None:
    """Append one import to a module of the copy (a package: to its `__init__`)."""
    path = copy / "src" / module.replace(".", "/")
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    file.write_text(file.read_text() + f"\n{line}\n")


def test_the_tree_as_it_is_keeps_every_contract(copy: Path) -> None:
    assert broken_contracts(copy) == set()


@pytest.mark.parametrize(
    ("contract", "module", "line"),
    [
        ("layers", "gonogo.facts.host", "import gonogo.checks.finding"),
        ("layers", "gonogo.words", "import gonogo.store"),
        ("layers", "gonogo.control.observe", "import gonogo.api.server"),
        ("pure", "gonogo.checks.finding", "import subprocess"),
        ("pure", "gonogo.engines.memory", "from pathlib import Path"),
        ("pure", "gonogo.plan.model", "import time"),
        ("pure", "gonogo.actions.model", "import random"),
        ("pure", "gonogo.spec.model", "import os"),
        ("pure", "gonogo.facts.world", "import httpx"),
        ("pure", "gonogo.gateway.translate", "import socket"),
        ("runners", "gonogo.control.launch", "import gonogo.runners.llamacpp"),
        ("verifier", "gonogo.security.verify", "import gonogo.security.chain"),
        ("runners", "gonogo.gateway.policy", "from gonogo import runners"),
    ],
)
def test_a_broken_law_breaks_its_contract_and_no_other(copy: Path, contract: str, module: str, line: str) -> None:
    add(copy, module, line)

    assert broken_contracts(copy) == {NAMES[contract]}


def test_every_package_stands_in_the_layers_or_is_a_runner() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    layers = set(re.findall(r'"([a-z]+)"', text.split("layers = [", 1)[1].split("]", 1)[0]))
    packages = {path.name for path in (ROOT / "src" / "gonogo").iterdir() if (path / "__init__.py").exists()}
    assert packages == layers | {"runners"}
