"""The guide's batch scheduler as it was printed, and ours in its place: the numbers that the example prints."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples/guide/batching/batching.py"


def test_the_printed_scheduler_breaks_its_budget_and_ours_keeps_it() -> None:
    done = subprocess.run([sys.executable, EXAMPLE], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines() == [
        "as printed: 5 requests, 8,003 tokens of prompts in a budget of 4,096",
        "here:       2 requests, 3,200 of prompts and 512 of answers (256 assumed for each)",
        "[] gives: as printed ZeroDivisionError, here 0",
        "batch 1: chat 1, chat 3 (3,200 tokens)",
        "batch 2: chat 2, night job (3,256 tokens)",
        "refused: request novel needs 8100 tokens, prompt and expected answer together, and a batch has 4096: "
        "shorten the prompt, ask for fewer tokens, or raise max_tokens",
    ]
