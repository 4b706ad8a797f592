"""Carries out actions: the only place that changes the world. Each is an "ensure": done twice is done once."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Callable

import gonogo
from gonogo.actions.model import (
    Action,
    EndPart,
    EnsureGateway,
    EnsurePart,
    EnsureReplica,
    ForgetService,
    ProbeRevision,
    Promote,
    PublishSnapshot,
    Reject,
    RemoveReplica,
)
from gonogo.control.deployment import Deployment
from gonogo.control.observe import Observer
from gonogo.control.part_launch import launch_of
from gonogo.control.probe import FrontDoor, ask_everything, not_asked
from gonogo.control.sight import given_pair, names_for
from gonogo.control.sight_fallback import usable_keys
from gonogo.engines.model import Launch
from gonogo.engines.table import engine_for
from gonogo.facts.part import PARTS, POLICY, RELAY, RPC, TASKS
from gonogo.facts.probe import ProbeFacts
from gonogo.facts.world import World
from gonogo.gateway.ads import AdsServer
from gonogo.gateway.bootstrap import Bootstrap, bootstrap_json, command
from gonogo.gateway.policy.decide import INFERENCE
from gonogo.gateway.snapshot import Snapshot
from gonogo.gateway.translate import GatewayInput, translate
from gonogo.runtimes.environments import EnvironmentStore
from gonogo.runtimes.look import gateway_binary
from gonogo.runtimes.look_servers import system_ca_file
from gonogo.runtimes.uv import EnvironmentFault
from gonogo.security.certificates import CertificateFiles, ensure_certificates
from gonogo.security.keys import RANDOM_BYTES, KeyRow, mint
from gonogo.spec import Revision, Spec

PROBE_KEY_LIFE_S = 600.0
RUNNER = str(Path(gonogo.__file__).parent / "runners" / "llamacpp.py")
GRACE_S = 5.0


class Hands:
    """What can be done, one method per action. `wake` is called from other threads too."""

    def __init__(self, deployment: Deployment, ads: AdsServer, observer: Observer, wake: Callable[[], object]) -> None:
        self._deployment = deployment
        self._paths = deployment.paths
        self._runtime = deployment.runtime
        self._store = deployment.store
        self._memory = deployment.memory
        self._ads = ads
        self._observer = observer
        self._wake = wake
        self._last_published: PublishSnapshot | None = None
        self._probing: dict[tuple[str, int], asyncio.Task[None]] = {}
        self._endings: set[asyncio.Task[None]] = set()

    async def perform(self, action: Action, world: World) -> None:
        """Carry out one action."""
        if isinstance(action, EnsureReplica):
            self._ensure_replica(action, world)
        elif isinstance(action, RemoveReplica):
            self._remove_replica(action)
        elif isinstance(action, EnsurePart):
            self._ensure_part(action)
        elif isinstance(action, EnsureGateway):
            self._ensure_gateway(action)
        elif isinstance(action, EndPart):
            self._runtime.send(action.handle, signal.SIGKILL)
        elif isinstance(action, PublishSnapshot):
            await self._publish(action)
        elif isinstance(action, ProbeRevision):
            self.probe(self._store.revision(action.service, action.revision))
        elif isinstance(action, Promote):
            self._promote(action)
        elif isinstance(action, Reject):
            self._reject(action)
        elif isinstance(action, ForgetService):
            self._forget(action)

    def under_way(self, action: Action) -> bool:
        """Whether this action was begun and takes its time: then it is not begun again."""
        if isinstance(action, ProbeRevision):
            return self.probing(action.service, action.revision)
        return isinstance(action, RemoveReplica) and action.handle in self._memory.ending

    def probing(self, service: str, revision: int) -> bool:
        """Whether this revision is being asked right now."""
        task = self._probing.get((service, revision))
        return task is not None and not task.done()

    def probe(self, revision: Revision) -> asyncio.Task[None]:
        """Ask this revision through the front door, in the background; a second request joins the first."""
        key = (revision.service, revision.number)
        task = self._probing.get(key)
        if task is None or task.done():
            task = asyncio.create_task(self._probe(revision))
            self._probing[key] = task
        return task

    def _ensure_replica(self, action: EnsureReplica, world: World) -> None:
        placement = replace(action.placement, seed=secrets.token_hex(4))
        name = str(placement.name)
        if any(one.role == "replica" and one.name == name for one in self._runtime.processes()):
            return
        revision = self._store.revision(placement.name.service, placement.name.revision)
        spec, model = revision.spec, world.model_of(revision.spec)
        if model is None:
            raise KeyError(spec.model)
        interpreter, runner = self._home(spec)
        launch = engine_for(spec, interpreter, model, world.host, runner).launch(spec, model, placement)
        log = self._paths.log("replica", name)
        self._runtime.sweep("replica", name, (log,))
        started = self._runtime.start(launch, ("replica", name, placement.port), log, placement.devices)
        self._observer.watch(started, adopted=False)

    def _home(self, spec: Spec) -> tuple[str, str | None]:
        """The Python that holds the engine, and our program for it where that Python has no gonogo.

        Raises EnvironmentFault when the environment is not there, or not whole.
        """
        name = spec.engine.environment if spec.engine is not None else None
        if name is None:
            return sys.executable, None
        made = EnvironmentStore(self._paths.environments).find(name)
        if made is None:
            raise EnvironmentFault("EnvironmentMissing", {"name": name})
        return str(made.python_path), RUNNER

    def _remove_replica(self, action: RemoveReplica) -> None:
        watch = self._memory.watches.get(action.handle)
        if action.why == "ReplicaHung" and watch is not None and action.handle not in self._memory.ending:
            self._observer.died(watch, hung=True)
        self._memory.ending.add(action.handle)
        if action.force:
            # A stopped process takes no SIGTERM: only SIGKILL ends it at once.
            self._runtime.kill(action.handle)
            return
        task = asyncio.create_task(asyncio.to_thread(self._end, action.handle))
        self._endings.add(task)
        task.add_done_callback(self._endings.discard)

    def _end(self, handle: str) -> None:
        self._runtime.end(handle, GRACE_S)
        self._wake()

    def _ensure_part(self, action: EnsurePart) -> None:
        role, name = action.role, str(action.index)
        if any((one.role, one.name) == (role, name) for one in self._runtime.processes()):
            return
        launch = launch_of(role, action.index, self._paths)
        self._runtime.start(launch, (role, name, None), self._paths.log(role, name))

    def _ensure_gateway(self, action: EnsureGateway) -> None:
        if any(one.role == "gateway" for one in self._runtime.processes()):
            return
        given = Bootstrap(
            node_id="gonogo", xds_socket=str(self._paths.xds_socket), admin_socket=str(self._paths.admin_socket)
        )
        _write_private(self._paths.bootstrap, bootstrap_json(given))
        self._paths.admin_socket.unlink(missing_ok=True)
        log = self._paths.log("gateway", "envoy")
        words = command(gateway_binary(), str(self._paths.bootstrap), action.concurrency, str(log))
        launch = Launch(command=words, environment={}, niceness=0)
        self._runtime.start(launch, ("gateway", "envoy", None), log)

    async def _publish(self, action: PublishSnapshot) -> None:
        snapshot = await asyncio.to_thread(self._translate, action)
        self._ads.set_snapshot(snapshot)
        self._memory.published = action.digest()
        self._last_published = action

    async def refresh(self) -> None:
        """Publish the last snapshot again, with a renewed certificate where one is due; equal content is not pushed."""
        if self._last_published is not None:
            self._ads.set_snapshot(await asyncio.to_thread(self._translate, self._last_published))

    def _translate(self, action: PublishSnapshot) -> Snapshot:
        certificate = self._certificate()
        return translate(
            GatewayInput(
                listeners=action.listeners,
                clusters=action.clusters,
                policy_sockets=self._sockets(POLICY),
                certificate_chain_pem=certificate.chain_pem,
                private_key_pem=certificate.key_pem,
                access_log_path=str(self._paths.access_log),
                queue_socket=self._sockets(TASKS)[0],
                relay_sockets=self._sockets(RELAY),
                inner_socket=str(self._paths.inner_socket),
                inner_log_path=str(self._paths.inner_log),
                rpc_socket=self._sockets(RPC)[0],
                front_socket=str(self._paths.front_socket),
                fallback_keys=usable_keys(action.clusters),
                system_ca_file=system_ca_file(),
            )
        )

    def _sockets(self, role: str) -> tuple[str, ...]:
        return tuple(str(self._paths.part_socket(role, index)) for index in range(PARTS[role]))

    def _certificate(self) -> CertificateFiles:
        """The certificate for all names that the services ask for; made or renewed when it must be."""
        gateways = tuple(one.desired.spec.gateway for one in self._store.services() if not one.removed)
        found = ensure_certificates(self._paths.tls, names_for(gateways), time.time(), given_pair(gateways))
        self._memory.ca_file = None if found.ca_file is None else str(found.ca_file)
        return found

    def _promote(self, action: Promote) -> None:
        with self._deployment.change() as change:
            change.set_serving(action.service, action.revision)

    def _reject(self, action: Reject) -> None:
        finding = action.finding
        with self._deployment.change() as change:
            change.reject(action.service, action.revision, finding.reason, dict(finding.values))

    def _forget(self, action: ForgetService) -> None:
        with self._deployment.change() as change:
            change.forget_service(action.service)
        for key in [key for key in self._memory.probes if key[0] == action.service]:
            del self._memory.probes[key]

    async def _probe(self, revision: Revision) -> None:
        try:
            found = await asyncio.to_thread(self._ask, revision)
        except Exception as error:  # noqa: BLE001 a probe that cannot be asked is an answer too: unknown, with the reason
            found = not_asked(revision, f"{type(error).__name__}: {error}"[:300], time.time())
        self._memory.probes[(revision.service, revision.number)] = found
        self._wake()

    def _ask(self, revision: Revision) -> tuple[ProbeFacts, ...]:
        now = time.time()
        minted = [mint(secrets.token_bytes(RANDOM_BYTES)) for _ in range(2)]
        with self._deployment.change() as change:
            for one in minted:
                change.add_key(
                    KeyRow(
                        key_id=one.key_id,
                        secret_hash=one.secret_hash,
                        name=f"probe of {revision.name}",
                        service=revision.service,
                        revision=revision.number,
                        scopes=(INFERENCE,),
                        created_at=now,
                        expires_at=now + PROBE_KEY_LIFE_S,
                        revoked_at=None,
                    )
                )

        def revoke(index: int) -> None:
            with self._deployment.change() as change:
                change.revoke_key(minted[index].key_id)

        gateway, trusted = revision.spec.gateway, self._certificate().ca_file
        door = FrontDoor(
            address=gateway.address,
            port=gateway.port,
            ca_file=None if trusted is None else str(trusted),
            key=minted[0].text,
            revocable_key=minted[1].text,
            revoke=lambda: revoke(1),
        )
        try:
            return ask_everything(door, revision, self._sees_images(revision), time.time)
        finally:
            revoke(0)

    def _sees_images(self, revision: Revision) -> bool | None:
        if revision.spec.projector is not None:
            return True
        if revision.spec.external:
            return None
        return self._observer.models.look([revision.spec.model])[revision.spec.model].sees_images


def _write_private(path: Path, text: str) -> None:
    temporary = path.with_suffix(".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    shutil.move(temporary, path)
