"""`gonogo check` of hosts: what it shows of this one, profiles that are chosen, what measuring finds, end to end."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from gonogo.runtimes import measure
from tests.shell.command_line import Ran, gonogo
from tests.shell.test_look_accelerators import CASES, program
from tests.shell.test_measure import FAKE_TORCH


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def reasons(ran: Ran) -> dict[str, str]:
    return {one["subject"]: one["reason"] for one in ran.json["answers"]}


def with_gpus(tmp_path: Path, case: str) -> dict[str, str]:
    """A search path whose nvidia-smi answers as recorded."""
    folder = tmp_path / "bin"
    folder.mkdir(exist_ok=True)
    topology = "s/PHB/NV18/"
    program(
        folder,
        "nvidia-smi",
        f'case "$*" in "-q -x") cat {CASES}/accelerators/{case}.txt;; '
        f'"topo -m") sed {topology} {CASES}/topology/two-5090.txt;; *) cat {CASES}/capabilities/two.txt;; esac',
    )
    return {"PATH": f"{folder}:{os.environ['PATH']}"}


def test_this_host_is_shown_in_both_languages_and_nothing_is_changed(state: Path) -> None:
    english, chinese = gonogo(state, "check"), gonogo(state, "check", "--lang", "zh")
    assert english.code == chinese.code == 0
    for word in ("This host", "Processor", "Accelerators", "Tools", "open files"):
        assert word in english.out, word
    assert "本机" in chinese.out and "处理器" in chinese.out
    assert max(len(line) for line in english.out.splitlines()) <= 80
    assert not state.exists()


def test_the_default_asks_nothing_about_gpus_of_a_host_without_any(state: Path, tmp_path: Path) -> None:
    ran = gonogo(state, "check", "--json")
    assert ran.code == 0 and ran.json["profile"] == "default"
    assert ran.json["host"]["glibc"] is None or ran.json["host"]["glibc"].startswith("2.")
    asked = {one["check"] for one in ran.json["answers"] if one["verdict"] in ("fail", "unknown")}
    assert not asked & {"accelerators_well", "shared_memory", "clock_kept"}


def test_a_chosen_profile_blocks_and_says_what_is_missing(state: Path) -> None:
    ran = gonogo(state, "check", "--profile", "guide", "--json")
    assert ran.code == 3 and ran.json["error"]["reason"] == "ChecksFail"
    found = reasons(ran)
    assert {"software/os", "software/docker", "storage/nvme"} <= set(found)
    assert ran.json["profile"] == "guide"


def test_recorded_gpus_are_judged_by_the_guide(state: Path, tmp_path: Path) -> None:
    ran = gonogo(state, "check", "--profile", "guide", "--json", env=with_gpus(tmp_path, "two-h100"))
    found = reasons(ran)
    assert found["accelerators/count"] == "AcceleratorsTooFew"
    assert found["accelerators/memory"] == "AcceleratorMemoryEnough"
    assert found["accelerator/0/speed"] == "AcceleratorSpeedEnough"
    assert found["software/nvidia_driver"] == "VersionAsAsked"
    assert found["software/cuda"] == "VersionNotAsAsked", "580 runs CUDA 13"


def test_a_held_gpu_is_advice_that_names_the_process(state: Path, tmp_path: Path) -> None:
    ran = gonogo(state, "check", env=with_gpus(tmp_path, "t4-held"))
    assert ran.code == 0, "advice blocks nothing"
    assert "AcceleratorHeld" in ran.out and "python (pid 5762) 1005" in ran.out


def test_a_profile_of_ones_own_is_read_from_a_file_and_its_tiers_are_relative_to_it(
    state: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "p.yaml").write_text(
        "name: mine\ndescription: {en: m, zh: m}\nstorage: {hot: {path: disk, sequential_mb_s: 1}}\n"
        "software: {kernel: {min: '2.6'}}\n",
        encoding="utf-8",
    )
    ran = gonogo(state, "check", "--profile", str(folder / "p.yaml"), "--json")
    assert ran.code == 3, "a speed that was not measured is not known"
    found = {one["subject"]: one for one in ran.json["answers"]}
    assert found["software/kernel"]["reason"] == "VersionAsAsked"
    assert found["storage/hot"]["reason"] == "TierNotMeasured"
    assert found["storage/hot"]["values"]["path"] == str(folder / "disk")


def test_mistakes_of_a_profile_are_told_at_once_with_line_and_column(state: Path, tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("name: x\nsoftware: {docker: 24}\n", encoding="utf-8")
    ran = gonogo(state, "check", "--profile", "p.yaml", cwd=tmp_path)
    assert ran.code == 2
    assert "✗ p.yaml:1:1: `description` is missing" in ran.err
    assert 'p.yaml:2:20: `software.docker` is 24, which is not text in YAML; write it in quotes: "24"' in ran.err


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--profile", "guid"), "ProfileUnknown"),
        (("--profile", "./none.yaml"), "SpecNotFound"),
        (("--measure", "--python", "./no-such-python"), "OptionMistaken"),
        (("--python", "python3"), "OptionMistaken"),
    ],
)
def test_wrong_input_exits_with_2(state: Path, words: tuple[str, ...], reason: str) -> None:
    ran = gonogo(state, "check", *words, "--json")
    assert ran.code == 2 and ran.json["error"]["reason"] == reason


def test_an_unknown_profile_names_the_nearest_one(state: Path) -> None:
    assert "did you mean guide?" in gonogo(state, "check", "--profile", "guid").err


def test_measuring_shows_numbers_and_judges_gpus_by_their_class(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two pretended H100 that compute like a toy: far below their class, which the guide does not let pass."""
    monkeypatch.setattr(measure, "SECONDS", 0.05)
    monkeypatch.setattr(measure, "MOST_BYTES", 64 * 1024**2)
    env = {**with_gpus(tmp_path, "two-h100"), "PYTHONPATH": f"{FAKE_TORCH}:{os.environ.get('PYTHONPATH', '')}"}
    words = ("check", "--measure", "--python", sys.executable)
    ran = gonogo(state, *words, "--json", env=env)
    assert ran.code == 0, "without a profile it is advice"
    found = reasons(ran)
    assert found["accelerator/0/measured"] == "MeasuredBelowItsClass"
    assert found["accelerator/0/to/1"] == "LinkBelowItsKind"
    assert ran.json["host"]["measured"]["cpu"]["flops_f32"] > 0
    assert ran.json["host"]["measured"]["storage"][0]["tier"] == "hot"
    told = gonogo(state, *words, "--profile", "guide", env=env)
    assert told.code == 3
    assert "GFLOPS f32" in told.out and "random reads/s" in told.out and "MeasuredBelowItsClass" in told.out
    assert "measuring processor and memory: matrix products" in told.err
    assert not state.exists()


def test_docs_print_the_profiles_to_copy(state: Path) -> None:
    listed = gonogo(state, "docs", "profiles")
    assert "profiles/guide" in listed.out and "profiles/default" in listed.out
    place = state.parent / "mine.yaml"
    place.write_text(gonogo(state, "docs", "profiles/guide").out, encoding="utf-8")
    ran = gonogo(state, "check", "--profile", str(place), "--json")
    assert (ran.code, ran.json["profile"]) == (3, "guide")
