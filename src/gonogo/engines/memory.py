"""The memory plan of one replica: an addition that a user can read, every term with its source."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """One addend, in bytes. `source` says which formula, datum or measurement it comes from."""

    name: str
    size_bytes: int
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPlan:
    """Memory of one replica: weights + KV cache + compute + output + runtime."""

    terms: tuple[Term, ...]

    @property
    def total_bytes(self) -> int:
        return sum(term.size_bytes for term in self.terms)

    def term(self, name: str) -> int:
        """Bytes of the named term, 0 when the plan has none."""
        return sum(term.size_bytes for term in self.terms if term.name == name)
