"""Small worlds for the tests of checks and decisions: everything fine, and what a test says otherwise."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from gonogo.actions.model import PublishSnapshot
from gonogo.checks.catalogue import CHECKS
from gonogo.facts.gateway import CertificateFacts, GatewayFacts, ResourceStatus, StateFacts
from gonogo.facts.host import Disk, HostFacts, Installed
from gonogo.facts.model import ModelFacts, Tensor
from gonogo.facts.part import PARTS, PartFacts
from gonogo.facts.probe import ProbeFacts
from gonogo.facts.replica import Health, MemoryMeasured, ReplicaFacts, ReplicaName
from gonogo.facts.world import World
from gonogo.plan.decide import wanted_snapshot
from gonogo.plan.model import DesiredService
from gonogo.spec import Probe, Replicas, Revision, Spec

NOW = 1_800_000_000.0
GIB = 1024**3

HOST = HostFacts(
    name="here",
    machine="x86_64",
    cpu_model="Some CPU",
    cores=2,
    instruction_sets=("avx2", "fma", "f16c"),
    memory_total_bytes=24 * GIB,
    memory_available_bytes=20 * GIB,
    open_files_limit=20000,
    disks=(Disk(path="/state", kind="ext4", total_bytes=100 * GIB, free_bytes=50 * GIB),),
    listening=(),
    free_ports=tuple(range(40000, 40032)),
    accelerators=None,
    installed=(
        Installed(name="engine", version="1.0", error=None),
        Installed(name="gateway", version="1.40.0", error=None),
        Installed(name="grpcio", version="1.85.1", error=None, wanted="1.85.1"),
    ),
    clock_jump_s=0.0,
)

MODEL = ModelFacts(
    asked="tiny",
    path="/models/tiny.gguf",
    file_bytes=98_362_432,
    architecture="llama",
    architecture_known=True,
    layers=30,
    embedding_length=576,
    feed_forward_length=1536,
    heads=9,
    kv_heads=(3,) * 30,
    key_length=64,
    value_length=64,
    vocabulary=49152,
    context_tokens=8192,
    chat_template="{{ messages }}",
    tensors=(Tensor(name="token_embd.weight", shape=(576, 49152), kind="Q8_0", size_bytes=96_000_000),),
)

CERTIFICATE = CertificateFacts(
    subject="gonogo",
    names=("localhost", "127.0.0.1"),
    not_before=NOW - 3600,
    not_after=NOW + 80 * 86400,
    matches_key=True,
    own_ca=True,
)
STATE = StateFacts(path="/state", owner_only=True, writable=True, chain_length=12)


def spec(**changes: Any) -> Spec:
    fields: dict[str, Any] = {
        "service": "svc",
        "model": "tiny",
        "replicas": Replicas(min=2, max=2),
        "probes": (Probe(name="sum", prompt="2+2?", expect_pattern="4"),),
    }
    return Spec(**{**fields, **changes})


def revision(number: int = 1, **changes: Any) -> Revision:
    return Revision(number=number, spec=spec(**changes))


def service(desired: Revision, serving: Revision | None = None, **changes: Any) -> DesiredService:
    fields: dict[str, Any] = {"rejected": None, "removed": False, "serving_since": NOW - 3600 if serving else None}
    return DesiredService(name=desired.service, desired=desired, serving=serving, **{**fields, **changes})


def replica(text: str, health: Health | None = Health.READY, **changes: Any) -> ReplicaFacts:
    name = ReplicaName.parse(text)
    fields: dict[str, Any] = {
        "host": "here",
        "address": "127.0.0.1",
        "port": 41000 + 10 * name.revision + name.index,
        "handle": f"{1000 + 10 * name.revision + name.index}:1:boot",
        "age_s": 60.0,
        "requests_running": 0,
        "requests_waiting": 0,
        "memory": MemoryMeasured(resident_bytes=300_000_000),
        "listens_on": ("127.0.0.1:41010",),
    }
    return ReplicaFacts(name=name, health=health, **{**fields, **changes})


def running(*texts: str) -> tuple[ReplicaFacts, ...]:
    return tuple(replica(text) for text in texts)


def world(**changes: Any) -> World:
    fields: dict[str, Any] = {
        "observation": 7,
        "at": NOW,
        "host": HOST,
        "models": {"tiny": MODEL},
        "replicas": (),
        "gateway": GatewayFacts(running=True, handle="1:1:boot", resources=(), listening=True),
        "parts": tuple(
            PartFacts(role=role, index=index, running=True, handle=f"{role}{index}:1:boot")
            for role, count in PARTS.items()
            for index in range(count)
        ),
        "certificate": CERTIFICATE,
        "state": STATE,
        "probes": (),
    }
    return World(**{**fields, **changes})


def published(seen: World, *services: DesiredService, nack: str | None = None) -> World:
    """The same world after the gateway got, and acknowledged, what is wanted in it."""
    snapshot: PublishSnapshot = wanted_snapshot(services, seen)
    status = ResourceStatus(
        type_url="type/a.Cluster", wanted_version="1", acked_version=None if nack else "1", nack=nack
    )
    assert seen.gateway is not None
    return replace(seen, gateway=replace(seen.gateway, published=snapshot.digest(), resources=(status,)))


RIGHT: dict[str, dict[str, Any]] = {
    "answers_right:sum": {"prompt": "2+2?", "answer": "2 + 2 = 4", "pattern": "4"},
    "stream_in_pieces": {"pieces": 12, "spread_ms": 90.0},
    "max_tokens_honoured": {"asked": 5, "got": 5},
    "stop_honoured": {"stop": "sea", "answer": "The ", "finish_reason": "stop"},
    "no_repetition": {"longest_repeat": 1, "repeated_words": 1, "answer": "The sea is wide."},
    "model_list_right": {"wanted": "svc", "seen": "svc"},
    "unknown_path_refused": {"path": "/v1/x", "status": 404, "hop": "gateway"},
    "large_body_accepted": {"size_mb": 1.3, "status": 200},
    "old_tls_refused": {"accepted": False, "version": None},
    "keyless_refused": {"status": 401},
    "wrong_key_refused": {"status": 401},
    "revoked_key_refused": {"status": 401, "seconds": 0.2},
}
"""What the probes of a good service see."""


def probes(of: Revision, **wrong: Any) -> tuple[ProbeFacts, ...]:
    """Probes as a good service answers them; `wrong` replaces what one of them saw (None: it could not be asked)."""
    found = []
    for name, seen in RIGHT.items():
        given = wrong.get(name.partition(":")[0], seen)
        error = "ConnectError" if given is None else None
        found.append(
            ProbeFacts(
                name=name,
                service=of.service,
                revision=of.number,
                at=NOW,
                error=error,
                seen={} if given is None else given,
            )
        )
    return tuple(found)


CHECK_NAMES = tuple(check.name for check in CHECKS)
