"""Measured availability in words: the share, how sure it is, what failed, and the error budget that is left."""

from __future__ import annotations

from typing import Any, Mapping

from gonogo.words.catalogue import message
from gonogo.words.language import Language


def measured_text(one: Mapping[str, Any], lang: Language) -> str:
    """`one`: the fields of `gonogo.plan.availability.Availability`, of something that was asked."""
    values = {
        "share": _percent(one["share"]),
        "low": _percent(one["low"]),
        "high": _percent(one["high"]),
        "failed": one["failed"],
        "asked": one["asked"],
        "left": f"{100 * one['budget_left']:.0f}",
    }
    return message("usage.measured", lang, **values)


def _percent(share: float) -> str:
    """`99.987`: as many digits as the objective needs; what is less than everything is not rounded to 100."""
    return f"{100 * share if share == 1 else min(99.999, 100 * share):.3f}"
