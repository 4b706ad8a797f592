"""The version matrix of gonogo: builds of engines, PyTorch, CUDA and drivers, bad releases, the guide's set.

The only place of this package that reads files, and only its own; each file says where its rows come from, and when.
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Any, Mapping

import yaml
from packaging.version import Version

from gonogo.facts.engine_build import (
    Accelerator,
    BadKind,
    BadRelease,
    CudaRelease,
    EngineBuild,
    GuideSet,
    Matrix,
    TorchBuild,
)


@cache
def matrix() -> Matrix:
    """All of it, read once."""
    cuda = {row["cuda"]: CudaRelease(**row) for row in _read("cuda")}
    torch = {row["torch"]: _torch(row) for row in _read("torch")}
    builds = {
        engine: tuple(sorted((_build(engine, told, row, torch, cuda) for row in told["builds"]), key=_age))
        for engine, told in _read("engines").items()
    }
    bad = tuple(BadRelease(**{**row, "kind": BadKind(row["kind"])}) for row in _read("bad"))
    return Matrix(builds=builds, torch=torch, cuda=cuda, bad=bad, guide=GuideSet(**_read("guide")))


def _torch(row: Mapping[str, Any]) -> TorchBuild:
    return TorchBuild(**{**row, "capabilities": tuple(row["capabilities"]), "ptx": row.get("ptx", False)})


def _build(
    engine: str,
    told: Mapping[str, Any],
    row: Mapping[str, Any],
    torch: Mapping[str, TorchBuild],
    cuda: Mapping[str, CudaRelease],
) -> EngineBuild:
    return EngineBuild(
        engine=engine,
        title=told["title"],
        package=told["package"],
        version=row["version"],
        counted_as=row.get("counted_as", row["version"]),
        accelerator=Accelerator(told["accelerator"]),
        agent=told.get("agent", False),
        python=row["python"],
        python_liked=told["python_liked"],
        torch=torch[row["torch"]] if "torch" in row else None,
        cuda=cuda[row["cuda"]] if "cuda" in row else None,
        needs_whole_driver=told.get("needs_whole_driver", False),
        capability_least=row.get("capability_least"),
        transformers=row.get("transformers"),
        openai=row.get("openai"),
        glibc=row["glibc"],
        ask=told["ask"],
        prereleases=told.get("prereleases", False),
        beside=tuple(row.get("beside", ())),
        left_out=tuple(told.get("left_out", ())),
        disk_mb=row.get("disk_mb"),
        source=told["source"],
    )


def _age(build: EngineBuild) -> Version:
    return Version(build.version)


def _read(name: str) -> Any:
    return yaml.safe_load(resources.files(__package__).joinpath(f"{name}.yaml").read_text(encoding="utf-8"))
