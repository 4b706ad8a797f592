"""How each part is started: role → command line. One line in the table per part of `gonogo.facts.part.PARTS`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Callable, Mapping

from gonogo.engines.model import Launch
from gonogo.facts.part import PARTS, POLICY, RELAY, RPC, TASKS, VALKEY, WORKER
from gonogo.runtimes.paths import StatePaths
from gonogo.runtimes.valkey import valkey_command


def launch_of(role: str, index: int, paths: StatePaths) -> Launch:
    """The command that starts this part. Raises KeyError for a role that there is not."""
    return Launch(command=_COMMANDS[role](index, paths), environment={}, niceness=_NICENESS.get(role, 0))


def _policy(index: int, paths: StatePaths) -> tuple[str, ...]:
    return (
        *(sys.executable, "-m", "gonogo.gateway.policy.main"),
        *("--socket", str(paths.part_socket(POLICY, index))),
        *("--database", str(paths.database)),
        *("--index", str(index)),
        *("--valkey", str(paths.part_socket(VALKEY, 0))),
        *("--access-log", str(paths.access_log)),
        *(word for relay in range(PARTS[RELAY]) for word in ("--relay-log", str(paths.relay_log(relay)))),
        *("--envoy", str(paths.admin_socket)),
    )


def _rpc(index: int, paths: StatePaths) -> tuple[str, ...]:
    return (
        *(sys.executable, "-m", "gonogo.gateway.rpc.main"),
        *("--socket", str(paths.part_socket(RPC, index)), "--front", str(paths.front_socket)),
    )


def _relay(index: int, paths: StatePaths) -> tuple[str, ...]:
    return (
        *(sys.executable, "-m", "gonogo.gateway.relay.main"),
        *("--socket", str(paths.part_socket(RELAY, index))),
        *("--inner", str(paths.inner_socket)),
        *("--admin", str(paths.admin_socket)),
        *("--log", str(paths.relay_log(index))),
        *("--index", str(index)),
    )


def _valkey(index: int, paths: StatePaths) -> tuple[str, ...]:
    return valkey_command(paths.part_socket(VALKEY, index), paths.valkey)


def _tasks(index: int, paths: StatePaths) -> tuple[str, ...]:
    return _of_queue("gonogo.tasks.main", paths, paths.part_socket(TASKS, index))


def _worker(index: int, paths: StatePaths) -> tuple[str, ...]:
    return _of_queue("gonogo.tasks.worker", paths, paths.part_socket(WORKER, index))


def _of_queue(module: str, paths: StatePaths, socket: Path) -> tuple[str, ...]:
    return (sys.executable, "-m", module, "--state-dir", str(paths.root), "--socket", str(socket))


_COMMANDS: Mapping[str, Callable[[int, StatePaths], tuple[str, ...]]] = {
    POLICY: _policy,
    RELAY: _relay,
    RPC: _rpc,
    VALKEY: _valkey,
    TASKS: _tasks,
    WORKER: _worker,
}
_NICENESS: Mapping[str, int] = {TASKS: 2, WORKER: 4}
"""Whoever waits for an answer goes before whoever left a task."""
