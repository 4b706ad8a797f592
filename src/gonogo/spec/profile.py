"""`Profile`: the wishes a host is judged by, in a file that users edit and choose. What it does not name is not judged.

Not here: reading YAML (`load.py`), and judging (`gonogo.checks.profile`).
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from gonogo.spec.load import read
from gonogo.spec.part import FilePath, Part
from gonogo.spec.recipe_parts import Languages

MEASURED_PERCENT = 65
"""A card that does less than this part of what its data sheet says is below its class. A whole, cool H100 did 77 %; at
its power limit it runs at 1,400 of 1,980 MHz. What this is to find is a card that does half."""
Version = Annotated[str, Field(pattern=r"^[0-9]{1,6}(\.[0-9]{1,6}){0,3}$", json_schema_extra={"x-name-of": "Version"})]
ProfileName = Annotated[
    str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$", json_schema_extra={"x-name-of": "Profile"})
]
Words = Annotated[str, Field(min_length=1, max_length=60)]


def numbers(version: str) -> tuple[int, ...]:
    """`535.154.02-1ubuntu` → (535, 154, 2): the numbers at the beginning."""
    found = re.match(r"\d{1,9}(\.\d{1,9})*", version)
    return tuple(int(part) for part in found.group().split(".")) if found else ()


class VersionRange(Part):
    """Versions from `min` to `max`, both included; plain text means this one and what is below it (`"12"`: 12.x).

    As many numbers are compared as the wish names: 2.19.3 is not above `max: "2.19"`, 535.98 is below `min: "535.154"`.
    """

    min: Annotated[Version | None, Field(description="The oldest version that will do.")] = None
    max: Annotated[Version | None, Field(description="The newest version that will do; `2.19` includes 2.19.3.")] = None

    @model_validator(mode="before")
    @classmethod
    def _this_one(cls, value: Any) -> Any:
        return {"min": value, "max": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _ordered(self) -> VersionRange:
        if self.min is not None and self.max is not None:
            low, high = numbers(self.min), numbers(self.max)
            if low[: len(high)] > high:
                raise PydanticCustomError("MinAboveMax", "min above max", {"min": self.min, "max": self.max})
        return self

    def holds(self, version: str) -> bool:
        """Whether a version lies in the range; one without numbers does not."""
        seen = numbers(version)
        low, high = numbers(self.min or ""), numbers(self.max or "")
        padded = seen + (0,) * len(low)
        return bool(seen) and padded[: len(low)] >= low and (not high or padded[: len(high)] <= high)

    def __str__(self) -> str:
        if self.min == self.max:
            return f"{self.min}.x" if self.min is not None else "*"
        if self.max is None:
            return f"≥ {self.min}"
        return f"≤ {self.max}" if self.min is None else f"{self.min} … {self.max}"


class AcceleratorWishes(Part):
    """What the host's GPUs must be. Memory is the class of the card: an "80 GB" H100 reports 79.2 GiB to an engine."""

    count: Annotated[int, Field(ge=1, le=1024, description="So many GPUs at least.")] = 1
    memory_gb: Annotated[
        int | None, Field(ge=1, le=10_000, description="Memory class of each, as the maker counts it.")
    ] = None
    fp16_tflops: Annotated[
        int | None, Field(ge=1, le=100_000, description="Dense FP16 of each by its data sheet, in TFLOPS.")
    ] = None
    measured_percent: Annotated[
        int, Field(ge=1, le=100, description="What `--measure` finds must reach this part of the data sheet.")
    ] = MEASURED_PERCENT


class TierWishes(Part):
    """One storage tier: where it is, and how fast its reads must be when they are measured."""

    path: Annotated[FilePath, Field(description="A directory on it; `--measure` writes a nameless file there.")]
    sequential_mb_s: Annotated[
        int | None, Field(ge=1, le=10_000_000, description="Sequential reads, megabytes per second.")
    ] = None
    random_reads_per_s: Annotated[
        int | None, Field(ge=1, le=100_000_000, description="Random reads of 4 KiB per second, 16 at once.")
    ] = None


class StorageWishes(Part):
    """The host's storage. `hot` holds live data, `warm` logs and intermediate results, `cold` versions and history."""

    nvme_gb: Annotated[
        int | None, Field(ge=1, le=100_000_000, description="NVMe of this host in all, in gigabytes (10 TB: 10000).")
    ] = None
    hot: Annotated[TierWishes | None, Field(description="Absent: the state directory is measured.")] = None
    warm: Annotated[TierWishes | None, Field(description="Absent: not measured.")] = None
    cold: Annotated[TierWishes | None, Field(description="Absent: not measured.")] = None


class OsWish(Part):
    """The distribution, by the names of /etc/os-release."""

    id: Annotated[Words, Field(description="Its ID, like `ubuntu`.")]
    version: Annotated[Version, Field(description="Its VERSION_ID, like `22.04`.")]


class SoftwareWishes(Part):
    """Versions of what must be installed. `cuda` is what the driver can run, `cuda_toolkit` the compiler (nvcc)."""

    os: Annotated[OsWish | None, Field(description="Operating system.")] = None
    kernel: Annotated[VersionRange | None, Field(description="Linux.")] = None
    glibc: Annotated[VersionRange | None, Field(description="C library.")] = None
    python: Annotated[VersionRange | None, Field(description="The Python that runs gonogo.")] = None
    nvidia_driver: Annotated[VersionRange | None, Field(description="GPU driver.")] = None
    cuda: Annotated[VersionRange | None, Field(description="Newest CUDA that the GPU driver runs.")] = None
    cuda_toolkit: Annotated[VersionRange | None, Field(description="CUDA toolkit, by its compiler.")] = None
    nccl: Annotated[VersionRange | None, Field(description="Library for talk between GPUs.")] = None
    docker: Annotated[VersionRange | None, Field(description="Docker's service (podman does not count).")] = None
    container_toolkit: Annotated[
        VersionRange | None, Field(description="NVIDIA container toolkit; `{}` takes any version.")
    ] = None


class Profile(Part):
    """Everything wished of a host. Nothing wished: nothing judged beyond what the chosen model needs."""

    name: Annotated[ProfileName, Field(description="Name of the profile in findings.")]
    description: Annotated[Languages, Field(description="What it is for.")]
    accelerators: Annotated[AcceleratorWishes | None, Field(description="GPUs.")] = None
    storage: Annotated[StorageWishes, Field(description="Disks and storage tiers.")] = StorageWishes()
    software: Annotated[SoftwareWishes, Field(description="Versions.")] = SoftwareWishes()


def load_profile(text: str, filename: str = "profile.yaml") -> Profile:
    """One profile from its YAML. Raises SpecMistakes with every mistake and its place."""
    return read(text, filename, Profile)
