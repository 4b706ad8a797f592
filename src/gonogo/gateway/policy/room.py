"""How much one replica may hold, from the rules of its revision: as much as it was started for. Pure.

llama.cpp: so many slots, each with a context of its own (`gonogo.engines.llamacpp`; a test holds the two together).
Engines on accelerators share one cache: the tokens that the spec asks room for, `expect` divided among the replicas,
in as many requests as the engine takes into a step. A server of others: nobody knows, so nothing is bounded here.
"""

from __future__ import annotations

from gonogo.gateway.policy.ledger import Room
from gonogo.gateway.policy.rules import EXTERNAL, LLAMACPP, VLLM_CPU, ServiceRules

CONTEXT_STEP, MOST_SLOTS = 256, 16
CARD_SEQUENCES, CPU_SEQUENCES = 256, 16
UNBOUNDED = Room(tokens=2**53, sequences=2**31)


def room_of(rules: ServiceRules, replicas: int) -> Room:
    """Of each of so many replicas. At least one request of the whole context fits."""
    if rules.engine == EXTERNAL:
        return UNBOUNDED
    share = max(1, -(-rules.concurrent_requests // max(1, rules.replicas or replicas)))
    if rules.engine == LLAMACPP:
        slots = min(MOST_SLOTS, share)
        return Room(tokens=slots * (-(-rules.context_tokens // CONTEXT_STEP) * CONTEXT_STEP), sequences=slots)
    if rules.engine == VLLM_CPU:
        sequences = rules.sequences or min(CPU_SEQUENCES, rules.concurrent_requests)
        return Room(tokens=sequences * rules.context_tokens, sequences=sequences)
    return Room(tokens=share * rules.context_tokens, sequences=rules.sequences or CARD_SEQUENCES)
