"""The one deployment that most drills share; it ends with the last of them, and nothing of it stays."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Iterator

import pytest

from tests.drills.harness import Yard, make_yard, spec, wrong


@pytest.fixture(scope="package")
def yard() -> Iterator[Yard]:
    """A service with two replicas, proven, and nothing broken yet."""
    place = Path(tempfile.mkdtemp(prefix="gonogo-drill-"))
    made = make_yard(place)
    try:
        asked = spec(gateway={"port": made.port})
        (place / "drill.yaml").write_text(asked.model_dump_json())
        result = made.run("up", str(place / "drill.yaml"), "--json", "--yes")
        assert result.code == 0, f"{result.out}\n{result.err}\n{made.logs()}"
        made.key = result.json["api_key"]
        assert wrong(made.known()) == {}, "a drill tells only where everything was fine before"
        yield made
    finally:
        made.down()
        shutil.rmtree(place, ignore_errors=True)
