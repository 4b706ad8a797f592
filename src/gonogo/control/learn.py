"""What the engine of a ready replica printed of its cards, kept once for later plans. Not for engines on processors."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path

from gonogo.engines.asked import cards_of_replica, engine_name, settings_of
from gonogo.engines.printed import corrections, lesson_key, parse_printed
from gonogo.engines.serving import Corrections
from gonogo.engines.table import cards_here
from gonogo.facts.host import HostFacts
from gonogo.facts.model import ModelFacts
from gonogo.facts.numbers import ConfigError
from gonogo.runtimes.lessons import keep_lesson
from gonogo.spec import Spec


def learn(state_dir: Path, spec: Spec, model: ModelFacts, host: HostFacts, log_text: str) -> str | None:
    """Keep the lesson of the last start in a log; its key, None where there is none.

    The plan is made again as of idle cards: now this replica fills them. A disk that takes nothing costs the lesson.
    """
    hardware = cards_here(host) if cards_of_replica(spec) else None
    if hardware is None:
        return None
    try:
        settings = settings_of(spec, model, replace(hardware, free_bytes=None))
    except (ConfigError, ValueError):
        return None
    printed, serving = parse_printed(log_text), settings.serving
    if settings.planned is None or printed.version not in (None, serving.version[:3]):
        return None
    learned = corrections(printed, settings.planned, serving.corrections)
    if learned == Corrections():
        return None
    key = lesson_key(engine_name(spec), serving.version, hardware.device.name, serving.devices)
    with contextlib.suppress(OSError):
        keep_lesson(state_dir, key, learned)
        return key
    return None
