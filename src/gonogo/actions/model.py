"""The closed list of actions. Each is an "ensure": done twice is done once. Nothing is left to choose in them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Union

from gonogo.checks.finding import Finding
from gonogo.engines.model import Placement
from gonogo.facts.replica import ReplicaName
from gonogo.spec.fallback import Api
from gonogo.spec.gateway import Balancing
from gonogo.spec.replicas import Server


@dataclass(frozen=True, slots=True, kw_only=True)
class EnsureReplica:
    """Start this replica unless it runs."""

    placement: Placement
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveReplica:
    """End this replica: `force` sends SIGKILL at once (a hung one), otherwise SIGTERM and SIGKILL after 5 s."""

    name: ReplicaName
    handle: str
    force: bool
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EnsurePart:
    """Start this process of the deployment (`gonogo.facts.part.PARTS`) unless it runs."""

    role: str
    index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EnsureGateway:
    """Start Envoy unless it runs."""

    concurrency: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EndPart:
    """End a hung gateway or part with SIGKILL; the next round starts another."""

    role: str
    handle: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointPlan:
    """One replica as the gateway sees it."""

    name: ReplicaName
    address: str
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ExternalPlan:
    """The external replicas of one revision, in the order of the spec: the gateway looks their names up by itself, and
    verifies their certificates where they have TLS. `ca_file` None: the system's CAs.
    """

    servers: tuple[Server, ...]
    health_path: str
    ca_file: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FallbackPlan:
    """The hosted API of one revision. `key_file`: of its key, which Envoy reads; `ca_file` None: the system's CAs."""

    api: Api
    key_file: str
    ca_file: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterPlan:
    """One cluster per service and revision (`name` is `service/revision`), and its endpoints, sorted by name.

    `outlives_its_parts`: the engine is several processes, and the one that answers says 500 while another is dead.
    `external`: in place of endpoints. `fallback`: where policy sends requests while none of them is well.
    """

    name: str
    endpoints: tuple[EndpointPlan, ...]
    outlives_its_parts: bool = False
    balancing: Balancing = Balancing.TOKEN_AWARE
    connect_timeout_s: float = 1.0
    external: ExternalPlan | None = None
    fallback: FallbackPlan | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerPlan:
    """One address and port with TLS 1.3."""

    address: str
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishSnapshot:
    """Give Envoy these clusters and listeners. The shell adds certificates and socket paths."""

    listeners: tuple[ListenerPlan, ...]
    clusters: tuple[ClusterPlan, ...]

    def digest(self) -> str:
        """Equal snapshots, equal digests (SHA-256, hex)."""
        return hashlib.sha256(repr((self.listeners, self.clusters)).encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeRevision:
    """Ask this revision through the front door, with a key pinned to it, and keep what was seen."""

    service: str
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Promote:
    """From now on policy sends the service's requests to this revision."""

    service: str
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reject:
    """This revision is not going to serve: keep the old one, say why."""

    service: str
    revision: int
    finding: Finding


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgetService:
    """The service was taken down and nothing of it runs any more."""

    service: str


Action = Union[
    EnsureReplica,
    RemoveReplica,
    EnsurePart,
    EnsureGateway,
    EndPart,
    PublishSnapshot,
    ProbeRevision,
    Promote,
    Reject,
    ForgetService,
]
