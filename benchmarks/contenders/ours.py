"""Our gateway, made of the same parts as `gonogo up` makes it: Envoy over ADS, two policy servers, Valkey, a store.

Only the engine is not ours: the fake upstream is the one replica of service `bench`, revision 1.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Iterator

from contenders.process import Contender, NotReady, await_answer, free_port, refuses_without_key, running
from gonogo.actions.model import ClusterPlan, EndpointPlan, ListenerPlan
from gonogo.facts.part import POLICY, RPC, TASKS
from gonogo.facts.replica import ReplicaName
from gonogo.gateway.ads import AdsServer
from gonogo.gateway.bootstrap import Bootstrap, bootstrap_json, command
from gonogo.gateway.snapshot import Snapshot
from gonogo.gateway.translate import GatewayInput, translate
from gonogo.runtimes.paths import StatePaths
from gonogo.runtimes.programs import gateway_binary
from gonogo.runtimes.valkey import valkey_command
from gonogo.security.certificates import CertificateFiles
from gonogo.security.keys import LIMITS, RANDOM_BYTES, KeyRow, mint
from gonogo.spec import Spec
from gonogo.spec.engine import EngineChoice
from gonogo.spec.model import Expect
from gonogo.store import open_store

SERVICE = "bench"
# An engine that takes as many requests at once as the load has: admission counts each, and lets none of them wait.
_SPEC = Spec(
    service=SERVICE,
    model="fake",
    engine=EngineChoice(name="vllm"),
    expect=Expect(concurrent_requests=256),
)
POLICY_SERVERS = 2


@contextlib.contextmanager
def ours(folder: Path, upstream_port: int, certificates: CertificateFiles) -> Iterator[Contender]:
    """Start all of it below this folder; it answers when this is entered. Raises `NotReady`."""
    paths = StatePaths.of(folder)
    paths.make()
    contender = Contender(
        name="ours",
        port=free_port(),
        key=_fill_store(paths),
        asks_for_key=True,
        note=f"Envoy, {_threads()} worker threads; {POLICY_SERVERS} policy servers; all limits, Valkey; access log",
    )
    paths.bootstrap.write_text(
        bootstrap_json(
            Bootstrap(node_id="gonogo", xds_socket=str(paths.xds_socket), admin_socket=str(paths.admin_socket))
        )
    )
    with contextlib.ExitStack() as stack:
        # The sockets may lie elsewhere, when the path of this folder is long.
        stack.callback(shutil.rmtree, paths.run, ignore_errors=True)
        stack.enter_context(
            running(valkey_command(paths.part_socket("valkey", 0), paths.valkey), paths.log("valkey", "0"))
        )
        for index in range(POLICY_SERVERS):
            stack.enter_context(_policy_server(paths, index))
        stack.enter_context(_ads(paths, _snapshot(paths, contender.port, upstream_port, certificates)))
        log = paths.log("gateway", "envoy")
        words = command(gateway_binary(), str(paths.bootstrap), _threads(), str(log))
        process = stack.enter_context(running(words, log))
        await_answer(process, contender, log, within_s=20)
        if not refuses_without_key(contender):
            raise NotReady("answers without a key")
        yield contender


def _threads() -> int:
    # As `gonogo.plan.decide` has it.
    return min(4, max(1, os.cpu_count() or 1))


def _fill_store(paths: StatePaths) -> str:
    """A store in which service `bench` serves revision 1; the text of a key for it."""
    store = open_store(paths.database, clock=time.time)
    key = mint(os.urandom(RANDOM_BYTES))
    row = KeyRow(
        key_id=key.key_id,
        secret_hash=key.secret_hash,
        name="bench",
        service=SERVICE,
        revision=None,
        scopes=("inference",),
        created_at=time.time(),
        expires_at=None,
        revoked_at=None,
        **dict.fromkeys(LIMITS, 10**9),
    )
    with store.change(epoch=store.acquire_lease("bench"), actor="control", principal="bench") as change:
        change.set_serving(SERVICE, change.add_revision(_SPEC).number)
    with store.change(epoch=None, actor="cli", principal="bench") as change:
        change.add_key(row)
    store.close()
    return key.text


@contextlib.contextmanager
def _policy_server(paths: StatePaths, index: int) -> Iterator[subprocess.Popen[bytes]]:
    socket, log = paths.part_socket(POLICY, index), paths.log(POLICY, str(index))
    words = (
        *("--socket", str(socket), "--database", str(paths.database), "--index", str(index)),
        *("--valkey", str(paths.part_socket("valkey", 0)), "--access-log", str(paths.access_log)),
        *("--envoy", str(paths.admin_socket)),
    )
    with running((sys.executable, "-m", "gonogo.gateway.policy.main", *words), log) as process:
        ends = time.monotonic() + 20
        while not socket.exists():
            if process.poll() is not None or time.monotonic() > ends:
                raise NotReady(f"policy server {index} does not listen: {log.read_text(errors='replace')[-300:]}")
            time.sleep(0.05)
        yield process


def _snapshot(paths: StatePaths, port: int, upstream_port: int, certificates: CertificateFiles) -> Snapshot:
    name = ReplicaName(service=SERVICE, revision=1, index=0)
    endpoint = EndpointPlan(name=name, address="127.0.0.1", port=upstream_port)
    return translate(
        GatewayInput(
            listeners=(ListenerPlan(address="127.0.0.1", port=port),),
            clusters=(ClusterPlan(name=f"{SERVICE}/1", endpoints=(endpoint,)),),
            policy_sockets=tuple(str(paths.part_socket(POLICY, index)) for index in range(POLICY_SERVERS)),
            certificate_chain_pem=certificates.chain_pem,
            private_key_pem=certificates.key_pem,
            access_log_path=str(paths.access_log),
            queue_socket=str(paths.part_socket(TASKS, 0)),
            rpc_socket=str(paths.part_socket(RPC, 0)),
            front_socket=str(paths.front_socket),
        )
    )


@contextlib.contextmanager
def _ads(paths: StatePaths, snapshot: Snapshot) -> Iterator[None]:
    """The ADS server in a thread of its own, as it is in control's process beside other work."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="ads", daemon=True)
    thread.start()
    server = AdsServer(paths.xds_socket, saved_path=paths.snapshot)
    try:
        asyncio.run_coroutine_threadsafe(server.start(), loop).result(10)
        loop.call_soon_threadsafe(server.set_snapshot, snapshot)
        yield
        asyncio.run_coroutine_threadsafe(server.stop(), loop).result(10)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)
        loop.close()
