"""The metrics in Prometheus's text form. Pure: what was measured in, text out.

Names: those of OpenTelemetry's conventions for generative AI where it has one (`gen_ai_…`), else `gonogo_…`. Every
label has few values: keys above `MOST_KEYS` are one, `other`; a replica or a part that is gone is gone from here too.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Callable, Iterable, Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from gonogo.facts.parse_gateway import GatewayNow
from gonogo.facts.parse_utilization import Utilization
from gonogo.facts.replica import Health, ReplicaFacts, ReplicaName
from gonogo.facts.usage import BOUNDS, NOBODY, PROBES, Outcome, Usage
from gonogo.facts.world import World
from gonogo.gateway.policy.ledger import Held
from gonogo.store.metering import LogState, UsageRow
from gonogo.tasks.summary import Summary

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
MOST_KEYS = 100
OTHER, NONE = "other", "-"
"""Labels of the keys that have none of their own, and of what was refused before its key or service was known."""
_SERVICE, _MODEL = "service", "gen_ai_request_model"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Everything that is told. `totals`: the rows of all time. `key_order`: key ids, oldest first: the first
    `MOST_KEYS` have a label of their own; `key_names` by id. `world` None: control does not run. `queue` None: there is
    none, or it cannot be read. `promised_s`: by service, when a first token is due, where its spec says so.
    `wanted`: replicas by service. `failing`: answers that block. `cache_used` (0 to 1) and `held`: by replica.
    """

    version: str
    totals: Sequence[UsageRow]
    key_order: Sequence[str]
    key_names: Mapping[str, str]
    logs: Mapping[str, LogState]
    chain_length: int
    world: World | None = None
    promised_s: Mapping[str, float] = field(default_factory=dict)
    wanted: Mapping[str, int] = field(default_factory=dict)
    failing: int | None = None
    cache_used: Mapping[str, float] = field(default_factory=dict)
    held: Mapping[str, Held] = field(default_factory=dict)
    gateway_now: GatewayNow = field(default_factory=GatewayNow)
    utilization: Sequence[Utilization] = ()
    queue: Summary | None = None


def text(given: Measured) -> str:
    """What a scraper reads."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collected(given))
    return generate_latest(registry).decode("utf-8")


class _Collected(Collector):
    def __init__(self, given: Measured) -> None:
        self._given = given

    def collect(self) -> Iterator[Metric]:
        yield from _control(self._given)
        yield from _requests(self._given)
        yield from _histograms(self._given)
        yield from _metering(self._given)
        if self._given.queue is not None:
            yield from _queue(self._given.queue)
        if self._given.world is not None:
            yield from _replicas(self._given, self._given.world)
            yield from _parts(self._given.world)
            yield _memory_errors(self._given.world)
        yield from _gateway(self._given.gateway_now)
        yield from _accelerators(self._given.utilization)


def _control(given: Measured) -> Iterator[Metric]:
    yield _gauge("gonogo_control_up", "Whether the control process answers.", [((), given.world is not None)])
    build = GaugeMetricFamily("gonogo_build_info", "The version of gonogo.", labels=["version"])
    build.add_metric([given.version], 1)
    yield build
    yield _counter("gonogo_audit_events", "Events in the audit log's chain.", (), [((), given.chain_length)])
    names = [((one, one), 1.0) for one in (PROBES, OTHER, NONE)]
    names += [((key_id, given.key_names.get(key_id, "")), 1.0) for key_id in given.key_order[:MOST_KEYS]]
    yield _gauge("gonogo_key_info", "The name of a key.", names, ("key", "name"))
    promised = [((service,), seconds) for service, seconds in sorted(given.promised_s.items())]
    told = "When the spec of a service wants the first token of a stream, where it says so."
    yield _gauge("gonogo_first_token_objective_seconds", told, promised, (_SERVICE,))
    if given.failing is not None:
        yield _gauge("gonogo_findings_blocking", "Checks that fail or are unknown, and block.", [((), given.failing)])


def _requests(given: Measured) -> Iterator[Metric]:
    by_key = _summed(given.totals, lambda row: (row.service or NONE, _label(given, row.key_id)))
    by_service = _by_service(given)
    codes = [((*who, code), count) for who, used in by_key.items() for code, count in sorted(used.statuses.items())]
    yield _counter("gonogo_requests", "Requests that ended, by key and HTTP status.", (_SERVICE, "key", "code"), codes)
    outcomes = [
        ((*who, one.value), used.outcomes.get(one.value, 0)) for who, used in by_service.items() for one in Outcome
    ]
    told = "Requests by how they ended: answered, failed (ours), refused (4xx), gone (the client left), other."
    yield _counter("gonogo_request_outcomes", told, (_SERVICE, "outcome"), outcomes)
    kinds = ("prompt", "completion", "cached")
    tokens = [((*who, kind), getattr(used, f"{kind}_tokens")) for who, used in by_key.items() for kind in kinds]
    yield _counter("gonogo_tokens", "Tokens of requests that ended.", (_SERVICE, "key", "type"), tokens)
    for name, told in {
        "unmetered": "Answered requests of which nobody told the tokens.",
        "estimated": "Requests whose prompt tokens are an estimate.",
        "streamed": "Requests whose answer was streamed.",
        "retried": "Requests that were sent to more than one replica before the first byte.",
        "continued": "Streams that lost their replica and went on with another one.",
    }.items():
        rows = [(who, getattr(used, name)) for who, used in by_service.items()]
        yield _counter(f"gonogo_requests_{name}", told, (_SERVICE,), rows)


def _histograms(given: Measured) -> Iterator[Metric]:
    by_service = _by_service(given)
    for name, metric, told in (
        ("ttft_s", "gen_ai_server_time_to_first_token_seconds", "From the request to the first token of a stream."),
        ("per_token_s", "gen_ai_server_time_per_output_token_seconds", "Mean time per token after the first one."),
        ("duration_s", "gen_ai_server_request_duration_seconds", "From the request to the last byte."),
    ):
        family = HistogramMetricFamily(metric, told, labels=[_MODEL])
        for (service,), used in by_service.items():
            _add_histogram(family, name, [service], used)
        yield family
    family = HistogramMetricFamily(
        "gen_ai_client_token_usage", "Tokens of one request.", labels=[_MODEL, "gen_ai_token_type"]
    )
    for (service,), used in by_service.items():
        _add_histogram(family, "prompt", [service, "input"], used)
        _add_histogram(family, "completion", [service, "output"], used)
    yield family


def _queue(seen: Summary) -> Iterator[Metric]:
    states = [((name,), count) for name, count in asdict(seen.counts).items()]
    yield _gauge("gonogo_queue_tasks", "Tasks in the queue, those that ended and are kept too.", states, ("state",))
    if seen.oldest_age_s is not None:
        told = "How long the oldest task has waited that still waits."
        yield _gauge("gonogo_queue_oldest_seconds", told, [((), seen.oldest_age_s)])
    for name, told, value in (
        ("ended_per_second", "Tasks that ended, over the last minute.", seen.ended_per_s),
        ("batches", "Batches that are not finished.", seen.batches),
        ("workers", "Workers that hold tasks.", seen.workers),
        ("draining", "Whether nothing new begins.", seen.draining),
    ):
        yield _gauge(f"gonogo_queue_{name}", told, [((), float(value))])


def _metering(given: Measured) -> Iterator[Metric]:
    for name, told in {
        "lines": "Lines that metering has read.",
        "malformed": "Lines that said nothing to metering.",
        "gaps": "Times that a log was gone before it was read: lines may be lost.",
    }.items():
        rows = [((log,), getattr(state, name)) for log, state in sorted(given.logs.items())]
        yield _counter(f"gonogo_log_{name}", told, ("log",), rows)


def _replicas(given: Measured, world: World) -> Iterator[Metric]:
    seen = world.replicas or ()
    wanted = [((name,), float(count)) for name, count in sorted(given.wanted.items())]
    yield _gauge("gonogo_replicas_wanted", "Replicas that the service should have.", wanted, (_SERVICE,))
    ready = [((name,), float(_ready(seen, name))) for name in sorted(given.wanted)]
    yield _gauge("gonogo_replicas_ready", "Replicas that generate.", ready, (_SERVICE,))
    away = [((name.rpartition("/")[0],), float(gone)) for name, gone in sorted(world.fallen_back.items())]
    told = "Whether requests go to the hosted API of a service that has one, as no replica is well."
    yield _gauge("gonogo_fallback_in_use", told, away, (_SERVICE,))
    labels = (_SERVICE, "replica")
    for name, told in {
        "requests_running": "Requests that the engine works on.",
        "requests_waiting": "Requests that wait in the engine.",
        "restarts": "Times that it died or was ended for hanging, of late.",
    }.items():
        rows = [
            ((one.name.service, str(one.name)), float(value))
            for one in seen
            if (value := getattr(one, name)) is not None
        ]
        yield _gauge(f"gonogo_replica_{name}", told, rows, labels)
    tokens = [
        ((one.name.service, str(one.name)), one.tokens_generated) for one in seen if one.tokens_generated is not None
    ]
    yield _counter("gonogo_replica_tokens_generated", "Tokens since the engine started.", labels, tokens)
    used = [
        ((one.name.service, str(one.name)), given.cache_used[str(one.name)])
        for one in seen
        if str(one.name) in given.cache_used
    ]
    yield _gauge("gonogo_replica_cache_used_ratio", "Share of the KV cache that is taken.", used, labels)
    for name, told in {"tokens": "Tokens in flight: prompts and expected answers", "sequences": "Requests"}.items():
        held = [((one.service, str(one)), float(getattr(seen_held, name))) for one, seen_held in _held(given, seen)]
        unit = "requests" if name == "sequences" else name
        yield _gauge(f"gonogo_replica_{unit}_held", f"{told} that policy sent to the replica.", held, labels)
    resident = [
        ((one.name.service, str(one.name)), float(one.memory.resident_bytes))
        for one in seen
        if one.memory is not None and one.memory.resident_bytes is not None
    ]
    yield _gauge("gonogo_replica_resident_memory_bytes", "Memory of the engine's processes.", resident, labels)


def _held(given: Measured, seen: Iterable[ReplicaFacts]) -> list[tuple[ReplicaName, Held]]:
    return [(one.name, given.held[str(one.name)]) for one in seen if str(one.name) in given.held]


def _parts(world: World) -> Iterator[Metric]:
    running = [((part.role, str(part.index)), float(part.running and not part.hung)) for part in world.parts or ()]
    if world.gateway is not None:
        running.append((("gateway", "0"), float(world.gateway.running and not world.gateway.hung)))
    yield _gauge(
        "gonogo_part_up", "Whether a process beside the replicas runs and answers.", running, ("role", "index")
    )
    if world.gateway is not None:
        rows = [((), float(world.gateway.acked))]
        yield _gauge("gonogo_gateway_configuration_acknowledged", "Whether Envoy took all of its configuration.", rows)
    if world.certificate is not None:
        rows = [((), world.certificate.not_after)]
        yield _gauge("gonogo_certificate_not_after_timestamp_seconds", "When the gateway's certificate ends.", rows)


def _gateway(now: GatewayNow) -> Iterator[Metric]:
    for name, told, value in (
        ("requests", "Requests of clients that have not ended.", now.requests),
        ("requests_held_by_policy", "Requests that wait for room, or are being judged.", now.held_by_policy),
        ("connections", "Connections of clients.", now.connections),
    ):
        yield _gauge(f"gonogo_gateway_{name}", told, [] if value is None else [((), float(value))])


def _accelerators(seen: Sequence[Utilization]) -> Iterator[Metric]:
    for name, told, read in (
        ("utilization_ratio", "Share of the last second in which a kernel ran.", "busy"),
        ("memory_used_bytes", "Memory of the GPU that is taken.", "memory_used_bytes"),
        ("memory_total_bytes", "Memory of the GPU.", "memory_total_bytes"),
        ("temperature_celsius", "Temperature of the GPU.", "temperature_c"),
        ("power_watts", "Power that the GPU draws.", "power_w"),
    ):
        values = [(one, getattr(one, read)) for one in seen]
        rows = [((str(one.index), one.uuid, one.name), float(value)) for one, value in values if value is not None]
        yield _gauge(f"gonogo_accelerator_{name}", told, rows, ("accelerator", "uuid", "name"))


def _memory_errors(world: World) -> Metric:
    cards = (world.host.accelerators if world.host is not None else None) or ()
    counts = [(one, one.health.uncorrected_errors) for one in cards]
    rows = [((str(one.index), one.uuid or "", one.name), float(count)) for one, count in counts if count is not None]
    told = "Memory errors of the GPU that were not corrected, since its driver was loaded; seen every five minutes."
    return _gauge("gonogo_accelerator_uncorrected_errors", told, rows, ("accelerator", "uuid", "name"))


def _ready(seen: Iterable[ReplicaFacts], service: str) -> int:
    return sum(one.name.service == service and one.health is Health.READY for one in seen)


_Rows = Iterable[tuple[tuple[str, ...], float]]


def _gauge(name: str, told: str, rows: _Rows, labels: Sequence[str] = ()) -> Metric:
    family = GaugeMetricFamily(name, told, labels=labels)
    for values, number in rows:
        family.add_metric(values, float(number))
    return family


def _counter(name: str, told: str, labels: Sequence[str], rows: _Rows) -> Metric:
    family = CounterMetricFamily(name, told, labels=labels)
    for values, number in rows:
        family.add_metric(values, float(number))
    return family


def _by_service(given: Measured) -> dict[tuple[str, ...], Usage]:
    """What clients asked: without the gateway's own probes."""
    return _summed((row for row in given.totals if row.key_id != PROBES), lambda row: (row.service or NONE,))


def _summed(rows: Iterable[UsageRow], label: Callable[[UsageRow], tuple[str, ...]]) -> dict[tuple[str, ...], Usage]:
    sums: dict[tuple[str, ...], Usage] = {}
    for row in rows:
        who = label(row)
        sums[who] = sums.get(who, Usage()) + row.usage
    return dict(sorted(sums.items()))


def _label(given: Measured, key_id: str) -> str:
    """The key's own id, or `other`: keys are never removed, so what has a label keeps it."""
    if key_id == NOBODY:
        return NONE
    return key_id if key_id == PROBES or key_id in given.key_order[:MOST_KEYS] else OTHER


def _add_histogram(family: HistogramMetricFamily, name: str, labels: Sequence[str], used: Usage) -> None:
    bounds = [*map(repr, BOUNDS[name]), "+Inf"]
    seen = used.histograms.get(name)
    counts = seen.counts if seen is not None else (0,) * len(bounds)
    below = [sum(counts[: index + 1]) for index in range(len(bounds))]
    buckets = list(zip(bounds, below, strict=True))
    family.add_metric(labels, buckets, seen.total if seen is not None else 0.0)
