"""The same engine in a container: a process's words as the words of `docker run` or `podman run`. Pure.

The container has its own network and answers on this host's loopback only; it may not gain rights, sees the model's
folder read-only, writes to memory only, and holds the cards it was given. Not here: running it, and pulling images.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import Iterator

from gonogo.engines.model import Launch, Placement
from gonogo.engines.settings import Refused

MODEL_FOLDER = "/model"
INSIDE = "0.0.0.0"
"""Every interface of the container's own network; the host publishes it on loopback."""
GIB = 1024**3
SHARED_BYTES_PER_CARD = 4 * GIB
"""NCCL and the engine's own queues: 64 MiB, the default, ends tensor parallel starts (vllm-project/vllm issue 1710)."""
SCRATCH, SCRATCH_BYTES = "/tmp", 16 * GIB  # noqa: S108 (inside the container, in memory, its own)
"""Compiled kernels are loaded from there: it must allow `exec`, which docker forbids unless told."""
MOST_PROCESSES = 8192
_OF_THE_HOST = frozenset({"CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "CUDA_HOME", "PYTHONPATH", "VLLM_HOST_IP"})
"""Said of the host; inside the cards are counted from 0 and the toolkit is the image's own."""
_IMAGE = re.compile(r"[a-z0-9][a-z0-9._/:-]{0,200}(?:@sha256:[0-9a-f]{64}|:[A-Za-z0-9][A-Za-z0-9._-]{0,127})")
_USER = re.compile(r"[1-9]\d{0,9}:[1-9]\d{0,9}")
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,120}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """Where the engine's image is and what it may have. Raises Refused for an image without a version, or for root.

    `tool`: docker or podman. `image`: with a digest or a version, never `latest`. `user`: numeric `uid:gid`, not root.
    `shared_bytes`: of /dev/shm, None: by the number of cards.
    """

    tool: str
    image: str
    user: str
    shared_bytes: int | None = None

    def __post_init__(self) -> None:
        if self.tool not in ("docker", "podman"):
            raise Refused("EngineContainerToolUnknown", tool=self.tool[:40])
        if not _IMAGE.fullmatch(self.image) or self.image.endswith(":latest"):
            raise Refused("EngineContainerImageNotPinned", image=self.image[:120])
        if not _USER.fullmatch(self.user):
            raise Refused("EngineContainerUserRefused", user=self.user[:40])


def container_command(launch: Launch, placement: Placement, container: Container) -> tuple[str, ...]:
    """The words that run this launch in a container. Raises Refused where the model is not a folder on this host."""
    source = _value(launch.command, "--model", "--model-path")
    if not source.startswith("/"):
        raise Refused("EngineContainerNeedsFolder", source=source[:120])
    if "," in source or ":" in source:
        raise Refused("EngineContainerFolderRefused", source=source[:120])
    port = str(placement.port)
    name = f"gonogo-{placement.name.service}-{placement.name.revision}-{placement.name.index}"
    return (
        *(container.tool, "run", "--rm", "--init", "--pull", "never", "--name", _checked(name)),
        *("--network", "bridge", "--publish", f"{placement.address}:{port}:{port}"),
        *("--mount", f"type=bind,source={source},target={MODEL_FOLDER},readonly"),
        *("--read-only", "--tmpfs", f"{SCRATCH}:rw,exec,nosuid,nodev,size={SCRATCH_BYTES}"),
        *("--user", container.user, "--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
        *("--pids-limit", str(MOST_PROCESSES), "--shm-size", str(_shared(placement, container))),
        *_cards(placement, container),
        *_environment(launch),
        *("--entrypoint", "python3", container.image),
        *_inside(launch, source),
    )


def _cards(placement: Placement, container: Container) -> Iterator[str]:
    """Docker takes one word with the list in quotes of its own, podman one device of the CDI each."""
    if not placement.devices:
        return
    if container.tool == "docker":
        yield from ("--gpus", f'"device={",".join(placement.devices)}"')
        return
    for device in placement.devices:
        yield from ("--device", f"nvidia.com/gpu={device}")


def _environment(launch: Launch) -> Iterator[str]:
    inside = {name: value for name, value in launch.environment.items() if name not in _OF_THE_HOST}
    for name, value in sorted({**inside, "HOME": SCRATCH}.items()):
        yield from ("--env", f"{name}={value}")


def _inside(launch: Launch, source: str) -> Iterator[str]:
    """The command after its interpreter, with the folder and the address as they are inside."""
    words = launch.command[1:]
    for before, word in zip(("", *words), words, strict=False):
        if before == "--host":
            yield INSIDE
        elif before in ("--model", "--model-path") and word == source:
            yield MODEL_FOLDER
        else:
            yield word


def _shared(placement: Placement, container: Container) -> int:
    return container.shared_bytes or SHARED_BYTES_PER_CARD * max(1, len(placement.devices))


def _value(command: tuple[str, ...], *flags: str) -> str:
    return next(word for before, word in pairwise(command) if before in flags)


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise Refused("EngineContainerNameRefused", name=name[:120])
    return name
