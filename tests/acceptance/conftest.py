"""Deployments shared by the tests of one module; everything they start ends with them."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Iterator

import pytest

from tests.acceptance.deployment import Deployment
from tests.free_ports import free_port

LONG = os.environ.get("GONOGO_LONG") == "1"
"""`make test-long`: the full durations of the issue instead of shortened ones."""


@pytest.fixture(scope="module")
def empty() -> Iterator[Deployment]:
    """A state directory in which nothing runs yet."""
    directory = Path(tempfile.mkdtemp(prefix="gonogo-test-"))
    deployment = Deployment(directory / "state", free_port())
    try:
        yield deployment
    finally:
        deployment.down()
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="module")
def deployed(empty: Deployment) -> Deployment:
    """The embedded default, proven, with two replicas."""
    empty.up("--replicas", "2")
    return empty
