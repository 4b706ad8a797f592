"""Looking at environments that are there: conda's, one with files that do not belong, one that is none."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path

import pytest

from gonogo.runtimes.environment_host import look_at_limits
from gonogo.runtimes.environment_look import look_at_file, look_at_prefix
from gonogo.runtimes.package_sources import index_of_pip, package_sources
from gonogo.runtimes.uv import EnvironmentFault
from tests.shell.command_line import gonogo
from tests.shell.test_cli_hosts import with_gpus

ROOT = Path(__file__).parents[2]


def add(prefix: Path, name: str, version: str, files: dict[str, str]) -> Path:
    """One installed package with its RECORD."""
    packages = prefix / "lib/python3.10/site-packages"
    info = packages / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    rows = []
    for path, text in files.items():
        (packages / path).parent.mkdir(parents=True, exist_ok=True)
        (packages / path).write_text(text)
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        rows.append(f"{path},sha256={digest},{len(text)}")
    (info / "RECORD").write_text("\n".join([*rows, f"{info.name}/RECORD,,"]) + "\n")
    return packages


def conda(prefix: Path, **packages: str) -> None:
    (prefix / "conda-meta").mkdir(parents=True)
    for name, version in packages.items():
        record = {"name": name, "version": version, "build": "0", "channel": "conda-forge"}
        (prefix / "conda-meta" / f"{name}-{version}-0.json").write_text(json.dumps(record))


def test_condas_and_pips_packages_are_seen_together(tmp_path: Path) -> None:
    conda(tmp_path, python="3.10.13", pytorch="2.0.1", numpy="1.26.4")
    add(tmp_path, "transformers", "4.30.2", {"transformers/__init__.py": "x = 1\n"})

    seen = look_at_prefix(tmp_path)

    assert (seen.python, seen.conda) == ("3.10.13", True)
    assert {one.name: (one.version, one.origin) for one in seen.packages} == {
        "torch": ("2.0.1", "conda"),
        "numpy": ("1.26.4", "conda"),
        "transformers": ("4.30.2", "pip"),
    }
    assert seen.changed == ()


def test_the_guides_conda_environment_is_judged_by_the_guide(tmp_path: Path) -> None:
    prefix = tmp_path / "auto_glm"
    conda(prefix, python="3.10.13", pytorch="2.0.1")
    add(prefix, "transformers", "4.30.2", {})
    add(prefix, "accelerate", "0.20.3", {})

    ran = gonogo(tmp_path / "state", "env", "check", "--prefix", str(prefix), "--against", "guide", "--json")

    assert ran.code == 3
    assert {one["reason"] for one in ran.json["findings"]} == {"CudaIsTorchs", "NcclIsTorchs", "ModelsNotKnown"}


def test_files_that_changed_went_away_or_run_at_every_start_are_seen(tmp_path: Path) -> None:
    good = {"a/__init__.py": "x = 1\n", "a/gone.py": "", "a_init.pth": "import a\n", "paths.pth": "../shared\n"}
    packages = add(tmp_path, "a", "1.0", good)
    (packages / "a/__init__.py").write_text("x = 2\n")
    (packages / "a/gone.py").unlink()
    (packages / "stray.pth").write_text("../elsewhere\n")
    (packages / "_virtualenv.pth").write_text("import _virtualenv")
    (packages / "sitecustomize.py").write_text("import os\n")

    seen = look_at_prefix(tmp_path)

    assert [(one.path, one.how) for one in seen.changed or ()] == [
        ("a/__init__.py", "changed"),
        ("a/gone.py", "missing"),
    ]
    assert {one.name: (one.owner, bool(one.code)) for one in seen.startup_files or ()} == {
        "_virtualenv.pth": (None, True),
        "a_init.pth": ("a", True),
        "paths.pth": ("a", False),
        "stray.pth": (None, False),
        "sitecustomize.py": (None, True),
    }
    ran = gonogo(tmp_path / "state", "env", "check", "--prefix", str(tmp_path), "--json")
    named = next(one["values"]["files"] for one in ran.json["findings"] if one["reason"] == "StartupFileUnknown")
    assert named == "a_init.pth, stray.pth, sitecustomize.py"


def test_a_poisoned_package_is_found_though_its_files_are_as_installed(tmp_path: Path) -> None:
    add(tmp_path, "litellm", "1.82.8", {"litellm_init.pth": "import base64; exec('')\n"})

    ran = gonogo(tmp_path / "state", "env", "check", "--prefix", str(tmp_path), "--json")

    assert ran.code == 3
    assert {one["reason"] for one in ran.json["findings"]} == {"PackagePoisoned", "StartupFileUnknown"}


@pytest.mark.parametrize("name", ["nowhere", "empty"])
def test_what_is_no_environment_says_so(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(EnvironmentFault) as caught:
        look_at_prefix(tmp_path / name)
    assert caught.value.reason == "EnvironmentNotRead"


def test_a_file_that_cannot_be_read_names_its_line(tmp_path: Path) -> None:
    file = tmp_path / "requirements.txt"
    file.write_text("torch==2.0.1\nwhat is this\n")
    ran = gonogo(tmp_path / "state", "env", "check", "-f", str(file), "--json")
    assert (ran.code, ran.json["error"]["values"]["path"]) == (2, f"{file}:2")


def test_the_corrected_environment_of_the_guide_passes_and_the_printed_one_does_not(tmp_path: Path) -> None:
    good, printed = ROOT / "examples/guide/environment.yml", ROOT / "examples/guide/software/as-printed.txt"
    for words, code in (
        ((str(good),), 0),
        ((str(good), "--against", "autoglm-phone-9b"), 0),
        ((str(printed), "--against", "guide"), 3),
        ((str(printed), "--against", "autoglm-phone-9b"), 3),
    ):
        ran = gonogo(tmp_path / "state", "env", "check", "-f", *words)
        assert ran.code == code, ran.out
    assert look_at_file(good).python == "3.12"


def test_packages_come_from_where_uv_or_pip_were_told() -> None:
    told = {"PIP_INDEX_URL": "https://pip.example/simple", "PIP_FIND_LINKS": "/a /b", "UV_INDEX": "https://x.example/s"}
    sources = package_sources(told, ["/c"])
    assert sources.words() == (
        "--find-links", "/c", "--find-links", "/a", "--find-links", "/b", "--index", "https://x.example/s",
        "--default-index", "https://pip.example/simple",
    )  # fmt: skip
    assert package_sources({**told, "UV_DEFAULT_INDEX": "https://uv.example"}).index == "https://uv.example"
    offline = package_sources(told, ["/c"], offline=True).words()
    assert offline[-2:] == ("--no-index", "--offline") and "--default-index" not in offline


def test_a_mirror_that_pip_was_told_of_in_its_file_is_used(tmp_path: Path) -> None:
    texts = {
        "missing": None,
        "broken": "index-url = x\n[global\n",
        "other": "[global]\ntimeout = 60\n",
        "mirror": "[global]\nindex-url = https://mirror.example/simple\n[install]\ntrusted-host = mirror.example\n",
        "later": "[global]\nindex-url = https://later.example/simple\n",
    }
    for name, text in texts.items():
        if text is not None:
            (tmp_path / name).write_text(text)
    assert index_of_pip([tmp_path / name for name in texts]) == "https://mirror.example/simple"
    assert index_of_pip([tmp_path / "missing", tmp_path / "broken", tmp_path / "other"]) is None


def test_cards_limit_an_environment_as_the_host_check_sees_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", with_gpus(tmp_path, "two-h100")["PATH"])
    seen = look_at_limits()
    assert (seen.accelerators, seen.capabilities) == (2, ("9.0", "9.0"))
    assert seen.driver is not None and seen.driver.count(".") >= 1


def test_a_driver_that_fails_makes_the_cards_unknown_and_not_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", with_gpus(tmp_path, "driver-not-running")["PATH"])
    seen = look_at_limits()
    assert (seen.accelerators, seen.capabilities, seen.driver) == (None, None, None)
