"""Environments that tests build for real from the package index, with gonogo's own command."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.shell.command_line import gonogo

NOT_HERE = ("IndexUnreachable", "DiskTooSmall")
"""What excuses a test: the index or the disk is not there."""
PASSED = ("PIP_FIND_LINKS", "UV_FIND_LINKS", "UV_CACHE_DIR", "UV_DEFAULT_INDEX", "PIP_INDEX_URL", "SSL_CERT_FILE")


def build(state: Path, engine: str, excused: tuple[str, ...] = NOT_HERE) -> dict[str, str]:
    """The environment of `engine` as `gonogo env create` makes it; skips where that is excused."""
    kept = {name: os.environ[name] for name in PASSED if name in os.environ}
    ran = gonogo(state, "env", "create", engine, "--json", env=kept)
    if ran.code and ran.json["error"]["reason"] in excused:
        pytest.skip(f"cannot be built here: {ran.json['error']['message']}")
    assert ran.code == 0, ran.out + ran.err
    made: dict[str, str] = ran.json["environment"]
    checked = gonogo(state, "env", "check", engine, "--json")
    assert (checked.code, [one["reason"] for one in checked.json["findings"]]) == (0, ["EnvironmentSound"])
    return made
