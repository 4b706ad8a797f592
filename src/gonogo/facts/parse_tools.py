"""Reads what the tools around an engine say: container engine, CUDA toolkit, NCCL, and the cards of other makers."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

from gonogo.facts.accelerator import OtherAccelerator
from gonogo.facts.driver_trouble import words_of

LONGEST_TEXT = 1_000_000
_VERSION = r"(\d{1,4}(?:\.\d{1,6}){1,3}(?:[-+~][\w.]{1,20})?)"


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerEngine:
    """A container engine: versions of its command and of its service (the same program for podman).

    `running` False: the command is there and its service does not answer, or not this user; `words` is why.
    """

    name: str
    client_version: str | None
    server_version: str | None
    running: bool | None
    words: str | None = None


def parse_container_engine(text: str) -> ContainerEngine | None:
    """`docker version` as JSON, or podman's; None: neither. Lines around the JSON say why the service is silent."""
    found = _json_line(text)
    client = found.get("Client") if found is not None else None
    if found is None or not isinstance(client, dict) or not isinstance(client.get("Version"), str):
        return None
    server = found.get("Server")
    podman = "APIVersion" in client or "OsArch" in client
    server_version = server.get("Version") if isinstance(server, dict) else client["Version"] if podman else None
    said = " ".join(line for line in text.splitlines() if not line.lstrip().startswith(("{", "}", '"')))
    running = isinstance(server_version, str)
    return ContainerEngine(
        name="podman" if podman else "docker",
        client_version=client["Version"],
        server_version=server_version if running else None,
        running=running,
        words=None if running else words_of(said),
    )


def parse_toolkit_version(text: str) -> str | None:
    """`1.17.4` of `NVIDIA Container Toolkit CLI version 1.17.4`."""
    found = re.search(rf"Container Toolkit CLI version {_VERSION}", text[:LONGEST_TEXT])
    return found.group(1) if found else None


def parse_nvcc_version(text: str) -> str | None:
    """`12.2.140` of `Cuda compilation tools, release 12.2, V12.2.140`."""
    found = re.search(rf"Cuda compilation tools, release [\d.]+, V{_VERSION}", text[:LONGEST_TEXT])
    return found.group(1) if found else None


def parse_nccl_library(text: str) -> str | None:
    """`/usr/lib/x86_64-linux-gnu/libnccl.so.2` of what `ldconfig -p` lists; its version is in the file's full name."""
    found = re.search(r"^\s*libnccl\.so\.\d+ \(.*\) => (/\S+)$", text[:LONGEST_TEXT], re.MULTILINE)
    return found.group(1) if found else None


def parse_nccl_file(path: str) -> str | None:
    """`2.18.3` of `libnccl.so.2.18.3`, which `libnccl.so.2` leads to; None where the name tells less."""
    found = re.search(r"libnccl\.so\.(\d{1,2}\.\d{1,3}\.\d{1,3})$", path)
    return found.group(1) if found else None


def parse_amd(text: str) -> tuple[OtherAccelerator, ...] | None:
    """`rocm-smi --showproductname` and `amd-smi static --asic`: how many cards of each name; None: neither."""
    patterns = (("rocm-smi", r"^GPU\[\d+\]\s*: Card [Ss]eries:\s*(\S.*)$"), ("amd-smi", r"^\s*MARKET_NAME:\s*(\S.*)$"))
    for tool, pattern in patterns:
        names = [name.strip() for name in re.findall(pattern, text[:LONGEST_TEXT], re.MULTILINE)]
        if names:
            return _counted("AMD", names, tool)
    return None


def parse_ascend(text: str) -> tuple[OtherAccelerator, ...] | None:
    """`npu-smi info`: how many chips of each name. A chip's second line begins with its number and has the bus id."""
    names, name = [], None
    for line in text[:LONGEST_TEXT].splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        first = cells[0].split()
        on_bus = len(cells) == 3 and re.fullmatch(r"[0-9A-Fa-fx]{4}:\S+", cells[1])
        if on_bus and name is not None:
            names.append(name)
            name = None
        elif not on_bus and len(cells) == 3 and len(first) == 2 and first[0].isdigit():
            name = first[1]
    return _counted("Ascend", names, "npu-smi") if names else None


def _counted(maker: str, names: list[str], seen_by: str) -> tuple[OtherAccelerator, ...]:
    counts = Counter(name if maker in name else f"{maker} {name}" for name in names)
    return tuple(
        OtherAccelerator(maker=maker, name=name, count=count, seen_by=seen_by) for name, count in sorted(counts.items())
    )


def _json_line(text: str) -> dict[str, Any] | None:
    """The one JSON object in the text, on one line or over several."""
    begin, end = text.find("{"), text.rfind("}")
    if begin < 0 or end < begin or len(text) > LONGEST_TEXT:
        return None
    try:
        found = json.loads(text[begin : end + 1])
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
