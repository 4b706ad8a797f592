"""Which release of an engine: the newest that every constraint allows, or which constraints clash and what mends it.

Pure. Not here: what the constraints are (`gonogo.plan.environment_constraints`) and how one is built (the runtimes).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import combinations
from typing import Callable, Mapping, Sequence

from packaging.version import Version

from gonogo.facts.engine_build import EngineBuild
from gonogo.facts.environment import HostLimits, PythonAtHand

MOST_TO_MEND = 3
"""How many constraints are tried together when one is looked for whose change would help."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mend:
    """What to do about one constraint: a kind that has words, and their values."""

    kind: str
    values: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraint:
    """One thing that a release must satisfy. `allows` gives None where what it needs was not observed.

    `name` is its kind, with words. `has` is what stands here ("driver 535.54.03"), `needs` what a release asks for.
    `mend` says what would make a release pass; None: nothing that a user can change. Of several that would help, the
    one with the smallest `price` is told.
    """

    name: str
    allows: Callable[[EngineBuild], bool | None]
    has: str
    needs: Callable[[EngineBuild], str]
    mend: Callable[[EngineBuild], Mend] | None = None
    price: int = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One side of a clash: what stands here, and what `release` (the newest that the other sides allow) asks of it."""

    name: str
    has: str
    needs: str
    release: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Clash:
    """Constraints that no known release satisfies together, though it does satisfy any of them less one.

    Where one alone excludes every release, the other side is the engine itself. `nearest` passes after `mends`.
    """

    title: str
    sides: tuple[Side, ...]
    nearest: EngineBuild | None
    mends: tuple[Mend, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What came of it: exactly one of `build`, `unseen` and `clash` says something.

    `unseen`: what must be observed before the release in `would_be` can be said to run. `passed_over`: newer releases,
    and the first constraint that refused each.
    """

    build: EngineBuild | None = None
    python: PythonAtHand | None = None
    unseen: tuple[Side, ...] = ()
    would_be: EngineBuild | None = None
    clash: Clash | None = None
    passed_over: tuple[tuple[EngineBuild, Side], ...] = ()


def choose_build(builds: Sequence[EngineBuild], constraints: Sequence[Constraint], host: HostLimits) -> Choice:
    """The newest release that every constraint allows. A release about which something is not known never passes."""
    newest_first = sorted(builds, key=lambda build: Version(build.version), reverse=True)
    passed_over: list[tuple[EngineBuild, Side]] = []
    for build in newest_first:
        refused = next((one for one in constraints if one.allows(build) is not True), None)
        if refused is None:
            python = python_for(build, host)
            return Choice(build=build, python=python, passed_over=tuple(passed_over))
        passed_over.append((build, _side(refused, build)))
    for build in newest_first:
        verdicts = [one.allows(build) for one in constraints]
        if False not in verdicts:
            pairs = zip(constraints, verdicts, strict=True)
            unseen = tuple(_side(one, build) for one, verdict in pairs if verdict is None)
            return Choice(unseen=unseen, would_be=build)
    return Choice(clash=_clash(newest_first, constraints))


def python_for(build: EngineBuild, host: HostLimits) -> PythonAtHand | None:
    """The interpreter at hand that a release likes best: the one it is known with, else the newest that it allows."""
    fitting = [one for one in host.pythons if build.pythons.contains(one.version)]
    liked = [one for one in fitting if one.minor == build.python_liked]
    return max(liked or fitting, key=lambda one: Version(one.version), default=None)


def _clash(newest_first: Sequence[EngineBuild], constraints: Sequence[Constraint]) -> Clash:
    core = _core(newest_first, constraints)
    nearest, changed = _nearest(newest_first, constraints)
    sides = [_side(one, _newest_without(one, core, newest_first)) for one in core] if newest_first else []
    title = newest_first[0].title if newest_first else "?"
    if len(sides) < 2:
        releases = f"{newest_first[-1].version} … {newest_first[0].version}" if newest_first else ""
        sides.append(Side(name="engine", has=title, needs=releases, release=""))
    mends = tuple(one.mend(nearest) for one in changed if one.mend is not None) if nearest is not None else ()
    return Clash(title=title, sides=tuple(sides), nearest=nearest, mends=mends)


def _newest_without(
    left_out: Constraint, core: Sequence[Constraint], newest_first: Sequence[EngineBuild]
) -> EngineBuild:
    """The newest release that the other sides of a clash allow: with it this side is at odds."""
    others = [one for one in core if one is not left_out]
    return next(build for build in newest_first if all(one.allows(build) is not False for one in others))


def _core(builds: Sequence[EngineBuild], constraints: Sequence[Constraint]) -> tuple[Constraint, ...]:
    """The fewest constraints that together exclude every release: one or two where that is enough to say why."""
    allowed = {
        id(one): {index for index, build in enumerate(builds) if one.allows(build) is not False} for one in constraints
    }
    for size in (1, 2):
        for some in combinations(constraints, size):
            if not set.intersection(*(allowed[id(one)] for one in some)):
                return some
    left = list(constraints)
    for one in list(left):
        others = [allowed[id(other)] for other in left if other is not one]
        if others and not set.intersection(*others):
            left.remove(one)
    return tuple(left)


def _nearest(
    newest_first: Sequence[EngineBuild], constraints: Sequence[Constraint]
) -> tuple[EngineBuild | None, tuple[Constraint, ...]]:
    """The release for which the least must be changed, and what: only things that can be changed count."""
    best: tuple[int, int, EngineBuild, tuple[Constraint, ...]] | None = None
    for build in newest_first:
        refusing = tuple(one for one in constraints if one.allows(build) is not True)
        if len(refusing) > MOST_TO_MEND or any(one.mend is None for one in refusing):
            continue
        price = sum(one.price for one in refusing)
        if best is None or (len(refusing), price) < best[:2]:
            best = (len(refusing), price, build, refusing)
    return (best[2], best[3]) if best is not None else (None, ())


def _side(one: Constraint, build: EngineBuild) -> Side:
    return Side(name=one.name, has=one.has, needs=one.needs(build), release=build.version)
