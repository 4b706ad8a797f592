"""The queue in words, one line for a terminal."""

from __future__ import annotations

from typing import Any, Mapping

from gonogo.words.catalogue import message
from gonogo.words.language import Language


def queue_lines(one: Mapping[str, Any], lang: Language) -> tuple[str, ...]:
    """`one`: the fields of `gonogo.tasks.summary.Summary`. A second line says that nothing new begins, if it is so."""
    counts = one["counts"]
    told = message(
        "tasks.summary",
        lang,
        **{name: counts[name] for name in ("queued", "done", "failed", "dead")},
        running=counts["leased"],
        rate=one["ended_per_s"],
        oldest_s=one["oldest_age_s"],
        workers=one["workers"],
    )
    return (told, message("tasks.draining", lang)) if one["draining"] else (told,)
