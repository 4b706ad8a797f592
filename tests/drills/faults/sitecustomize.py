"""Breaks a running deployment on purpose: Python imports this by itself where its folder is on PYTHONPATH.

`GONOGO_DRILL` names a JSON file that is read again whenever it changes, so one deployment serves many drills:

    {"without": ["port_free"],      checks that are taken out of the catalogue
     "gateway": "old_tls",          a wrong configuration (GATEWAY below)
     "policy": "any_secret",        a wrong decision (POLICY below)
     "clock_s": -300,               how far the wall clock is set wrong
     "clock_kept": false,           what the kernel says of the clock
     "memory_mib": 600,             a machine of so much memory, of which only replicas hold any
     "measure_s": 0.2}              no fault: each single measurement takes so long instead of two seconds

Without that variable it does nothing. Not here: the broken engine (`broken_engine.py`).
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import sys
import time
from dataclasses import replace
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, Callable, Iterator

PLACE = os.environ.get("GONOGO_DRILL", "")
_REAL_TIME = time.time
_known: tuple[Any, dict[str, Any]] = (None, {})


def fault(kind: str) -> Any:
    """What is broken now: the value under `kind` in the file, None when nothing is."""
    global _known
    try:
        seen = os.stat(PLACE)
        mark = (seen.st_mtime_ns, seen.st_ino)
        if _known[0] != mark:
            with open(PLACE, encoding="utf-8") as file:
                _known = (mark, json.load(file))
    except (OSError, ValueError):
        return None
    return _known[1].get(kind)


class _Without(tuple[Any, ...]):
    """The catalogue without the checks that are taken out right now."""

    __slots__ = ()

    def __iter__(self) -> Iterator[Any]:
        out = fault("without") or ()
        return (check for check in tuple.__iter__(self) if check.name not in out)


def _catalogue(module: Any) -> None:
    module.CHECKS = _Without(module.CHECKS)


def _actions(module: Any) -> None:
    """A snapshot counts as another one while the gateway's configuration is wrong: control publishes it at once."""
    right = module.PublishSnapshot.digest
    module.PublishSnapshot.digest = lambda self: f"{fault('gateway') or ''}{right(self)}"


def _listeners(module: Any) -> None:
    right_tls, right_filters = module.downstream_tls, module._filters

    def downstream_tls() -> Any:
        made = right_tls()
        if fault("gateway") == "old_tls":
            made["typed_config"]["common_tls_context"]["tls_params"]["tls_minimum_protocol_version"] = "TLSv1_2"
        return made

    def filters() -> Any:
        made = right_filters()
        if fault("gateway") == "small_bodies":
            import envoy.extensions.filters.http.buffer.v3.buffer_pb2  # noqa: F401 - makes its name known

            kind = "type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer"
            small = {"@type": kind, "max_request_bytes": 1024 * 1024}
            made.insert(0, {"name": "small_bodies", "typed_config": small})
        return made

    module.downstream_tls, module._filters = downstream_tls, filters


def _routes(module: Any) -> None:
    right = module.routes

    def routes(clusters: Any, *others: Any, **more: Any) -> Any:
        made = right(clusters, *others, **more)
        if fault("gateway") == "catch_all" and clusters:
            open_door = {
                "match": {"prefix": "/"},
                "route": {"cluster": clusters[0].name, "timeout": "0s"},
                "typed_per_filter_config": module.asked_nothing(),
            }
            made["virtual_hosts"][0]["routes"][-1] = open_door
        return made

    module.routes = routes


def _secrets(module: Any) -> None:
    right = module.server_certificate

    def server_certificate(chain: str, key: str) -> Any:
        if (fault("gateway") or "").startswith("wrong_private_key"):
            from gonogo.security.certificates import _private_pem, new_key

            key = _private_pem(new_key()).decode()
        return right(chain, key)

    module.server_certificate = server_certificate


def _policy(module: Any) -> None:
    right_decide, right_matches, right_usable = module.decide, module.matches, module.usable

    def decide(request: Any, view: Any, now: float) -> Any:
        decision = right_decide(request, view, now)
        if fault("policy") == "no_key_needed" and getattr(decision, "code", None) == "missing_api_key":
            services = {service: f"{service}/{number}" for service, number in view.serving.items()}
            return module.Caller(key=next(iter(view.keys.values())), services=services)
        return decision

    def usable(row: Any, now: float) -> bool:
        if fault("policy") == "revocation_ignored":
            return bool(row.expires_at is None or now < row.expires_at)
        return bool(right_usable(row, now))

    module.decide = decide
    module.matches = lambda parsed, stored: fault("policy") == "any_secret" or right_matches(parsed, stored)
    module.usable = usable


def _answers(module: Any) -> None:
    right = module.model_list

    def model_list(caller: Any, view: Any) -> bytes:
        if fault("policy") == "list_renamed":
            (revision,) = caller.services.values()
            caller = replace(caller, services={"ggml-model-q4_1.gguf": revision})
        return bytes(right(caller, view))

    module.model_list = model_list


def _look_system(module: Any) -> None:
    right = module.clock_is_kept
    module.clock_is_kept = lambda: right() if fault("clock_kept") is None else bool(fault("clock_kept"))


def _look(module: Any) -> None:
    right = module._memory

    def memory() -> Any:
        seen, size_mib = right(), fault("memory_mib")
        if size_mib is None:
            return seen
        return replace(seen, available_bytes=max(0, size_mib * 1024**2 - _held_by_replicas()))

    module._memory = memory


def _held_by_replicas() -> int:
    held, mine = 0, f"GONOGO_DRILL={PLACE}".encode()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/environ", "rb") as environ, open(f"/proc/{pid}/statm") as statm:
                marks = environ.read().split(b"\0")
                if b"GONOGO_ROLE=replica" in marks and mine in marks:
                    held += int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except (OSError, IndexError):  # it has ended
            continue
    return held


def _measure(module: Any) -> None:
    module.SECONDS = fault("measure_s") or module.SECONDS


AFTER_IMPORT: dict[str, Callable[[Any], None]] = {
    "gonogo.checks.catalogue": _catalogue,
    "gonogo.actions.model": _actions,
    "gonogo.runtimes.look": _look,
    "gonogo.runtimes.look_system": _look_system,
    "gonogo.runtimes.measure": _measure,
    "gonogo.gateway.resources.listeners": _listeners,
    "gonogo.gateway.resources.routes": _routes,
    "gonogo.gateway.resources.secrets": _secrets,
    "gonogo.gateway.policy.decide": _policy,
    "gonogo.gateway.policy.answers": _answers,
}


class _Finder(importlib.abc.MetaPathFinder):
    """Lets the real module load, and then changes it."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        change = AFTER_IMPORT.get(name)
        spec = importlib.machinery.PathFinder.find_spec(name, path, target) if change else None
        if change is None or spec is None or spec.loader is None:
            return None
        load = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            load(module)
            change(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


if PLACE:
    sys.meta_path.insert(0, _Finder())
    time.time = lambda: _REAL_TIME() + (fault("clock_s") or 0.0)
