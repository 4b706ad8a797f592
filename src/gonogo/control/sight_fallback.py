"""How control sees fallbacks: whether requests go there now, as policy decides it, and the files of their keys."""

from __future__ import annotations

from typing import Iterable, Mapping, Sequence

from gonogo.actions.model import ClusterPlan
from gonogo.control.sight_servers import gateway_clusters
from gonogo.plan.model import DesiredService
from gonogo.runtimes.look_key_files import look_at_key_files
from gonogo.runtimes.paths import StatePaths
from gonogo.spec import Spec


def key_files_of(specs: Iterable[Spec]) -> tuple[str, ...]:
    """The files with keys that these specs name."""
    return tuple(spec.fallback.key_file for spec in specs if spec.fallback is not None)


def usable_keys(clusters: Iterable[ClusterPlan]) -> Mapping[str, str]:
    """By path, with its stamp, the key files of fallbacks that Envoy can read now. An exposed one works on: its check
    says so.
    """
    files = look_at_key_files(plan.fallback.key_file for plan in clusters if plan.fallback is not None)
    return {path: seen.stamp for path, seen in files.items() if seen.trouble is None}


async def fallen_back(paths: StatePaths, services: Sequence[DesiredService]) -> Mapping[str, bool]:
    """By name, of the revisions that serve and have a fallback: whether none of their replicas is well for Envoy.

    Empty also where Envoy does not answer: then policy knows nothing either, and sends nothing away.
    """
    serving = (one.serving for one in services if not one.removed)
    wanted = [one.name for one in serving if one is not None and one.spec.fallback is not None]
    clusters = await gateway_clusters(str(paths.admin_socket)) if wanted else None
    if clusters is None:
        return {}
    return {name: not any(host.healthy for host in clusters[name]) for name in wanted if name in clusters}
