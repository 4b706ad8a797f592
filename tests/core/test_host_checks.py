"""What recorded outputs of GPUs lead to: advice, or verdicts where a profile wishes for something."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Iterable

import pytest

from gonogo.checks.accelerators import accelerators_well, shared_memory
from gonogo.checks.catalogue import HOST_CHECKS, of_host
from gonogo.checks.finding import Finding, Verdict
from gonogo.checks.security import clock_kept
from gonogo.facts.accelerator import Accelerator, AcceleratorLink, Driver, OtherAccelerator
from gonogo.facts.host import HostFacts, Installed, SharedMemory, Tools
from gonogo.facts.measured import NO_TORCH, AcceleratorMeasured, LinkMeasured, Measured, StorageMeasured
from gonogo.facts.parse_accelerators import parse_accelerators
from gonogo.facts.parse_sysfs import BlockDevice
from gonogo.facts.parse_tools import ContainerEngine
from gonogo.spec import Gateway
from gonogo.spec.profile import Profile, load_profile
from gonogo.spec.profiles import built_in
from tests.core import worlds

CASES = Path(__file__).parents[1] / "cases" / "facts" / "accelerators"
GUIDE = built_in()["guide"]
REVISION = worlds.revision()
GIB, TERA = 1024**3, 10**12


def seen(case: str, **changes: Any) -> HostFacts:
    read = parse_accelerators((CASES / f"{case}.txt").read_text())
    return replace(worlds.HOST, driver=read.driver, accelerators=read.accelerators, **changes)


def cards(name: str, mebibytes: int, count: int = 4) -> tuple[Accelerator, ...]:
    return tuple(
        Accelerator(index=index, name=name, memory_total_bytes=mebibytes * 1024**2, memory_used_bytes=0)
        for index in range(count)
    )


def asked(host: HostFacts, profile: Profile = GUIDE) -> dict[str, Finding]:
    """Findings of the profile's checks, by subject."""
    world = worlds.world(host=host)
    return {
        one.subject: one for check in of_host(profile, host.measured is not None) for one in check.ask(REVISION, world)
    }


def reasons(found: Iterable[Finding]) -> list[str]:
    return [one.reason for one in found]


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ("two-h100", ["AcceleratorsWell"]),
        ("h100-one-idle", ["AcceleratorsWell"]),
        ("h100-reset-asked", ["AcceleratorFault"]),
        ("h100-one-busy", ["AcceleratorHeld"]),
        ("h100-one-full", ["AcceleratorHeld"]),
        ("nvidiactl-covered", ["DriverTrouble"]),
        ("l40s-x8", ["AcceleratorsWell"]),
        ("rtx-3080-desktop", ["AcceleratorHeld"]),
        ("t4-held", ["AcceleratorHeld"]),
        ("h100-held", ["AcceleratorHeld"]),
        ("gb10-unified-memory", ["AcceleratorHeld"]),
        ("a100-mig", ["AcceleratorPartitioned"]),
        ("h100-ecc", ["AcceleratorErrors"]),
        ("a100-throttled", ["AcceleratorThrottled"]),
        ("t4-unknown-error", ["AcceleratorLost"]),
        ("gb200-lost", ["AcceleratorErrors", "AcceleratorLost"]),
        ("one-of-four-described", ["DriverTrouble", "AcceleratorPartitioned"]),
        ("driver-mismatch", ["DriverTrouble"]),
        ("driver-not-running", ["DriverTrouble"]),
        ("cut-off", ["DriverTrouble"]),
        ("no-devices", ["NotApplicable"]),
    ],
)
def test_a_recorded_output_leads_to_this_advice(case: str, expected: list[str]) -> None:
    host = seen(case)
    if case == "no-devices":
        host = replace(host, driver=None)
    assert reasons(accelerators_well(REVISION, worlds.world(host=host))) == expected


def test_a_driver_that_does_not_answer_is_unknown_with_its_words_and_what_to_do() -> None:
    (found,) = accelerators_well(REVISION, worlds.world(host=seen("driver-mismatch")))
    assert found.verdict is Verdict.UNKNOWN
    assert found.values["why"] == "driver_library_mismatch"
    assert "Driver/library version mismatch" in str(found.values["words"])
    assert "4 attached, 1 described" in str(
        next(iter(accelerators_well(REVISION, worlds.world(host=seen("one-of-four-described"))))).values["words"]
    )


def test_who_holds_a_gpu_is_named_with_pid_and_memory() -> None:
    (found,) = accelerators_well(REVISION, worlds.world(host=seen("t4-held")))
    assert found.values["holders"] == "python (pid 5762) 1005 MiB", "and not the desktop that holds 22 MiB"


@pytest.mark.parametrize(
    ("size", "reason"),
    [(64 * 1024**2, "SharedMemorySmall"), (8 * GIB, "SharedMemoryEnough"), (None, "SharedMemoryUnknown")],
)
def test_shared_memory_is_asked_for_where_there_are_gpus(size: int | None, reason: str) -> None:
    memory = None if size is None else SharedMemory(total_bytes=size, free_bytes=size)
    with_gpus = seen("two-h100", shared_memory=memory)
    assert reasons(shared_memory(REVISION, worlds.world(host=with_gpus))) == [reason]
    without = replace(worlds.HOST, accelerators=(), shared_memory=memory)
    assert reasons(shared_memory(REVISION, worlds.world(host=without))) == ["NotApplicable"]


@pytest.mark.parametrize(("kept", "reason"), [(True, "ClockKept"), (False, "ClockNotKept"), (None, "ClockKeptUnknown")])
def test_the_clock_matters_where_other_machines_compare_theirs(kept: bool | None, reason: str) -> None:
    world = worlds.world(host=replace(worlds.HOST, clock_kept=kept))
    public = worlds.revision(gateway=Gateway(address="0.0.0.0"))
    assert reasons(clock_kept(public, world)) == [reason]
    assert reasons(clock_kept(REVISION, world)) == ["NotApplicable"]


@pytest.mark.parametrize(
    ("name", "mebibytes", "memory", "speed"),
    [
        ("NVIDIA H100 80GB HBM3", 81559, "AcceleratorMemoryEnough", "AcceleratorSpeedEnough"),
        ("NVIDIA A100-SXM4-80GB", 81920, "AcceleratorMemoryEnough", "AcceleratorSpeedEnough"),
        ("NVIDIA A100-SXM4-40GB", 40960, "AcceleratorMemoryTooSmall", "AcceleratorSpeedEnough"),
        ("NVIDIA H20", 97871, "AcceleratorMemoryEnough", "AcceleratorTooSlow"),
        ("Tesla T4", 15360, "AcceleratorMemoryTooSmall", "AcceleratorTooSlow"),
        ("NVIDIA H100 NVL", 95830, "AcceleratorMemoryEnough", "AcceleratorClassUnknown"),
        ("NVIDIA H800", 81559, "AcceleratorMemoryEnough", "AcceleratorClassUnknown"),
    ],
)
def test_the_guide_judges_cards_by_their_class(name: str, mebibytes: int, memory: str, speed: str) -> None:
    found = asked(replace(worlds.HOST, accelerators=cards(name, mebibytes)))
    assert found["accelerators/count"].reason == "AcceleratorsEnough"
    assert found["accelerators/memory"].reason == memory
    assert found["accelerator/0/speed"].reason == speed


def test_an_a100_has_exactly_the_312_tflops_that_the_guide_asks_for() -> None:
    found = asked(replace(worlds.HOST, accelerators=cards("NVIDIA A100-SXM4-80GB", 81920)))["accelerator/0/speed"]
    assert (found.verdict, found.values["tflops"]) == (Verdict.PASS, 312.0)
    stricter = GUIDE.model_copy(update={"accelerators": GUIDE.accelerators.model_copy(update={"fp16_tflops": 313})})  # type: ignore[union-attr]
    found = asked(replace(worlds.HOST, accelerators=cards("NVIDIA A100-SXM4-80GB", 81920)), stricter)[
        "accelerator/0/speed"
    ]
    assert found.reason == "AcceleratorTooSlow"


def test_the_smallest_card_decides() -> None:
    mixed = (*cards("NVIDIA H100 80GB HBM3", 81559, 3), *cards("NVIDIA L40S", 46068, 1))
    found = asked(replace(worlds.HOST, accelerators=mixed))["accelerators/memory"]
    assert (found.reason, found.values["name"]) == ("AcceleratorMemoryTooSmall", "NVIDIA L40S")


def test_too_few_cards_fail_and_unseen_ones_are_unknown() -> None:
    assert asked(seen("two-h100"))["accelerators/count"].reason == "AcceleratorsTooFew"
    assert asked(replace(worlds.HOST, accelerators=()))["accelerators/count"].reason == "AcceleratorsTooFew"
    unseen = asked(replace(worlds.HOST, accelerators=None))["accelerators/count"]
    assert (unseen.reason, unseen.verdict) == ("AcceleratorsUnknown", Verdict.UNKNOWN)
    trouble = asked(seen("driver-not-running"))["accelerators/driver"]
    assert (trouble.reason, trouble.verdict) == ("DriverTrouble", Verdict.UNKNOWN)


def test_cards_of_another_maker_are_named_and_not_counted() -> None:
    ascend = OtherAccelerator(maker="Ascend", name="Ascend 910B3", count=8, seen_by="npu-smi")
    found = asked(replace(worlds.HOST, accelerators=(), others=(ascend,)))["accelerators/count"]
    assert (found.reason, found.verdict) == ("AcceleratorsOfAnotherMaker", Verdict.FAIL)
    assert found.values["others"] == "8 × Ascend 910B3 (npu-smi)"


def test_a_faulty_card_fails_a_profile_that_asks_for_cards() -> None:
    found = asked(seen("h100-ecc"))["accelerator/0/memory"]
    assert (found.reason, found.verdict) == ("AcceleratorErrors", Verdict.FAIL)
    assert next(check for check in of_host(GUIDE, False) if check.name == "accelerators_as_asked").blocks


TOOLS = Tools(
    container_engine=ContainerEngine(name="docker", client_version="24.0.7", server_version="24.0.7", running=True),
    container_toolkit=Installed(name="container toolkit", version="1.17.4", error=None),
    cuda_toolkit=Installed(name="CUDA toolkit", version="12.2.140", error=None),
    nccl=Installed(name="NCCL", version="2.18.3", error=None),
)
GOOD = replace(
    worlds.HOST,
    accelerators=cards("NVIDIA A100-SXM4-80GB", 81920),
    driver=Driver(version="535.154.05", cuda_version="12.2"),
    os_id=("ubuntu", "22.04"),
    tools=TOOLS,
    block_devices=tuple(
        BlockDevice(name=f"nvme{index}n1", kind="nvme", size_bytes=3_840_755_982_336) for index in range(4)
    ),
)


def test_the_host_of_the_guide_passes_whole() -> None:
    found = asked(GOOD)
    assert {one.verdict for one in found.values()} == {Verdict.PASS}
    assert len(found) == 11


@pytest.mark.parametrize(
    ("change", "subject", "reason"),
    [
        ({"os_id": ("ubuntu", "24.04")}, "software/os", "VersionNotAsAsked"),
        ({"os_id": None}, "software/os", "VersionUnknown"),
        ({"driver": Driver(version="535.129.03", cuda_version="12.2")}, "software/nvidia_driver", "VersionNotAsAsked"),
        ({"driver": Driver(version="580.65.06", cuda_version="13.0")}, "software/cuda", "VersionNotAsAsked"),
        ({"driver": Driver(trouble="silent", words="…"), "accelerators": None}, "software/cuda", "VersionUnknown"),
        ({"driver": None, "accelerators": ()}, "software/nvidia_driver", "NotInstalled"),
        ({"driver": None, "accelerators": None}, "software/nvidia_driver", "VersionUnknown"),
        ({"tools": replace(TOOLS, cuda_toolkit=None)}, "software/cuda_toolkit", "NotInstalled"),
        (
            {"tools": replace(TOOLS, nccl=Installed(name="NCCL", version="2.20.5", error=None))},
            "software/nccl",
            "VersionNotAsAsked",
        ),
        (
            {"tools": replace(TOOLS, nccl=Installed(name="NCCL", version=None, error="no"))},
            "software/nccl",
            "VersionUnknown",
        ),
        ({"tools": replace(TOOLS, container_engine=None)}, "software/docker", "NotInstalled"),
        (
            {"tools": replace(TOOLS, container_engine=replace(TOOLS.container_engine, name="podman"))},  # type: ignore[type-var]
            "software/docker",
            "NotInstalled",
        ),
        (
            {
                "tools": replace(
                    TOOLS,
                    container_engine=ContainerEngine(
                        name="docker", client_version="28.2.2", server_version=None, running=False, words="no daemon"
                    ),
                )
            },
            "software/docker",
            "VersionUnknown",
        ),
        ({"block_devices": GOOD.block_devices[:2] if GOOD.block_devices else ()}, "storage/nvme", "NvmeTooSmall"),
        ({"block_devices": None}, "storage/nvme", "NvmeUnknown"),
        ({"block_devices": (BlockDevice(name="vda", kind=None, size_bytes=10**14),)}, "storage/nvme", "NvmeUnknown"),
    ],
)
def test_one_thing_that_is_not_as_asked_is_exactly_one_finding(change: Any, subject: str, reason: str) -> None:
    found = asked(replace(GOOD, **change))
    assert found[subject].reason == reason
    wrong = {one.subject for one in found.values() if one.verdict is not Verdict.PASS}
    assert wrong - {"accelerators/count", "accelerators/driver", "software/cuda", "software/nvidia_driver"} <= {subject}


def test_tools_that_were_not_looked_for_are_unknown_all_of_them() -> None:
    found = asked(replace(GOOD, tools=None))
    unknown = {one.subject for one in found.values() if one.verdict is Verdict.UNKNOWN}
    assert unknown == {f"software/{name}" for name in ("docker", "cuda_toolkit", "container_toolkit", "nccl")}


def test_nccl_is_inside_its_range_at_both_ends() -> None:
    for version, reason in (
        ("2.15.5", "VersionAsAsked"),
        ("2.19.3", "VersionAsAsked"),
        ("2.14.3", "VersionNotAsAsked"),
    ):
        tools = replace(TOOLS, nccl=Installed(name="NCCL", version=version, error=None))
        assert asked(replace(GOOD, tools=tools))["software/nccl"].reason == reason, version


def test_the_default_profile_asks_nothing_of_a_host_without_gpus() -> None:
    assert of_host(built_in()["default"], measured=False) == ()
    for check in HOST_CHECKS[:3]:
        (found,) = check.ask(REVISION, worlds.world())
        assert found.verdict is Verdict.NOT_APPLICABLE


def measured(flops: float | None, copy: float | None, name: str = "NVIDIA H100 80GB HBM3", **more: Any) -> Measured:
    card = AcceleratorMeasured(index=0, name=name, flops_fp16=flops, flops_bf16=None, copy_bytes_per_s=copy)
    return Measured(at=0.0, accelerators=(card,), **more)


@pytest.mark.parametrize(
    ("seen_measured", "reason"),
    [
        (measured(760e12, 2900e9), "MeasuredAsItsClass"),
        (measured(0.65 * 989e12, 0.65 * 3350e9), "MeasuredAsItsClass"),
        (measured(0.64 * 989e12, 2900e9), "MeasuredBelowItsClass"),
        (measured(760e12, 2000e9), "MeasuredBelowItsClass"),
        (measured(None, 2900e9), "NotMeasured"),
        (measured(100e12, 900e9, name="NVIDIA RTX A6000"), "MeasuredClassUnknown"),
        (measured(60e12, 880e9, name="NVIDIA GeForce RTX 3090"), "MeasuredAsItsClass"),
        (measured(60e12, 400e9, name="NVIDIA GeForce RTX 3090"), "MeasuredBelowItsClass"),
        (Measured(at=0.0, accelerators=None, accelerators_problem=NO_TORCH), "NotMeasured"),
        (Measured(at=0.0, accelerators=None, accelerators_problem="torch cannot be loaded"), "NotMeasured"),
        (Measured(at=0.0, accelerators=()), "NotApplicable"),
    ],
)
def test_a_card_must_do_the_asked_part_of_its_data_sheet(seen_measured: Measured, reason: str) -> None:
    check = HOST_CHECKS[3]
    world = worlds.world(host=replace(worlds.HOST, measured=seen_measured))
    assert reasons(check.ask(REVISION, world)) == [reason]


def test_what_was_measured_blocks_only_where_a_profile_asks_for_gpus() -> None:
    by_name = {check.name: check for check in of_host(GUIDE, measured=True)}
    assert by_name["measured_as_its_class"].blocks
    (advice,) = of_host(built_in()["default"], measured=True)
    assert not advice.blocks


@pytest.mark.parametrize(
    ("path", "speed", "expected"),
    [
        (AcceleratorLink(first=0, second=1, kind="NVLink", nvlinks=18), 390e9, ["LinkAsItsKind"]),
        (AcceleratorLink(first=0, second=1, kind="NVLink", nvlinks=18), 25e9, ["LinkBelowItsKind"]),
        (AcceleratorLink(first=0, second=1, kind="NVLink", nvlinks=4), 50e9, ["LinkAsItsKind"]),
        (AcceleratorLink(first=0, second=1, kind="SYS"), 5e9, []),
        (None, 5e9, []),
    ],
)
def test_only_nvlink_is_held_against_what_it_can_do(
    path: AcceleratorLink | None, speed: float, expected: list[str]
) -> None:
    one = measured(760e12, 2900e9, links=(LinkMeasured(first=1, second=0, bytes_per_s=speed),))
    links = () if path is None else (path,)
    world = worlds.world(host=replace(worlds.HOST, measured=one, accelerator_links=links))
    assert reasons(HOST_CHECKS[3].ask(REVISION, world))[1:] == expected


@pytest.mark.parametrize(
    ("tier", "reason"),
    [
        (
            StorageMeasured(tier="hot", path="/nvme", sequential_bytes_per_s=3.1e9, random_reads_per_s=2e5),
            "TierFastEnough",
        ),
        (
            StorageMeasured(tier="hot", path="/nvme", sequential_bytes_per_s=2.9e9, random_reads_per_s=2e5),
            "TierTooSlow",
        ),
        (
            StorageMeasured(tier="hot", path="/nvme", sequential_bytes_per_s=3.1e9, random_reads_per_s=9e4),
            "TierTooSlow",
        ),
        (StorageMeasured(tier="hot", path="/nvme", problem="too little space"), "TierNotMeasured"),
        (None, "TierNotMeasured"),
    ],
)
def test_a_tier_is_held_against_the_speed_that_was_wished(tier: StorageMeasured | None, reason: str) -> None:
    wishes = "{path: /nvme, sequential_mb_s: 3000, random_reads_per_s: 100000}"
    text = f"name: t\ndescription: {{en: t, zh: t}}\nstorage: {{hot: {wishes}}}"
    known = None if tier is None else Measured(at=0.0, storage=(tier,), accelerators=())
    found = asked(replace(worlds.HOST, measured=known), load_profile(text))
    assert found["storage/hot"].reason == reason


def test_every_reason_that_these_checks_give_stands_in_their_list() -> None:
    hosts = [
        GOOD,
        worlds.HOST,
        replace(worlds.HOST, accelerators=()),
        *(seen(path.stem) for path in CASES.glob("*.txt")),
    ]
    for host in hosts:
        for check in of_host(GUIDE, measured=True):
            for one in check.ask(REVISION, worlds.world(host=host)):
                assert one.reason in (*check.reasons, "NotApplicable")
