"""Which version of an engine knows which flag or variable, with its source; and a recipe's flags as words. Pure.

A flag that the version does not know ends the engine before it loads; one that it knows under another name is silently
not there. So a flag that is not in the table is refused: whoever adds it reads it in the engine's sources first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Mapping, Sequence

from packaging.version import InvalidVersion, Version

from gonogo.engines.settings import EngineSettings, Refused
from gonogo.spec.recipe_parts import EngineFlag, When


@dataclass(frozen=True, slots=True)
class Option:
    """A flag with its hyphens, or a variable: known from version `since` on and before `until`; None: no such bound."""

    name: str
    source: str
    since: str | None = None
    until: str | None = None

    def known(self, version: Version) -> bool:
        """Whether this version has it."""
        after = self.since is None or version >= Version(self.since)
        return after and (self.until is None or version < Version(self.until))


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """All that is known of one engine's flags.

    `oldest`: the first version that was read. `own`: flags that the plan, the placement or the adapter sets and a
    recipe must not. `never`: flags that open a door, with what they would let in, for who reads
    this.
    """

    engine: str
    oldest: str
    table: Mapping[str, Option]
    own: frozenset[str]
    never: Mapping[str, str]

    def has(self, name: str, version: str) -> bool:
        """Whether this version knows the flag or variable. KeyError: it is not in the table."""
        return self.table[name].known(self.version(version))

    def version(self, version: str) -> Version:
        """The version to compare with. Raises Refused for one that cannot be read or is older than what was read."""
        try:
            read = Version(version)
        except InvalidVersion:
            raise Refused("EngineVersionUnreadable", engine=self.engine, version=version[:40]) from None
        if read < Version(self.oldest):
            raise Refused("EngineVersionTooOld", engine=self.engine, version=version, oldest=self.oldest)
        return read

    def only_known(self, words: Sequence[tuple[str, ...]], version: str) -> tuple[str, ...]:
        """The words of those flags that this version knows: each entry is a flag and its values."""
        return tuple(word for entry in words if self.has(entry[0], version) for word in entry)

    def recipe_words(self, settings: EngineSettings) -> tuple[str, ...]:
        """The flags of the recipe. Raises Refused for one that is not this version's, or not a recipe's to set."""
        needs = settings.needs
        if needs is None:
            return ()
        left_out = {plain(left.flag) for left in needs.left_out}
        words: list[str] = []
        for flag in needs.flags:
            if flag.when is When.TENSOR_PARALLEL and settings.serving.tensor == 1:
                continue
            words += self._words(flag, settings.version, left_out)
        return tuple(words)

    def _words(self, flag: EngineFlag, version: str, left_out: set[str]) -> tuple[str, ...]:
        name = plain(flag.flag)
        if name in self.never:
            raise Refused("EngineFlagRefused", flag=name)
        if name in self.own or name in left_out:
            raise Refused("EngineFlagNotARecipes", flag=name)
        if name not in self.table or not self.has(name, version):
            raise Refused("EngineFlagNotInVersion", flag=name, engine=self.engine, version=version)
        return (name,) if flag.value is None else (name, flag.value)


def plain(flag: str) -> str:
    """A flag with hyphens only: both engines' documents write some of them with underscores."""
    return flag.replace("_", "-")


def table(*options: Option) -> Mapping[str, Option]:
    """Options by name."""
    return {option.name: option for option in options}
