"""Looking for accelerators with real programs on the search path: ones that print recorded outputs, fail or hang."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from gonogo.facts import table
from gonogo.facts.accelerator import OtherAccelerator
from gonogo.facts.fact import Fact
from gonogo.runtimes import look_accelerators
from gonogo.runtimes.ask import ask
from gonogo.runtimes.look import look_at_accelerators

CASES = Path(__file__).parents[1] / "cases" / "facts"


@pytest.fixture
def bin_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A search path with nothing on it but what a test puts there, and an empty PCI bus."""
    folder = tmp_path / "bin"
    folder.mkdir()
    bus = tmp_path / "pci"
    bus.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(look_accelerators, "PCI", str(bus))
    monkeypatch.setattr(look_accelerators, "NODES", {"NVIDIA": str(tmp_path / "dev/nvidia[0-9]*")})
    return folder


def program(folder: Path, name: str, script: str) -> None:
    place = folder / name
    place.write_text(f"#!/bin/sh\n{script}\n")
    place.chmod(0o755)


def smi(folder: Path, case: str, code: int = 0, topology: str = "two-5090") -> None:
    """nvidia-smi that answers each of our questions as the recorded outputs do."""
    cat = "/bin/cat"
    program(
        folder,
        "nvidia-smi",
        f'case "$*" in "-q -x") {cat} {CASES}/accelerators/{case}.txt; exit {code};; '
        f'"topo -m") {cat} {CASES}/topology/{topology}.txt;; *) {cat} {CASES}/capabilities/two.txt;; esac',
    )


def pci(tmp_path: Path, name: str, vendor: str, device: str, kind: str) -> None:
    folder = tmp_path / "pci" / name
    folder.mkdir()
    for file, text in (("vendor", vendor), ("device", device), ("class", kind)):
        (folder / file).write_text(text + "\n")


def test_gpus_their_capability_and_how_they_are_joined_are_seen(bin_folder: Path) -> None:
    smi(bin_folder, "two-h100")
    seen = look_at_accelerators()
    assert seen.driver is not None and (seen.driver.version, seen.driver.cuda_version) == ("580.105.08", "13.0")
    assert seen.accelerators is not None
    assert [one.compute_capability for one in seen.accelerators] == ["9.0", "9.0"]
    assert seen.links is not None and [one.kind for one in seen.links] == ["PHB"]


def test_without_the_tool_and_without_a_card_there_is_none(bin_folder: Path) -> None:
    seen = look_at_accelerators()
    assert (seen.accelerators, seen.driver, seen.others) == ((), None, ())


def test_a_card_whose_driver_is_not_installed_is_not_no_card(bin_folder: Path, tmp_path: Path) -> None:
    pci(tmp_path, "0000:53:00.0", "0x10de", "0x2330", "0x030200")
    seen = look_at_accelerators()
    assert seen.accelerators is None
    assert seen.driver is not None and seen.driver.trouble == "no_tool"
    assert "1 × NVIDIA 0x2330 (PCI bus)" in str(seen.driver.words)


@pytest.mark.parametrize(
    ("case", "code", "trouble"),
    [
        ("driver-mismatch", 18, "library_mismatch"),
        ("driver-not-running", 9, "not_running"),
        ("fallen-off-the-bus", 15, "lost"),
        ("nvml-unknown-error", 255, "not_initialised"),
        ("nvidiactl-covered", 17, "not_initialised"),
        ("cut-off", 0, "unreadable"),
    ],
)
def test_a_driver_that_fails_is_a_trouble_in_its_own_words_and_never_no_gpu(
    bin_folder: Path, case: str, code: int, trouble: str
) -> None:
    smi(bin_folder, case, code)
    seen = look_at_accelerators()
    assert seen.accelerators is None
    assert seen.driver is not None and seen.driver.trouble == trouble
    assert seen.driver.words


def test_a_driver_that_answers_that_there_is_no_device_is_believed(bin_folder: Path) -> None:
    smi(bin_folder, "no-devices", 6)
    assert look_at_accelerators().accelerators == ()


def test_no_device_is_not_believed_where_the_bus_has_a_card(bin_folder: Path, tmp_path: Path) -> None:
    smi(bin_folder, "no-devices", 6)
    pci(tmp_path, "0000:00:06.0", "0x10de", "0x2330", "0x030200")
    seen = look_at_accelerators()
    assert seen.accelerators is None
    assert seen.driver is not None and seen.driver.trouble == "closed"
    assert seen.driver.words == "No devices were found; there is 1 × NVIDIA 0x2330 (PCI bus)"


def test_a_driver_that_hangs_is_left_after_its_time(bin_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(bin_folder, "nvidia-smi", "exec /bin/sleep 60")
    patient = table.ACCELERATORS
    quick = Fact(name=patient.name, command=patient.command, parse=patient.parse, timeout_s=0.3)
    monkeypatch.setattr(table, "ACCELERATORS", quick)
    began = time.monotonic()
    seen = look_at_accelerators()
    assert time.monotonic() - began < 3.0
    assert seen.driver is not None
    assert (seen.driver.trouble, seen.driver.words) == ("silent", "nvidia-smi did not answer within 0.3 s")


def test_what_a_hanging_program_started_ends_with_it(bin_folder: Path, tmp_path: Path) -> None:
    program(bin_folder, "parent", f"/bin/sleep 60 & echo $! > {tmp_path}/child; wait")
    assert ask(("parent",), 0.5).silent
    child = int((tmp_path / "child").read_text())
    deadline = time.monotonic() + 5.0
    while alive(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(child)


def alive(pid: int) -> bool:
    """Whether it runs: a process that ended may wait for its parent."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_program_that_prints_without_end_is_cut_off_and_ended(bin_folder: Path) -> None:
    program(bin_folder, "babbler", "while :; do echo 0123456789012345678901234567890123456789; done")
    began = time.monotonic()
    answer = ask(("babbler",), 30.0)
    assert answer.problem is not None or len(answer.text) <= 5 * 1024 * 1024
    assert time.monotonic() - began < 20.0


def test_cards_of_other_makers_are_named_by_the_bus(bin_folder: Path, tmp_path: Path) -> None:
    pci(tmp_path, "0000:c1:00.0", "0x19e5", "0xd802", "0x120000")
    pci(tmp_path, "0000:c2:00.0", "0x19e5", "0xd802", "0x120000")
    pci(tmp_path, "0000:00:02.0", "0x1234", "0x1111", "0x030000")
    pci(tmp_path, "0000:00:03.0", "0x1002", "0x74a1", "0x020000")
    seen = look_at_accelerators()
    assert seen.accelerators == (), "the cards of others are no NVIDIA cards"
    assert seen.others == (OtherAccelerator(maker="Ascend", name="Ascend 0xd802", count=2, seen_by="PCI bus"),)


def test_the_makers_own_tool_knows_a_better_name(bin_folder: Path, tmp_path: Path) -> None:
    pci(tmp_path, "0000:c1:00.0", "0x1002", "0x74a1", "0x120000")
    program(bin_folder, "rocm-smi", f"/bin/cat {CASES}/amd/rocm-smi-mi300x.txt")
    (one,) = look_at_accelerators().others or ()
    assert (one.maker, one.name, one.count) == ("AMD", "AMD Instinct MI300X OAM", 2)
