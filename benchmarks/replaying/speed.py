"""How fast this machine's two replicas are, each alone on its thread, and how much of a trace that is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Sequence

from replaying import paper
from replaying.client import Target
from replaying.result import Outcome
from replaying.trace import WORDS, Arrival
from replaying.ways import as_they_come, replay

PROMPT, ANSWER = 256, 32
ROUNDS = 3


@dataclass(frozen=True)
class Speed:
    """Seconds for one token of a prompt, and for one of an answer, of one replica."""

    prompt_token_s: float
    answer_token_s: float

    def __str__(self) -> str:
        prompt, answer = 1 / self.prompt_token_s, 1 / self.answer_token_s
        return f"a replica does {prompt:.0f} tokens/s of a prompt, {answer:.0f} of an answer"

    def every(self, arrivals: Sequence[Arrival], load: float, seconds: float, replicas: int = 2) -> int:
        """Every how-manieth of them keeps so many replicas at work for that part of the time."""
        work_s = sum(
            each.prompt_tokens * self.prompt_token_s + each.answer_tokens * self.answer_token_s
            for each in arrivals
            if each.at_s < seconds
        )
        return max(1, math.ceil(work_s / (load * seconds * replicas)))


PAPER = Speed(paper.PROMPT_TOKEN_S, paper.ANSWER_TOKEN_S + paper.STEP_S)


async def measure(targets: Sequence[Target]) -> Speed:
    """Of the slower replica: the median of three rounds, in which each answers one request alone on its own thread."""
    prompts, answers = [], []
    for number in range(ROUNDS):
        # Another prompt each time: what is cached would take no time.
        words = [WORDS[(number * 7 + each * (number + 3)) % len(WORDS)] for each in range(PROMPT)]
        asked = [Arrival(index, 0.0, "speed", " ".join(words), PROMPT, ANSWER) for index in range(len(targets))]
        outcomes = await replay(as_they_come, targets, asked)
        prompts.append(max(_first_token_s(each) for each in outcomes) / PROMPT)
        answers.append(max(each.itl_s for each in outcomes))
    return Speed(sorted(prompts)[ROUNDS // 2], sorted(answers)[ROUNDS // 2])


def _first_token_s(outcome: Outcome) -> float:
    if outcome.ttft_s is None:
        raise RuntimeError(f"a replica that is to be measured answered with status {outcome.status}")
    return outcome.ttft_s
