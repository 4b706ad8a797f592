"""The one deployment that most drills share; it ends with the last of them, and nothing of it stays."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Iterator

import pytest

from tests.drills.harness import Second, Yard, make_yard, spec, wrong
from tests.drills.models import ModelFiles, write_models
from tests.free_ports import free_port


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


@pytest.fixture(scope="package")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelFiles]:
    """Model files with something wrong."""
    folder = tmp_path_factory.mktemp("models")
    yield write_models(folder / "files")
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="package")
def second(yard: Yard, models: ModelFiles) -> Second:
    """One replica of a model without a chat template, a context longer than its training, open to the network.

    The checks that say so are taken out; it is proven all the same.
    """
    port = free_port()
    asked = spec(
        service="second",
        model=str(models.without_template),
        replicas={"min": 1, "max": 1},
        expect={"concurrent_requests": 1, "context_tokens": 12288},
        gateway={"port": port, "address": "0.0.0.0"},
        probes=[],
    )
    with yard.faults.broken(without=["context_fits_model", "chat_template_present", "failover", "listens_locally"]):
        yard.submit(asked)
        entry = yard.settled(["second"])["second"]
        assert entry["phase"] == "proven", entry
        stored = [one for one in yard.control.check("second") if one["stage"] == "live"]
        assert wrong(stored) == {}, "without the checks all is well"
    key = yard.run("keys", "create", "--service", "second", "--json").json["api_key"]
    return Second(asked=asked, port=port, key=key)
