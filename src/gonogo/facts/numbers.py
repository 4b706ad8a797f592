"""Reads numbers out of a configuration that strangers wrote: each is held against its type and a bound. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Mapping, Sequence

LARGEST = 1 << 40


class ConfigError(ValueError):
    """A configuration that cannot be used; `kind` is one of ModelProblem's kinds, `detail` says what was seen."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind, self.detail = kind, detail


@dataclass(frozen=True, slots=True)
class Numbers:
    """One section of a configuration. Of several names the first that is there counts; null is not there."""

    section_: Mapping[str, Any]

    def maybe(self, *names: str) -> int | None:
        """A positive whole number, or None when it is not there (or 0, which is how some write "none")."""
        value = self._first(names)
        if value is None or value == 0 or isinstance(value, (list, Mapping)):
            return None
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < LARGEST:
            raise _not_positive(names[0], value)
        return value

    def count(self, *names: str) -> int:
        """As `maybe`, and it must be there."""
        value = self.maybe(*names)
        if value is None:
            raise ConfigError("config_contradicts", f"{names[0]} is missing")
        return value

    def real(self, *names: str) -> float | None:
        """A positive number."""
        value = self._first(names)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < LARGEST:
            raise _not_positive(names[0], value)
        return float(value)

    def flag(self, name: str, otherwise: bool | None) -> bool | None:
        """A yes or no; `otherwise` when it is not there."""
        value = self.section_.get(name)
        return value if isinstance(value, bool) else otherwise

    def text(self, *names: str) -> str | None:
        """A word."""
        value = self._first(names)
        return value if isinstance(value, str) else None

    def items(self, name: str) -> Sequence[Any] | None:
        """A list."""
        value = self.section_.get(name)
        return value if isinstance(value, list) else None

    def section(self, name: str) -> Numbers | None:
        """A section inside this one."""
        value = self.section_.get(name)
        return Numbers(value) if isinstance(value, Mapping) else None

    def _first(self, names: Sequence[str]) -> Any:
        return next((self.section_[name] for name in names if self.section_.get(name) is not None), None)


def shown(value: object) -> str:
    """What a stranger wrote, short enough for a sentence."""
    if isinstance(value, int) and value.bit_length() > 128:
        return f"a number of {value.bit_length()} bits"
    return repr(str(value)[:40])


def _not_positive(name: str, value: object) -> ConfigError:
    return ConfigError("config_contradicts", f"{name} is {shown(value)}, a positive number was expected")
