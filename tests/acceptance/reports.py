"""Reports to look at: the JSON of `GET /v1/report`, made from real worlds by the real checks and the real views."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, replace
from typing import Any

from gonogo.checks.catalogue import CHECKS
from gonogo.checks.finding import Stage
from gonogo.control import views
from gonogo.facts.replica import Health, MemoryMeasured
from gonogo.facts.world import World
from gonogo.plan.availability import availability
from gonogo.plan.decide import ask
from gonogo.spec import Expect, Gateway, Probe, Revision, Spec
from gonogo.tasks.nouns import Counts
from gonogo.tasks.summary import Summary
from tests.core import worlds

MIB = 1024**2
MEASURED = MemoryMeasured(
    weights_bytes=91 * MIB,
    kv_cache_bytes=90 * MIB,
    compute_bytes=round(4.3 * MIB),
    output_bytes=round(0.4 * MIB),
    resident_bytes=251 * MIB,
)
MEASURED_AVAILABILITY = {
    name: asdict(availability(*counts)) for name, counts in {"1h": (412, 0), "30d": (20_480, 3)}.items()
}
QUEUE = asdict(
    Summary(
        counts=Counts(queued=12_345, leased=8, done=70_000, failed=2, dead=1),
        oldest_age_s=61.4,
        ended_per_s=7.25,
        workers=1,
        batches=3,
        draining=False,
    )
)
STAGES = (("planned", 1.1), ("replicas ready", 2.3), ("acknowledged", 0.4), ("probed", 2.1), ("proven", 0.2))
HOSTILE = "<script>document.title='taken over'</script><img src=x onerror=alert(1)>"


def spec() -> Spec:
    probes = (
        Probe(name="capital-of-france", prompt="What is the capital of France?", expect_pattern=r"\bParis\b"),
        Probe(name="ten-plus-ten", prompt="What is 10+10?", expect_pattern=r"\b20\b"),
    )
    gateway = Gateway(hostnames=("models.example.test",))
    expect = Expect(concurrent_requests=4, context_tokens=2048)
    return Spec(service="smollm2-135m", model="tiny", gateway=gateway, expect=expect, probes=probes)


def world(revision: Revision, **wrong: Any) -> World:
    """A good world for `revision`; `wrong` is what a probe saw instead (None: it could not be asked)."""
    names = [f"{revision.name}/{index}" for index in range(2)]
    replicas = tuple(worlds.replica(name, memory=MEASURED) for name in names)
    certificate = replace(worlds.CERTIFICATE, names=("localhost", "127.0.0.1", "models.example.test"))
    host = replace(worlds.HOST, name="build-7", os_name="Debian GNU/Linux 12", kernel="6.1.0", python="3.11.2")
    model = replace(worlds.MODEL, parameters=134_515_008, quantization="Q4_1")
    seen = worlds.world(
        host=host, models={"tiny": model}, replicas=replicas, probes=_probes(revision, wrong), certificate=certificate
    )
    desired = worlds.service(revision, revision)
    return worlds.published(seen, desired)


def good(**wrong: Any) -> dict[str, Any]:
    """The report of a proven service with two replicas; `wrong` as for `world`."""
    revision = Revision(number=1, spec=spec())
    return report(revision, world(revision, **wrong), serving=1)


def broken() -> dict[str, Any]:
    """A service that is not to go: no memory, a replica that hangs, probes that failed or could not be asked."""
    revision = Revision(number=2, spec=spec())
    seen = world(revision, keyless_refused={"status": 200}, large_body_accepted=None)
    first, second = seen.replicas or ()
    assert seen.host is not None
    host = replace(seen.host, memory_available_bytes=64 * MIB, instruction_sets=None)
    hung = replace(second, health=Health.HUNG, handle=None, memory=None)
    return report(revision, replace(seen, host=host, replicas=(first, hung)), serving=None)


def report(revision: Revision, seen: World, serving: int | None) -> dict[str, Any]:
    """What control would answer."""
    answers = [views.answer(one, worlds.NOW - 30) for stage in Stage for one in ask(CHECKS, stage, revision, seen)]
    plan = views.memory_plan(revision, seen)
    replicas = [views.replica(one, {}, 4711 + one.name.index) for one in seen.replicas or ()]
    model = views.plain(seen.models["tiny"])
    processes = {
        "keeper": [4100],
        "control": [4101],
        "gateway": [4102],
        "policy": [4103, 4104],
        "replica": [4711, 4712],
    }
    phase = "starting" if serving is None else "proven"
    seconds = None if serving is None else round(sum(took for _, took in STAGES), 1)
    endpoint = "https://127.0.0.1:8443/v1"
    service = {
        "name": revision.service,
        "endpoint": endpoint,
        "model": "tiny",
        "desired": revision.number,
        "serving": serving,
        "rejected": None,
        "phase": phase,
        "replicas": replicas,
        "seconds_to_proven": seconds,
    }
    status = {
        "state_dir": "/state",
        "endpoint": endpoint,
        "ca_file": "/state/tls/ca.crt",
        "epoch": 3,
        "services": [service],
        "processes": processes,
        "answers": answers,
        "queue": None if serving is None else QUEUE,
        "availability": {} if serving is None else {revision.service: MEASURED_AVAILABILITY},
    }
    return {
        "generated_at": worlds.NOW,
        "version": "0.1.0",
        "service": revision.service,
        "status": status,
        "spec": revision.spec.model_dump(mode="json"),
        "host": views.plain(seen.host),
        "model": {**model, "tensors": 272},
        "memory_plan": plan,
        "measured": [{"replica": str(one.name), **(views.plain(one.memory) or {})} for one in seen.replicas or ()],
        "answers": answers,
        "events": events(revision),
        "stages": [] if serving is None else [{"name": name, "seconds": took} for name, took in STAGES],
        "seconds_to_proven": seconds,
    }


def events(revision: Revision) -> list[dict[str, Any]]:
    """A short history, as the store keeps it."""
    history: list[tuple[str, str, dict[str, Any]]] = [
        ("LeaseAcquired", "control", {}),
        ("KeyAdded", "cli", {"name": "up"}),
        ("RevisionAdded", "api", {}),
        ("ActionStarted", "control", {"action": "EnsureReplica", "replica": f"{revision.name}/0", "why": "wanted"}),
        ("ActionFinished", "control", {"action": "EnsureReplica"}),
        ("ReplicaReady", "control", {"replica": f"{revision.name}/0"}),
        ("ReplicaDied", "control", {"replica": f"{revision.name}/1", "why": "killed by signal 9"}),
        ("SnapshotAcknowledged", "control", {}),
        ("RevisionProbed", "control", {}),
        ("ServiceProven", "control", {}),
        ("SomethingNew", "control", {"number": 7}),
    ]
    return [
        {
            "sequence": number,
            "at": worlds.NOW - 60 + number,
            "actor": actor,
            "principal": "ada" if actor in ("cli", "api") else actor,
            "request_id": None,
            "service": revision.service,
            "revision": revision.number,
            "kind": kind,
            "detail": detail,
            "previous_hash": hashlib.sha256(str(number - 1).encode()).hexdigest(),
            "hash": hashlib.sha256(str(number).encode()).hexdigest(),
        }
        for number, (kind, actor, detail) in enumerate(history, start=1)
    ]


def _probes(revision: Revision, wrong: dict[str, Any]) -> Any:
    given = {"model_list_right": {"wanted": revision.service, "seen": revision.service}, **wrong}
    found = [one for one in worlds.probes(revision, **given) if one.name != "answers_right:sum"]
    answers = {"capital-of-france": "The capital of France is Paris.", "ten-plus-ten": "10 + 10 = 20"}
    for probe in revision.spec.probes:
        text = wrong.get("answer", answers[probe.name])
        seen = {"prompt": probe.prompt, "answer": text, "pattern": probe.expect_pattern}
        found.append(replace(found[0], name=f"answers_right:{probe.name}", error=None, seen=seen))
    return tuple(found)
