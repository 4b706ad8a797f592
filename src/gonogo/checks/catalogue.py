"""Every check there is, in the order of the checklist. A check whose part does not exist is not here.

`CHECKS` are asked of every service at their stages. `HOST_CHECKS` judge a host where somebody asks for it: against a
profile's wishes, or by what was measured; `of_host` makes them for a profile.
"""

from __future__ import annotations

from gonogo.checks import (
    accelerators,
    engine,
    external,
    fallback,
    hardware,
    model,
    network,
    probes,
    queue,
    recipe_probes,
    security,
    software,
)
from gonogo.checks.external import of_own_replicas
from gonogo.checks.finding import Check, Condition
from gonogo.checks.measured import measured_check
from gonogo.checks.profile import TIERS, accelerators_check, storage_check
from gonogo.checks.versions import versions_check
from gonogo.spec.profile import Profile
from gonogo.spec.recipe_parts import Languages

_ORDER = tuple(Condition)
_ALL = (
    *(*hardware.CHECKS, *accelerators.CHECKS, *engine.CHECKS, *software.CHECKS, *model.CHECKS, *network.CHECKS),
    *(*security.CHECKS, *probes.CHECKS, *recipe_probes.CHECKS, *external.CHECKS, *queue.CHECKS, *fallback.CHECKS),
)
_OF_OWN_REPLICAS = {
    *("memory_fits", "cores_enough", "cpu_can_run_engine", "cards_fit", "accelerators_well", "shared_memory"),
    *("engine_installed", "engine_environment", "engine_doors", "engine_on_loopback"),
    *(check.name for check in model.CHECKS),
}
"""What is asked of an engine and of a model that this host holds itself."""
_NOTHING = Profile(name="nothing", description=Languages(en="nothing", zh="nothing"))

CHECKS: tuple[Check, ...] = tuple(
    of_own_replicas(check) if check.name in _OF_OWN_REPLICAS else check
    for check in sorted(_ALL, key=lambda check: _ORDER.index(check.condition))
)
HOST_CHECKS: tuple[Check, ...] = tuple(
    make(_NOTHING) for make in (accelerators_check, storage_check, versions_check, measured_check)
)
"""By name and reasons, for who lists them; what they ask is made by `of_host`."""


def of_host(profile: Profile, measured: bool) -> tuple[Check, ...]:
    """The checks that this profile has wishes for, and those of what was measured."""
    storage = profile.storage
    tiers = [getattr(storage, tier) for tier in TIERS]
    software = profile.software
    chosen = []
    if profile.accelerators is not None:
        chosen.append(accelerators_check(profile))
    if storage.nvme_gb is not None or any(one.sequential_mb_s or one.random_reads_per_s for one in tiers if one):
        chosen.append(storage_check(profile))
    if any(getattr(software, name) is not None for name in type(software).model_fields):
        chosen.append(versions_check(profile))
    if measured:
        chosen.append(measured_check(profile))
    return tuple(chosen)
