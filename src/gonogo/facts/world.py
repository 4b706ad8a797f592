"""The World: one numbered observation of everything. Frozen; the next look makes a new one."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Mapping

from gonogo.facts.environment import EnvironmentMade
from gonogo.facts.gateway import CertificateFacts, GatewayFacts, StateFacts
from gonogo.facts.host import HostFacts
from gonogo.facts.key_file import KeyFileFacts
from gonogo.facts.model import ModelFacts, ProjectorFacts
from gonogo.facts.part import PartFacts
from gonogo.facts.probe import ProbeFacts
from gonogo.facts.queue import QueueFacts
from gonogo.facts.replica import Deaths, ReplicaFacts
from gonogo.facts.server import ServerFacts, ServerKey
from gonogo.spec import Spec
from gonogo.spec.queue import Queue


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What was seen at `at` (Unix seconds), numbered so that a plan can name what it was made from.

    `models` is keyed by what the spec asked for, `projectors` by the path that it names, `environments` by name,
    `deaths` by replica name, `given_certificates` (files of users, not judged by being presented yet) by the
    certificate's path. `certificate` is presented. `asked`: by `service/revision`, the specs of the revisions that
    replicas are seen of, replaced ones too. `servers`: the external ones that were asked before anything is sent to
    them. `queues`: what each service says of the queue; `queue_servers`: what the servers that they name said.
    `key_files`: of fallbacks, by path; `fallen_back`: by `service/revision`, of those that serve and have one,
    whether requests go there now. None means "not observed".
    """

    observation: int
    at: float
    host: HostFacts | None = None
    models: Mapping[str, ModelFacts] = field(default_factory=dict)
    projectors: Mapping[str, ProjectorFacts] = field(default_factory=dict)
    environments: Mapping[str, EnvironmentMade] | None = None
    replicas: tuple[ReplicaFacts, ...] | None = None
    gateway: GatewayFacts | None = None
    parts: tuple[PartFacts, ...] | None = None
    certificate: CertificateFacts | None = None
    given_certificates: Mapping[str, CertificateFacts] = field(default_factory=dict)
    state: StateFacts | None = None
    probes: tuple[ProbeFacts, ...] | None = None
    deaths: Mapping[str, Deaths] = field(default_factory=dict)
    asked: Mapping[str, Spec] = field(default_factory=dict)
    servers: Mapping[ServerKey, ServerFacts] = field(default_factory=dict)
    queues: Mapping[str, Queue] = field(default_factory=dict)
    queue_servers: Mapping[Queue, QueueFacts] = field(default_factory=dict)
    key_files: Mapping[str, KeyFileFacts] = field(default_factory=dict)
    fallen_back: Mapping[str, bool] = field(default_factory=dict)

    def model_of(self, spec: Spec) -> ModelFacts | None:
        """The model as this spec serves it: with the projector that it names. None where external replicas have it."""
        if spec.external:
            return None
        model = self.models.get(spec.model)
        if model is None or spec.projector is None:
            return model
        return replace(model, projector=self.projectors.get(spec.projector), sees_images=True)
