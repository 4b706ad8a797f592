"""Reads `nvidia-smi -q -x`: the driver and each GPU. An error text becomes a trouble with its words, never "no GPU".

Safe on anything that a program may print: bounded in size and in GPUs, and what stands before the root (a DOCTYPE, in
which entities could be declared) is dropped unread. Schemas v10 to v13 (drivers 390 to 595) were seen.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Iterable, Mapping
from xml.etree import ElementTree

from gonogo.facts.accelerator import Accelerator, AcceleratorProcess, AcceleratorSlice, Driver, Health, PcieLink
from gonogo.facts.driver_trouble import trouble_of, words_of

MIB = 1024**2
COMMAND = ("nvidia-smi", "-q", "-x")
CAPABILITY_COMMAND = ("nvidia-smi", "--query-gpu=uuid,compute_cap", "--format=csv,noheader")
NONE_THERE = "No devices were found"
LONGEST_TEXT, MOST_ACCELERATORS, MOST_PROCESSES = 4_000_000, 64, 64
SLOWDOWNS = ("hw_slowdown", "hw_thermal_slowdown", "hw_power_brake_slowdown", "sw_thermal_slowdown")
"""Why a clock is held down although there is work: heat, or a power brake from outside."""
_TROUBLES = ("GPU is lost", "Unknown Error", "ERR!", "GPU requires reset")


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverSeen:
    """What one answer of the driver's tool says. `accelerators` None: it said nothing of them."""

    driver: Driver
    accelerators: tuple[Accelerator, ...] | None


def parse_accelerators(text: str) -> DriverSeen:
    """The driver and its GPUs; (): it answered that there is none; None with a trouble: it did not answer."""
    if text.strip().rstrip(".") == NONE_THERE:
        return DriverSeen(driver=Driver(), accelerators=())
    log = _log(text)
    if log is None:
        return DriverSeen(driver=Driver(trouble=trouble_of(text), words=words_of(text)), accelerators=None)
    driver = Driver(version=_word(log, "driver_version"), cuda_version=_word(log, "cuda_version"))
    found = tuple(_one(index, gpu) for index, gpu in enumerate(log.findall("gpu")[:MOST_ACCELERATORS]))
    attached = _whole(log, "attached_gpus")
    if attached is not None and attached > len(found):
        around = re.sub(r"(<\?xml.*?)?<nvidia_smi_log>.*</nvidia_smi_log>", "", text, flags=re.DOTALL).strip()
        words = f"{attached} attached, {len(found)} described" + (f": {words_of(around)}" if around else "")
        return DriverSeen(driver=replace(driver, trouble="lost", words=words), accelerators=found or None)
    return DriverSeen(driver=driver, accelerators=found if found or attached == 0 else None)


def parse_capabilities(text: str) -> Mapping[str, str]:
    """UUID → compute capability, of `nvidia-smi --query-gpu=uuid,compute_cap`; empty where the tool is too old."""
    return dict(re.findall(r"^((?:GPU|MIG)-[0-9a-fA-F-]+), *(\d{1,2}\.\d)\s*$", text, re.MULTILINE))


def with_capabilities(accelerators: Iterable[Accelerator], known: Mapping[str, str]) -> tuple[Accelerator, ...]:
    """The same GPUs with the compute capability that is known of them."""
    return tuple(replace(one, compute_capability=known.get(one.uuid or "")) for one in accelerators)


def _log(text: str) -> ElementTree.Element | None:
    begin, end = text.find("<nvidia_smi_log>"), text.rfind("</nvidia_smi_log>")
    if begin < 0 or end < begin or len(text) > LONGEST_TEXT:
        return None
    try:
        # without its prologue there is no DTD, so an entity is an error and nothing is expanded
        return ElementTree.fromstring(text[begin:end] + "</nvidia_smi_log>")  # noqa: S314
    except ElementTree.ParseError:
        return None


def _one(index: int, gpu: ElementTree.Element) -> Accelerator:
    modes = {"Enabled": True, "Disabled": False}
    return Accelerator(
        index=index,
        name=_word(gpu, "product_name") or "NVIDIA GPU",
        memory_total_bytes=_mebibytes(gpu, "fb_memory_usage/total"),
        memory_used_bytes=_mebibytes(gpu, "fb_memory_usage/used"),
        memory_free_bytes=_mebibytes(gpu, "fb_memory_usage/free"),
        memory_reserved_bytes=_mebibytes(gpu, "fb_memory_usage/reserved"),
        partitioned=modes.get(_word(gpu, "mig_mode/current_mig") or ""),
        uuid=_word(gpu, "uuid"),
        bus=gpu.get("id"),
        slices=_slices(gpu),
        processes=_processes(gpu),
        health=_health(gpu, modes),
        pcie=PcieLink(
            generation=_whole(gpu, "pci/pci_gpu_link_info/pcie_gen/current_link_gen"),
            width=_whole(gpu, "pci/pci_gpu_link_info/link_widths/current_link_width"),
            most_generation=_whole(gpu, "pci/pci_gpu_link_info/pcie_gen/max_link_gen"),
            most_width=_whole(gpu, "pci/pci_gpu_link_info/link_widths/max_link_width"),
        ),
    )


def _health(gpu: ElementTree.Element, modes: Mapping[str, bool]) -> Health:
    yes = {"Yes": True, "No": False}
    pending = (_word(gpu, "remapped_rows/remapped_row_pending"), _retirement(gpu))
    return Health(
        ecc_enabled=modes.get(_word(gpu, "ecc_mode/current_ecc") or ""),
        uncorrected_errors=_uncorrected(gpu),
        remap_pending=next((yes[word] for word in pending if word in yes), None),
        remap_failed=yes.get(_word(gpu, "remapped_rows/remapped_row_failure") or ""),
        slowdowns=_slowdowns(gpu),
        temperature_c=_number(gpu, "temperature/gpu_temp"),
        power_limit_w=_power_limit(gpu),
        persistence=modes.get(_word(gpu, "persistence_mode") or ""),
        trouble=_trouble(gpu),
        recovery=_recovery(gpu),
    )


def _uncorrected(gpu: ElementTree.Element) -> int | None:
    """Since the driver was loaded; before schema v11 double-bit errors were what is uncorrectable."""
    volatile = gpu.find("ecc_errors/volatile")
    if volatile is None:
        return None
    counts = [_whole(volatile, field.tag) for field in volatile if "uncorrectable" in field.tag]
    counts.append(_whole(volatile, "double_bit/total"))
    seen = [count for count in counts if count is not None]
    return sum(seen) if seen else None


def _retirement(gpu: ElementTree.Element) -> str | None:
    """Cards before Ampere retire pages instead of remapping rows."""
    return _word(gpu, "retired_pages/pending_retirement") or _word(gpu, "retired_pages/pending_blacklist")


def _slowdowns(gpu: ElementTree.Element) -> tuple[str, ...] | None:
    for kind in ("event", "throttle"):
        reasons = gpu.find(f"clocks_{kind}_reasons")
        if reasons is not None:
            words = {name: _word(reasons, f"clocks_{kind}_reason_{name}") for name in SLOWDOWNS}
            known = any(word in ("Active", "Not Active") for word in words.values())
            return tuple(name for name, word in words.items() if word == "Active") if known else None
    return None


def _power_limit(gpu: ElementTree.Element) -> float | None:
    places = ("gpu_power_readings/current_power_limit", "power_readings/enforced_power_limit")
    found = (_number(gpu, place) for place in (*places, "power_readings/power_limit"))
    return next((watts for watts in found if watts is not None), None)


def _trouble(gpu: ElementTree.Element) -> str | None:
    """The driver's words where it gives an error for what every card has: its memory and its temperature."""
    told = [
        gpu.findtext(place) or "" for place in ("fb_memory_usage/total", "fb_memory_usage/used", "temperature/gpu_temp")
    ]
    return next((text.strip("[] ") for text in told for trouble in _TROUBLES if trouble in text), None)


def _recovery(gpu: ElementTree.Element) -> str | None:
    action = _word(gpu, "gpu_recovery_action")
    return None if action is None or action == "None" else words_of(action)


def _slices(gpu: ElementTree.Element) -> tuple[AcceleratorSlice, ...] | None:
    found = gpu.findall("mig_devices/mig_device")[:MOST_ACCELERATORS]
    indexes = [(one, _whole(one, "index")) for one in found]
    return (
        tuple(
            AcceleratorSlice(index=index, memory_total_bytes=_mebibytes(one, "fb_memory_usage/total"))
            for one, index in indexes
            if index is not None
        )
        or None
    )


def _processes(gpu: ElementTree.Element) -> tuple[AcceleratorProcess, ...] | None:
    """None where the driver may not tell (`N/A`); (): nobody holds memory."""
    listed = gpu.find("processes")
    if listed is None or (listed.text or "").strip():
        return None
    found = []
    for one in listed.findall("process_info")[:MOST_PROCESSES]:
        pid = _whole(one, "pid")
        if pid is not None:
            name = _program(_word(one, "process_name") or "?")
            found.append(AcceleratorProcess(pid=pid, name=name, memory_bytes=_mebibytes(one, "used_memory")))
    return tuple(found)


def _program(command: str) -> str:
    """The program's name without its folder, and without its arguments, which may hold secrets."""
    return words_of(re.split(r"\s+-", command)[0]).rstrip("/").rpartition("/")[2]


def _word(element: ElementTree.Element, place: str) -> str | None:
    """The text at a place; what the driver cannot say (`N/A`, `Not Found`, an error) is not observed."""
    text = (element.findtext(place) or "").strip().strip("[]")
    unsaid = ("", "N/A", "Not Found", "Insufficient Permissions", "Not Supported", *_TROUBLES)
    return None if text in unsaid or text.startswith("Requested functionality") else text


def _number(element: ElementTree.Element, place: str) -> float | None:
    """The number before the unit: `29 C`, `700.00 W`."""
    found = re.match(r"-?\d{1,12}(\.\d{1,6})?(?=\D|$)", _word(element, place) or "", re.ASCII)
    return float(found.group()) if found else None


def _whole(element: ElementTree.Element, place: str) -> int | None:
    number = _number(element, place)
    return None if number is None else int(number)


def _mebibytes(element: ElementTree.Element, place: str) -> int | None:
    number = _whole(element, place)
    return None if number is None else number * MIB
