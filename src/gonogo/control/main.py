"""The control process: the one composition root. Everything is made here and handed to what needs it."""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import os
import pwd
import signal
import socket
import sys
import time
from pathlib import Path

from gonogo.api.server import server
from gonogo.control.apply import Hands
from gonogo.control.collect import collect, uses_in
from gonogo.control.deployment import Deployment, Memory
from gonogo.control.desk import Desk
from gonogo.control.engine_facts import tell_for_ever
from gonogo.control.journal import Journal
from gonogo.control.keeper import EXIT_LOCKED, KEPT
from gonogo.control.launch import start_keeper
from gonogo.control.log_rotation import rotate_logs
from gonogo.control.loop import Reconciler
from gonogo.control.metering import Meter, meter_for_ever
from gonogo.control.observe import Observer
from gonogo.control.record import Recorder
from gonogo.facts.part import VALKEY
from gonogo.gateway.ads import AdsServer, load_snapshot
from gonogo.runtimes.environments import EnvironmentStore, Made
from gonogo.runtimes.local import LocalRuntime
from gonogo.runtimes.paths import StatePaths
from gonogo.runtimes.tell import tell
from gonogo.store import open_store
from gonogo.store.store import Store

HOUSEKEEPING_ROUNDS, DIRECTORY_EVERY_S = 30, 1.0
COLLECT_EVERY_S = 3600.0


def lock(paths: StatePaths) -> int | None:
    """The lock that makes this the only control process here; None when another has it. Held until the process ends."""
    descriptor = os.open(paths.lease, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


async def run(paths: StatePaths, store: Store) -> None:
    """Control until SIGTERM. Nothing that serves traffic ends with it."""
    epoch = store.acquire_lease(f"pid {os.getpid()} of {pwd.getpwuid(os.getuid()).pw_name}@{socket.gethostname()}")
    runtime = LocalRuntime(paths.root)
    runtime.scan()
    deployment = Deployment(paths=paths, runtime=runtime, store=store, epoch=epoch, memory=Memory())
    loop = asyncio.get_running_loop()

    def wake() -> None:
        reconciler.wake()

    recorder = Recorder(deployment)
    ads = AdsServer(paths.xds_socket, saved_path=paths.snapshot, on_change=wake)
    saved = load_snapshot(paths.snapshot)
    if saved is not None:
        ads.set_snapshot(saved)  # what was last acknowledged holds until every replica was looked at
    observer = Observer(deployment, ads.status, wake)
    observer.on_death = recorder.died
    hands = Hands(deployment, ads, observer, lambda: loop.call_soon_threadsafe(wake))
    failpoint = paths.root / "failpoint" if os.environ.get("GONOGO_FAILPOINTS") == "1" else None
    reconciler = Reconciler(deployment, observer, hands, Journal(deployment, failpoint), recorder)
    desk = Desk(deployment, observer, hands, reconciler, recorder)
    paths.xds_socket.unlink(missing_ok=True)
    await ads.start()
    http = server(desk)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, reconciler.stop)
    serving = asyncio.create_task(http.serve(sockets=[_bound(paths)]))
    keeping = asyncio.create_task(_housekeeping(paths, runtime, reconciler))
    collecting = asyncio.create_task(_collect(deployment))
    metering = asyncio.create_task(meter_for_ever(Meter(paths, store, deployment.change)))
    valkey = paths.part_socket(VALKEY, 0)
    telling = asyncio.create_task(tell_for_ever(valkey, lambda: tuple(deployment.memory.watches.values())))
    with deployment.change() as change:
        change.journal_abandoned()
        change.event("ControlStarted", pid=os.getpid(), adopted=[one.name for one in runtime.processes()])
    try:
        await reconciler.run()
        with deployment.change() as change:
            change.event("ControlStopped", pid=os.getpid())
    finally:
        http.should_exit = True
        keeping.cancel()
        collecting.cancel()
        metering.cancel()
        telling.cancel()
        await asyncio.wait([serving], timeout=2.0)
        await ads.stop()


async def _housekeeping(paths: StatePaths, runtime: LocalRuntime, reconciler: Reconciler) -> None:
    """Bound the logs, renew the certificate, keep a keeper; stop when the state directory was removed or replaced."""
    born = _identity(paths.lease)
    while True:
        try:
            await asyncio.to_thread(rotate_logs, paths)
        except OSError as error:  # a full disk has no room for an older copy: the next round comes
            tell(f"logs were not rotated: {error!r}")
        await reconciler.refresh()
        for _ in range(HOUSEKEEPING_ROUNDS):
            await asyncio.sleep(DIRECTORY_EVERY_S)
            if os.environ.get(KEPT) and not reconciler.stopping and not _kept(runtime):
                start_keeper(paths)
                runtime.scan()
            if _identity(paths.lease) != born:
                tell(f"{paths.root} was removed or replaced: this control process ends")
                reconciler.stop()
                return


async def _collect(deployment: Deployment) -> None:
    """Each hour, take away environments that nobody needs; what fails is told and tried again in the next hour."""
    environments = EnvironmentStore(deployment.paths.environments)

    def record(made: Made) -> None:
        with deployment.change() as change:
            change.event("EnvironmentCollected", name=made.name, mib=made.disk_bytes // 1024**2)

    while True:
        try:
            await asyncio.to_thread(lambda: collect(environments, uses_in(deployment.store), time.time(), record))
        except Exception as error:  # noqa: BLE001 (housekeeping must not end control)
            tell(f"environments were not collected: {error!r}")
        await asyncio.sleep(COLLECT_EVERY_S)


def _kept(runtime: LocalRuntime) -> bool:
    """Whether a keeper runs: the known one, or one that the whole process table shows."""
    return any(one.role == "keeper" for one in runtime.processes()) or any(
        one.role == "keeper" for one in runtime.scan()
    )


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        seen = path.stat()
    except OSError:
        return None
    return seen.st_dev, seen.st_ino


def _bound(paths: StatePaths) -> socket.socket:
    """The API's socket, for the owner alone. The lock is ours, so a socket file that is there is a dead one's."""
    paths.control_socket.unlink(missing_ok=True)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    bound.bind(str(paths.control_socket))
    os.chmod(paths.control_socket, 0o600)
    return bound


def main() -> int:
    """Exit codes: 0 asked to stop, 75 another control process runs, 1 anything else."""
    parser = argparse.ArgumentParser(prog="gonogo-control", description=__doc__)
    parser.add_argument("--state-dir", required=True)
    paths = StatePaths.of(parser.parse_args().state_dir)
    os.umask(0o077)
    paths.make()
    held = lock(paths)
    if held is None:
        print(f"another control process holds {paths.lease}", file=sys.stderr)
        return EXIT_LOCKED
    store = open_store(paths.database, clock=time.time)
    asyncio.run(run(paths, store))
    return 0


if __name__ == "__main__":
    sys.exit(main())
