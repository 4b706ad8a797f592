"""Preflight without a control process: look at this host and the model, ask the preflight checks, change nothing."""

from __future__ import annotations

import time

from gonogo.checks.catalogue import CHECKS, of_host
from gonogo.checks.finding import Answer, Stage
from gonogo.control.sight import HostSight, given_certificates, state_facts
from gonogo.control.sight_fallback import key_files_of
from gonogo.control.sight_models import ModelSight, ProjectorSight, environments_of
from gonogo.control.sight_queue import QueueSight
from gonogo.control.sight_servers import keys_of
from gonogo.facts.gateway import GatewayFacts
from gonogo.facts.host import HostFacts
from gonogo.facts.world import World
from gonogo.plan.decide import ask, decide
from gonogo.plan.model import DesiredService, Plan
from gonogo.runtimes.environments import EnvironmentStore
from gonogo.runtimes.local import LocalRuntime
from gonogo.runtimes.look_key_files import look_at_key_files
from gonogo.runtimes.look_servers import look_at_servers
from gonogo.runtimes.paths import StatePaths
from gonogo.spec import Revision, Spec
from gonogo.spec.profile import Profile


def look(paths: StatePaths, revision: Revision) -> World:
    """One observation of a machine on which nothing of ours runs yet."""
    own = [process.pid for process in LocalRuntime(paths.root).scan()]
    return World(
        observation=1,
        at=time.time(),
        host=HostSight(paths).look(frozenset({revision.spec.gateway.port}), own),
        models={} if revision.spec.external else ModelSight(paths).look((revision.spec.model,)),
        environments=environments_of(EnvironmentStore(paths.environments)),
        projectors=ProjectorSight().look((revision.spec.projector,) if revision.spec.projector else ()),
        replicas=(),
        gateway=GatewayFacts(running=False, handle=None, resources=None),
        parts=(),
        given_certificates=given_certificates(paths, (revision.spec.gateway,)),
        state=state_facts(paths),
        servers=look_at_servers(keys_of((revision.spec,))),
        queue_servers=QueueSight().look(() if revision.spec.queue is None else (revision.spec.queue,)),
        key_files=look_at_key_files(key_files_of((revision.spec,))),
    )


def look_at_this_host(paths: StatePaths) -> HostFacts:
    """The host alone, whatever runs on it."""
    return HostSight(paths).look(frozenset(), [process.pid for process in LocalRuntime(paths.root).scan()])


def judge_host(host: HostFacts, profile: Profile) -> tuple[Answer, ...]:
    """The answers of the checks that this profile, and what was measured, give rise to. They are of no service."""
    nobody = Revision(number=1, spec=Spec(service="host", model="none"))
    world = World(observation=1, at=time.time(), host=host)
    return tuple(ask(of_host(profile, measured=host.measured is not None), Stage.PREFLIGHT, nobody, world))


def preflight(paths: StatePaths, revision: Revision, world: World | None = None) -> tuple[Answer, ...]:
    """The answers of all preflight checks."""
    return tuple(ask(CHECKS, Stage.PREFLIGHT, revision, world or look(paths, revision)))


def plan(paths: StatePaths, revision: Revision) -> Plan:
    """What `up` would do first on this machine: answers, and the actions unless something blocks."""
    world = look(paths, revision)
    answers = preflight(paths, revision, world)
    if any(answer.blocking for answer in answers):
        return Plan(observation=world.observation, actions=(), answers=answers)
    service = DesiredService(name=revision.service, desired=revision, serving=None, rejected=None, removed=False)
    return Plan(observation=world.observation, actions=decide((service,), world).actions, answers=answers)
