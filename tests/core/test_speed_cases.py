"""Each file of tests/cases/plan/speed and how fast that is. `--accept` rewrites the expected."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Mapping

import pytest

from gonogo.facts.accelerator_class import CLASSES
from gonogo.facts.architecture import Scheme
from gonogo.facts.catalogue import known_models
from gonogo.facts.parse_config import parse_config
from gonogo.plan.calibration import calibration
from gonogo.plan.card import card_of
from gonogo.plan.roofline import Layout, Stored
from gonogo.plan.speed import Deployment, Load, Range, Speed, estimate

CASES = Path(__file__).parent.parent / "cases" / "plan" / "speed"
FILES = sorted(CASES.glob("*.json"))


def asked(case: Mapping[str, Any]) -> Speed:
    card = next(card_of(one) for one in CLASSES if one.name == case["card"])
    assert card is not None
    stored = dict(case["stored"])
    method = stored.pop("method", None)
    return estimate(
        Deployment(
            model=parse_config(known_models()[case["model"]].config),
            engine=case["engine"],
            card=card,
            layout=Layout(**case["layout"]),
            stored=Stored(scheme=None if method is None else Scheme(method=method), **stored),
            cache_tokens=case.get("cache_tokens"),
        ),
        Load(**case["load"]),
        calibration(),
    )


def plain(speed: Speed) -> dict[str, Any]:
    def three(found: Range | None) -> list[float] | None:
        return None if found is None else [float(f"{one:.3g}") for one in (found.low, found.middle, found.high)]

    return {
        "ttft_ms": three(speed.ttft_ms),
        "itl_ms": three(speed.itl_ms),
        "output_tokens_per_s": three(speed.output_tokens_per_s),
        "running": float(f"{speed.running:.3g}"),
        "step_ms": {f"{one.kind.value}, {one.bound}": float(f"{one.ms:.3g}") for one in speed.step if one.ms},
        "interference_ms": float(f"{speed.interference_ms:.3g}"),
        "level": speed.level,
    }


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_known_deployment_is_as_fast_as_its_case_says(file: Path, request: pytest.FixtureRequest) -> None:
    case = json.loads(file.read_text(encoding="utf-8"))
    seen = plain(asked(case["asked"]))
    if request.config.getoption("--accept"):
        file.write_text(json.dumps({**case, "expected": seen}, indent=1) + "\n", encoding="utf-8")
        return
    assert seen == case["expected"]


def test_there_are_a_dozen_cases_at_least() -> None:
    assert len(FILES) >= 12
