"""Runs the measuring programs, one after the other, each a process of its own, and tells what they are doing.

Bounded: a program that says nothing new for too long is ended, and one that is interrupted ends with everything that it
started. Their files have no names, so nothing is left behind. Not here: what is enough (`gonogo.checks.measured`).
"""

from __future__ import annotations

import os
import selectors
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Iterator, Mapping, Sequence

import gonogo
from gonogo.facts.measured import NO_TORCH, CpuMeasured, Measured, StorageMeasured
from gonogo.facts.parse_measured import (
    AcceleratorsMeasured,
    Line,
    accelerators_measured,
    cpu_measured,
    parse_line,
    storage_measured,
)
from gonogo.runtimes.ask import ask, end

SECONDS = 2.0
"""For each single measurement; about 40 s in all for a processor, one tier and one GPU."""
MOST_BYTES = 1024**3
"""One file on a tier, and one array in memory, take no more."""
SILENCE_S = 120.0
MOST_OUTPUT_BYTES = 4 * 1024 * 1024
Tell = Callable[[str, Mapping[str, object]], None]
"""Called with the part that is measured (cpu, storage, accelerators) and the step's own values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """A storage tier to measure: a directory, or one that does not exist yet (then the one that will hold it)."""

    name: str
    path: str
    kind: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to measure. `python` runs torch; None: there is none, or there is no GPU (`accelerators` False)."""

    threads: int
    tiers: tuple[Tier, ...]
    accelerators: bool
    python: str | None
    seconds: float
    most_bytes: int
    device: str = "cuda"


def measure(request: Request, tell: Tell) -> Measured:
    """Everything that was asked for. What could not be measured is None, with the reason beside it."""
    at = time.time()
    cpu, cpu_problem = _cpu(request, tell)
    storage = tuple(_tier(tier, request, tell) for tier in request.tiers)
    cards, problem = _accelerators(request, tell)
    return Measured(
        at=at,
        cpu=cpu,
        cpu_problem=cpu_problem,
        storage=storage,
        accelerators=cards.accelerators if cards is not None else None if problem else (),
        links=cards.links if cards is not None else (),
        torch_version=cards.torch_version if cards is not None else None,
        torch_nccl_version=cards.nccl_version if cards is not None else None,
        accelerators_problem=problem,
    )


def find_torch(given: str | None = None) -> str | None:
    """A Python that has torch: the given one; else this one, that of an active environment, `python3`. None: none has.

    Torch is only looked for, not loaded: that takes seconds, and may fail for reasons that the measurement tells.
    """
    active = [os.environ[name] + "/bin/python" for name in ("VIRTUAL_ENV", "CONDA_PREFIX") if os.environ.get(name)]
    for candidate in (given,) if given is not None else (sys.executable, *active, "python3"):
        answer = ask((candidate, "-c", "import importlib.util as u; print(u.find_spec('torch') is not None)"), 20.0)
        if answer.text.strip() == "True":
            return candidate
    return None


def _cpu(request: Request, tell: Tell) -> tuple[CpuMeasured | None, str | None]:
    limits = ("--seconds", str(request.seconds), "--bytes", str(request.most_bytes))
    words = ("--threads", str(request.threads), *limits)
    result, problem = _run("cpu", _ours("measure_cpu", words), tell, {})
    return (cpu_measured(result), None) if result is not None else (None, problem)


def _tier(tier: Tier, request: Request, tell: Tell) -> StorageMeasured:
    place = Path(tier.path)
    while not place.is_dir() and place != place.parent:
        place = place.parent
    limits = ("--seconds", str(request.seconds), "--bytes", str(request.most_bytes))
    words = ("--path", str(place), "--kind", tier.kind or "", *limits)
    result, problem = _run("storage", _ours("measure_storage", words), tell, {"tier": tier.name, "path": str(place)})
    if result is None:
        return StorageMeasured(tier=tier.name, path=str(place), problem=problem)
    return storage_measured(tier.name, str(place), result)


def _accelerators(request: Request, tell: Tell) -> tuple[AcceleratorsMeasured | None, str | None]:
    if not request.accelerators:
        return None, None
    if request.python is None:
        return None, NO_TORCH
    program = Path(gonogo.__file__).parent / "runners" / "measure_accelerators.py"
    command = (request.python, str(program), "--device", request.device, "--seconds", str(request.seconds))
    result, problem = _run("accelerators", command, tell, {})
    return (accelerators_measured(result), None) if result is not None else (None, problem)


def _ours(name: str, words: Sequence[str]) -> tuple[str, ...]:
    return (sys.executable, "-m", f"gonogo.runners.{name}", *words)


def _run(part: str, command: Sequence[str], tell: Tell, values: Mapping[str, object]) -> tuple[Line | None, str]:
    """The result of one measuring program, or why there is none."""
    tell(part, {**values, "step": "begin"})
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            start_new_session=True,
        )
    except OSError as error:
        return None, f"{command[0]}: {error.strerror}"
    last = ""
    try:
        for text in _lines(process):
            line = parse_line(text)
            if line is None:
                last = text.strip()[-300:] or last
            elif isinstance(line.get("result"), dict):
                return line["result"], ""
            elif "problem" in line and "step" not in line:
                return None, str(line["problem"])
            else:
                tell(part, {**values, **line})
    except TimeoutError:
        return None, f"it said nothing for {SILENCE_S:.0f} s"
    finally:
        end(process)
    return None, last or f"it ended with code {process.returncode} and said nothing"


def _lines(process: subprocess.Popen[bytes]) -> Iterator[str]:
    """What the program prints, line by line. Raises TimeoutError after a long silence."""
    assert process.stdout is not None
    rest, size = b"", 0
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while size < MOST_OUTPUT_BYTES:
            if not selector.select(SILENCE_S):
                raise TimeoutError
            piece = os.read(process.stdout.fileno(), 65536)
            if not piece:
                break
            size += len(piece)
            *lines, rest = (rest + piece).split(b"\n")
            yield from (line.decode("utf-8", "replace") for line in lines)
    yield rest.decode("utf-8", "replace")
