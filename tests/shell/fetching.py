"""What tests of fetching share: a machine beside a hub, and fetching in this process or in one of its own."""

from __future__ import annotations

import subprocess
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Callable

from gonogo.runtimes.fetch import fetch_model
from gonogo.runtimes.fetch_plan import FetchOrder, FetchPlan, plan_fetch
from gonogo.runtimes.fetch_transfer import TransferLimits
from gonogo.runtimes.hub_client import Limits
from gonogo.runtimes.models import PARTS, Fetched, ModelStore
from tests.shell.command_line import Ran, command, environment, gonogo
from tests.shell.fake_hub import FakeHub

MODEL = "maker/model-1b"
NEEDED = (
    "chat_template.jinja", "config.json", "empty.txt", "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors", "model.safetensors.index.json", "tokenizer.json",
)  # fmt: skip
HUB = Limits(connect_s=2.0, silence_s=2.0, total_s=30.0, tries=2, pause_s=0.01, longest_pause_s=0.2)
FAST = TransferLimits(
    segment_bytes=1 << 20, tries=3, pause_s=0.01, longest_pause_s=0.5, slow_s=0.3, least_bytes=4096,
    hub=replace(HUB, total_s=float("inf"), total_bytes=1 << 62),
)  # fmt: skip
PATIENCE_S = 30.0


@dataclass
class Here:
    """One machine with a state directory, beside one hub."""

    hub: FakeHub
    folder: Path

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def store(self) -> ModelStore:
        return ModelStore(self.state / "models")

    def plan(self, model: str = MODEL, **more: Any) -> FetchPlan:
        asked = {
            "endpoint": self.hub.endpoint,
            **{name: more.pop(name) for name in ("endpoint", "only") if name in more},
        }
        order = FetchOrder(model=model, **asked)
        return plan_fetch(self.store, order, cache=self.folder / "cache", limits=HUB, **more)

    def fetch(
        self,
        plan: FetchPlan | None = None,
        limits: TransferLimits = FAST,
        progress: Callable[[int], None] | None = None,
    ) -> Fetched:
        return fetch_model(self.store, plan or self.plan(), progress or (lambda _: None), limits=limits)[0]

    def environment(self, **more: str) -> dict[str, str]:
        return {"HF_ENDPOINT": self.hub.endpoint, "XDG_CACHE_HOME": str(self.folder / "cache"), **more}

    def ran(self, *words: str, **more: str) -> Ran:
        """`gonogo models WORDS` in this process."""
        return gonogo(self.state, "models", *words, env=self.environment(**more))

    def started(self, *words: str, **more: str) -> subprocess.Popen[str]:
        """`gonogo models WORDS` as a process of its own."""
        return subprocess.Popen(
            command("models", *words), cwd=self.folder, env=environment(self.state, **self.environment(**more)),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def killed_half_way(self, *words: str) -> int:
        """A fetching process that is ended by SIGKILL when megabytes of weights are here. How many bytes are kept."""
        self.hub.bytes_per_s = 2_000_000
        process = self.started("fetch", *(words or (MODEL,)), "--yes")
        wait_for(lambda: self.hub.sent("/storage/") > 5_000_000, process)
        process.kill()
        process.communicate(timeout=PATIENCE_S)
        self.hub.bytes_per_s = None
        return sum(self.plan_kept())

    def plan_kept(self) -> list[int]:
        """Of each part: how many bytes are counted as fetched."""
        counts = sorted(self.store.root.glob(f".fetching-*/{PARTS}/**/*.done"))
        return [sum(int.from_bytes(one, "little") for one in _counters(path.read_bytes())) for path in counts]

    def model_files(self, found: Fetched, model: str = MODEL) -> None:
        """Every file is what the hub has, and nothing else lies there but the marker."""
        names = {str(path.relative_to(found.path)) for path in found.path.rglob("*") if path.is_file()}
        assert names == {*(file.name for file in found.files), "gonogo-model.json"}
        for file in found.files:
            held = self.hub.models[model][file.name]
            assert (found.path / file.name).read_bytes() == held.part(0, held.size - 1), file.name


def wait_for(seen: Callable[[], bool], process: subprocess.Popen[str] | None = None) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not seen():
        assert time.monotonic() < deadline, "it did not come to that"
        assert process is None or process.poll() is None, process.communicate() if process else ""
        time.sleep(0.01)


def _counters(content: bytes) -> list[bytes]:
    head = 8 + 32 + 8 + 8
    return [content[at : at + 8] for at in range(head, len(content), 8)]
