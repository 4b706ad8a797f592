"""What was fitted to measured speeds: `speed.json`, made by `benchmarks/speed.py --write`, never by hand.

The only place of this package that reads files, and only its own.
"""

from __future__ import annotations

import json
from functools import cache
from importlib import resources

from gonogo.plan.efficiency import Calibration, parse_calibration


@cache
def calibration() -> Calibration:
    """Read once: what comes with gonogo does not change while it runs."""
    text = resources.files(__package__).joinpath("speed.json").read_text(encoding="utf-8")
    return parse_calibration(json.loads(text))
