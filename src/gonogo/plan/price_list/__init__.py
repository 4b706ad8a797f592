"""The prices that come with gonogo: `prices.yaml`, in the form of `gonogo.plan.prices.PriceTable`.

The only place of this package that reads files, and only its own.
"""

from __future__ import annotations

from importlib import resources
from typing import Mapping


def texts() -> Mapping[str, str]:
    """The text, by file name."""
    return {"prices.yaml": resources.files(__package__).joinpath("prices.yaml").read_text(encoding="utf-8")}
