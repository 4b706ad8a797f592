"""What every engine adapter answers. An adapter is pure: (revision, placement) → command, environment, memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Mapping, Protocol

from gonogo.engines.memory import MemoryPlan
from gonogo.facts.model import ModelFacts
from gonogo.facts.replica import MemoryMeasured, ReplicaName
from gonogo.spec import Spec


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """One replica on one host: where it listens and how many threads it may use.

    `replicas` is how many share the service's load; None: as the spec asks, or two. `devices`: the accelerators it may
    use, by the driver's index or UUID; none: it runs on the CPU and sees no accelerator. `seed`: differs at every
    start, so that names on the host which outlive a killed process are never met again.
    """

    name: ReplicaName
    host: str
    address: str
    port: int
    threads: int
    replicas: int | None = None
    devices: tuple[str, ...] = ()
    seed: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """How to start a process: words, never a shell line. `niceness` is added to the control process's own."""

    command: tuple[str, ...]
    environment: Mapping[str, str]
    niceness: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What the engine's metrics say: counters only grow while the process lives.

    `steps` grows with every computation, also in the middle of a request; None when the engine has no such counter.
    `cache_used` is the share of the KV cache that is taken, 0 to 1; None when the engine does not say.
    (llama.cpp adds the tokens of an answer only when it ends, those of a prompt when all of it is read.)
    """

    tokens_generated: int
    prompt_tokens: int
    requests_running: int
    requests_waiting: int
    steps: int | None = None
    cache_used: float | None = None

    @property
    def work(self) -> int:
        """A number that differs whenever the engine worked since the last look: judge hangs by this one."""
        return self.tokens_generated + self.prompt_tokens + (self.steps or 0)


class Engine(Protocol):
    """The plug-in point. One file per engine, one line in `gonogo.engines.table`.

    `load_limit_s`: a replica that has not generated a token by then hangs.
    """

    name: str
    load_limit_s: float

    @property
    def part(self) -> str | None:
        """How the names begin that its other processes give themselves; it is broken without one of them.

        None: it is one process.
        """
        ...

    def launch(self, spec: Spec, model: ModelFacts, placement: Placement) -> Launch: ...

    def memory(self, spec: Spec, model: ModelFacts, replicas: int) -> MemoryPlan: ...

    def progress(self, metrics_text: str) -> Progress | None: ...

    def measured(self, log_text: str) -> MemoryMeasured: ...

    def explain_exit(self, log_text: str) -> str | None: ...
