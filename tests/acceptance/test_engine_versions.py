"""Another version of the engine, under load: nobody notices a good one, and a broken one never serves."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Iterator

import pytest

from gonogo.runtimes.environments import MARKER, EnvironmentStore, Made
from tests.acceptance.deployment import GONOGO, Deployment, Result, wait_for
from tests.acceptance.environments import NOT_HERE
from tests.acceptance.load import Load, Streams
from tests.drills.harness import FAULTS, Faults, install_broken_engine
from tests.free_ports import free_port

OLD, NEW = "2026.9.11063", "2026.10.11549"
SERVICE = "smollm2-135m"


@dataclass
class Rolling(Deployment):
    """A deployment whose engine comes from environments; `faults` can make its machine small."""

    faults: Faults = field(kw_only=True)

    @property
    def environments(self) -> EnvironmentStore:
        return EnvironmentStore(self.state_dir / "environments")

    def change(self, *words: str, **fields: Any) -> Result:
        """`gonogo up` with these fields of the spec changed."""
        asked = {
            "service": SERVICE,
            "model": SERVICE,
            "replicas": 2,
            "gateway": {"address": "127.0.0.1", "port": self.port},
            **fields,
        }
        place = self.state_dir.parent / "changed.yaml"
        place.write_text(json.dumps(asked))
        return self.run("up", str(place), *words, "--json", "--yes")

    def engine(self, version: str) -> Result:
        """The same service on this release of llama.cpp."""
        asked = ("--replicas", "2", "--engine", f"llama.cpp=={version}")
        return self.run("up", *asked, "--json", "--yes", *self.settings())

    def entry(self) -> Any:
        return self.status()["services"][0]

    def replicas(self) -> dict[str, int]:
        return {one["id"]: one["pid"] for one in self.entry()["replicas"]}

    def broken(self, fault: str) -> str:
        """An environment of its own, with a Python that runs and a broken build of the engine in it; its name."""
        name = f"llama.cpp-{fault}"
        folder = self.environments.path(name)
        if not folder.exists():
            subprocess.run([sys.executable, "-m", "venv", "--without-pip", "--symlinks", str(folder)], check=True)
            (packages,) = folder.glob("lib/python3*/site-packages")
            install_broken_engine(packages)
            told = folder / "faults.json"
            told.write_text(json.dumps({"engine": {"": fault}}))
            (packages / "broken.pth").write_text(f"import os; os.environ['GONOGO_DRILL'] = {str(told)!r}\n")
            made = Made(
                name=name, path=folder, engine="llama.cpp", version="0.1", answered="0.1", python="3", lock="0" * 64,
                packages=1, disk_bytes=1, made_at=time.time(),
            )  # fmt: skip
            plain = {key: value for key, value in asdict(made).items() if key not in ("path", "used_at")}
            (folder / MARKER).write_text(json.dumps(plain))
        return name


@pytest.fixture(scope="module")
def rolling() -> Iterator[Rolling]:
    """The embedded model on llama.cpp of the older release, from an environment that the command makes."""
    folder = Path(tempfile.mkdtemp(prefix="gonogo-test-"))
    faults = Faults(folder / "faults.json")
    python_path = os.pathsep.join(filter(None, (str(FAULTS), os.environ.get("PYTHONPATH"))))
    environment = {"PYTHONPATH": python_path, "GONOGO_DRILL": str(faults.place)}
    made = Rolling(state_dir=folder / "state", port=free_port(), environment=environment, faults=faults)
    try:
        first = made.run("env", "create", "llama.cpp", "--version", OLD, "--json", "--yes")
        if first.code and first.json["error"]["reason"] in NOT_HERE:
            pytest.skip(f"llama.cpp {OLD} cannot be installed here: {first.json['error']['message']}")
        made.up("--replicas", "2", "--engine", f"llama.cpp=={OLD}")
        yield made
    finally:
        made.down()
        shutil.rmtree(folder, ignore_errors=True)


def serves_alone(rolling: Rolling, revision: int) -> None:
    def alone() -> bool:
        entry = rolling.entry()
        ids = [one["id"] for one in entry["replicas"]]
        return entry["serving"] == revision and ids == [f"{SERVICE}/{revision}/{index}" for index in range(2)]

    wait_for(alone, 40, f"revision {revision} serves alone\n{rolling.logs()}")


def runs(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode()


def test_a_newer_release_and_the_way_back_cost_no_request_and_the_old_environment_is_found(rolling: Rolling) -> None:
    before = set(rolling.replicas().values())
    assert all(f"/llama.cpp-{OLD}-" in runs(pid) for pid in before)
    with Load(rolling, workers=1) as load, Streams(rolling, workers=1, tokens=24) as streams:
        load.wait_for_more(2)
        newer = rolling.engine(NEW)
        assert newer.code == 0, newer.out + newer.err
        serves_alone(rolling, 2)
        assert all(f"/llama.cpp-{NEW}-" in runs(pid) for pid in rolling.replicas().values())
        made = {one.name: one.made_at for one in rolling.environments.all()}
        back = rolling.engine(OLD)
        assert back.code == 0, back.out + back.err
        serves_alone(rolling, 3)
        load.wait_for_more(2)
        streams.wait_for_more(2)
    assert (load.failed, streams.failed) == ([], [])
    assert all(f"/llama.cpp-{OLD}-" in runs(pid) for pid in rolling.replicas().values())
    assert {one.name: one.made_at for one in rolling.environments.all()} == made, "found, not built again"


BROKEN = {
    "dies_at_start": "ReplicaCrashLooping",
    "loads_for_ever": "ReplicaLoadsTooLong",
    "answers_something_else": "AnswersWrong",
    "renamed": "ReplicaLoadsTooLong",
}
"""What the new version does → why it is rejected."""


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_new_version_is_rejected_for_what_it_does_and_the_old_one_serves_all_along(
    rolling: Rolling, fault: str
) -> None:
    serving, before = rolling.entry()["serving"], rolling.replicas()
    engine: dict[str, Any] = {"name": "llama.cpp", "environment": rolling.broken(fault)}
    if fault in ("loads_for_ever", "renamed"):
        engine["load_limit_s"] = 5
    with Load(rolling, workers=1) as load, Streams(rolling, workers=1, tokens=24) as streams:
        load.wait_for_more(2)
        ran = rolling.change(engine=engine)
        wait_for(lambda: rolling.replicas() == before, 30, f"only {before} is left\n{rolling.logs()}")
        load.wait_for_more(2)
    assert ran.code == 4, ran.out + ran.err
    assert rolling.entry()["rejected"]["reason"] == BROKEN[fault], ran.out
    assert (load.failed, streams.failed) == ([], [])
    assert rolling.entry()["serving"] == serving


def test_without_room_for_both_nothing_ends_unasked_and_when_asked_the_old_one_comes_back(rolling: Rolling) -> None:
    """A machine of 900 MiB, where two replicas take about 500; control is killed in the middle of the last change."""
    serving = rolling.entry()["serving"]
    before = set(rolling.replicas().values())
    with rolling.faults.broken(memory_mib=900), Replicas(rolling) as seen:
        time.sleep(2.1)  # what control knows of the host is at most so old
        refused = rolling.change(expect={"context_tokens": 1024})
        found = {one["reason"]: one["values"] for one in refused.json["answers"]}
        assert (refused.code, found["NoRoomBeside"]["serving"]) == (3, f"{SERVICE}/{serving}"), refused.out
        assert found["NoRoomBeside"]["down_s"] > 0
        assert set(rolling.replicas().values()) == before

        bad = {"name": "llama.cpp", "environment": rolling.broken("answers_something_else")}
        rejected = rolling.change("--allow-downtime", engine=bad)
        assert (rejected.code, rolling.entry()["rejected"]["reason"]) == (4, "AnswersWrong"), rejected.out
        with rolling.client() as client:
            wait_for(lambda: rolling.ask(client).status_code == 200, 40, f"it serves again\n{rolling.logs()}")
        serves_alone(rolling, serving)
        assert not before & set(rolling.replicas().values())

        with Streams(rolling, workers=1, tokens=200) as streams:
            streams.wait_for_more(1)
            control = rolling.pids("control")[0]
            asked = ("--allow-downtime", "--replicas", "2", "--engine", f"llama.cpp=={NEW}", *rolling.settings())
            changing = subprocess.Popen(
                [*GONOGO, "up", *asked, "--json", "--yes", "--state-dir", str(rolling.state_dir)],
                env={**os.environ, **rolling.environment},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            wait_for(lambda: not any(f"/{serving}/" in name for name in rolling.replicas()), 60, "the old one ended")
            os.kill(control, signal.SIGKILL)
            said, _ = changing.communicate(timeout=120)
        assert changing.returncode == 0, said + rolling.logs()
    assert {one.status for one in streams.failed} <= {503}, "refused for a while, and no answer was cut"
    assert seen.most == 2, "no room for both"
    assert all(f"/llama.cpp-{NEW}-" in runs(pid) for pid in rolling.replicas().values())


class Replicas:
    """Looks all the time how many replica processes are alive at once."""

    def __init__(self, rolling: Rolling) -> None:
        self.most = 0
        self._rolling = rolling
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Replicas:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._stop.wait(0.05):
            alive = [pid for pid in self._rolling.left() if _is_replica(pid)]
            self.most = max(self.most, len(alive))


def _is_replica(pid: int) -> bool:
    try:
        return b"GONOGO_ROLE=replica" in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False
