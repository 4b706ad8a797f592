"""Every check there is, in the order of the checklist. A check whose part does not exist is not here."""

from __future__ import annotations

from gonogo.checks import hardware, model, network, probes, security, software
from gonogo.checks.finding import Check, Condition

_ORDER = tuple(Condition)
_ALL = (*hardware.CHECKS, *software.CHECKS, *model.CHECKS, *network.CHECKS, *security.CHECKS, *probes.CHECKS)

CHECKS: tuple[Check, ...] = tuple(sorted(_ALL, key=lambda check: _ORDER.index(check.condition)))
