"""Makes an environment from its lock: in a folder aside, asked whether its engine answers, and moved into place last.

Killed at any moment it leaves nothing that looks whole. Two at once: the second waits and finds it made.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Callable

from gonogo.facts.environment import PythonAtHand
from gonogo.facts.environment_lock import Lock, render_lock
from gonogo.facts.parse_programs import last_words
from gonogo.facts.parse_uv import parse_uv_downloads
from gonogo.runtimes.environments import MARKER, UNFINISHED, EnvironmentStore, Made, fault_of
from gonogo.runtimes.package_sources import PackageSources
from gonogo.runtimes.uv import EnvironmentFault, Uv
from gonogo.runtimes.whole_folders import disk_bytes, settle, write_whole

LONGEST_INSTALL_S, LONGEST_ANSWER_S = 5400.0, 300.0
ROOM_PER_DOWNLOADED, COPIES = 5, 2
"""Room for uv's unpacked copy and the environment's own. xllamacpp 2026.10 takes 6.4 times its 32 MB (measured), which
the least covers; large sets take less, for much of them is compressed little."""
LEAST_BYTES = 400_000_000
MIB, MOST_NAMED = 1024**2, 3
Tell = Callable[[str, dict[str, object]], None]
"""Progress: the name of a message, and its values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOrder:
    """What is to be made, and from where. `measured_bytes`: what such an environment took elsewhere, where known."""

    lock: Lock
    python: PythonAtHand
    sources: PackageSources
    measured_bytes: int | None = None


def make_environment(store: EnvironmentStore, uv: Uv, order: BuildOrder, tell: Tell) -> tuple[Made, bool]:
    """The environment of a lock, and whether it was made now. Raises EnvironmentFault, KeyboardInterrupt."""
    name = order.lock.name
    with store.held(name, waiting=lambda: tell("env.waiting", {"name": name})) as held:
        found = store.find(name)
        if found is not None:
            return found, False
        try:
            store.sweep(name)
            refuse_full_disk(store.root, order)
            store.keep_lock(order.lock.digest, render_lock(order.lock))
            aside = store.root / f"{UNFINISHED}{name}-{os.getpid()}"
            try:
                made = _build(store, replace(uv, inherits=(held,)), order, aside, tell)
            except BaseException:
                shutil.rmtree(aside, ignore_errors=True)
                raise
        except OSError as error:
            raise fault_of(error, store.root) from None
        return made, True


def refuse_full_disk(folder: Path, order: BuildOrder) -> None:
    """Raises EnvironmentFault when there is not enough room, before anything is downloaded."""
    downloads = order.lock.download_bytes
    needed = max((order.measured_bytes or 0) * COPIES or (downloads or 0) * ROOM_PER_DOWNLOADED, LEAST_BYTES)
    free = shutil.disk_usage(folder).free
    if free < needed:
        values = {"free_gib": free / 1024**3, "needed_gib": needed / 1024**3, "path": str(folder)}
        raise EnvironmentFault("DiskTooSmall", values)


def ask_engine(python: Path, lock: Lock) -> str:
    """The version that the engine in an environment gives. Raises EnvironmentFault when it gives another, or none."""
    command = (str(python), "-I", "-B", "-c", lock.ask)
    environment = {"PATH": os.environ.get("PATH", ""), "HOME": os.environ.get("HOME", "/"), "LC_ALL": "C.UTF-8"}
    quiet = {"VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
            timeout=LONGEST_ANSWER_S, cwd="/", env={**environment, **quiet},
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise EnvironmentFault(
            "EngineAnswersNot", {"engine": lock.engine, "words": f"{LONGEST_ANSWER_S:g} s"}
        ) from None
    except OSError as error:
        raise EnvironmentFault("EngineAnswersNot", {"engine": lock.engine, "words": str(error)}) from None
    said = done.stdout[-65_536:].decode("utf-8", "replace")
    if done.returncode:
        words = signal.Signals(-done.returncode).name if done.returncode < 0 else last_words(said)
        raise EnvironmentFault("EngineAnswersNot", {"engine": lock.engine, "words": words})
    answered = said.strip().splitlines()[-1].strip() if said.strip() else ""
    if not _same(answered, lock.version):
        values = {"engine": lock.engine, "answered": answered[:80] or "-", "version": lock.version}
        raise EnvironmentFault("EngineAnswersOther", values)
    return answered


def _build(store: EnvironmentStore, uv: Uv, order: BuildOrder, aside: Path, tell: Tell) -> Made:
    lock = order.lock
    tell("env.making", {"name": lock.name, "python": order.python.version})
    uv.run(("venv", str(aside), "--python", order.python.path, "--relocatable", "--no-project", "--quiet"), 120.0)
    requirements = store.lock_path(lock.digest)
    words = (
        "pip", "install", "--python", str(aside / "bin" / "python"), "--requirements", str(requirements), "--no-deps",
        "--require-hashes", "--only-binary", ":all:", "--link-mode", "copy", *order.sources.words(),
    )  # fmt: skip
    uv.run(words, LONGEST_INSTALL_S, lambda said: tell(*_progress(aside, lock, said)))
    tell("env.asking", {"engine": lock.engine})
    answered = ask_engine(aside / "bin" / "python", lock)
    made = Made(
        name=lock.name, path=store.path(lock.name), engine=lock.engine, version=lock.version, answered=answered,
        python=order.python.version, lock=lock.digest, packages=len(lock.packages), disk_bytes=disk_bytes(aside),
        made_at=time.time(),
    )  # fmt: skip
    told = {name: value for name, value in asdict(made).items() if name not in ("path", "used_at")}
    write_whole(aside / MARKER, json.dumps(told, indent=1))
    os.rename(aside, made.path)
    settle(store.root)
    return made


def _progress(aside: Path, lock: Lock, said: str) -> tuple[str, dict[str, object]]:
    done = sum(1 for _ in aside.glob("lib/python*/site-packages/*.dist-info"))
    if done:
        return "env.unpacking", {"done": done, "all": len(lock.packages)}
    left = parse_uv_downloads(said)
    whole = lock.download_bytes
    shown = ", ".join(left[:MOST_NAMED]) + (" …" if len(left) > MOST_NAMED else "")
    values: dict[str, object] = {
        "all": len(lock.packages),
        "mib": None if whole is None else whole // MIB,
        "left": shown or None,
    }
    return "env.fetching", values


def _same(answered: str, version: str) -> bool:
    """Whether they are one version: what stands behind a `+` is the build's own."""
    return answered.partition("+")[0] == version.partition("+")[0]
