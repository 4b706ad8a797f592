"""The guide's dynamic batching, put right: `.venv/bin/python examples/guide/batching/batching.py`.

As printed (as-printed.txt) it divides by the *mean* length: of ten requests, five with 8,003 tokens together pass a
budget of 4,096; an empty list divides by zero; with `min_batch` it takes more requests than there are; answers are not
counted. Here `schedule` has the same form and never exceeds the budget, prompt and answer together; the batches
themselves, by priority and fair between keys, come from `batches` (a list) or `add` and `take` (a queue).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gonogo.plan.batching import DynamicBatchScheduler, Priority, Waiting

MANY_TOKENS = [{"input_ids": [0] * length} for length in (1600, 1600, 1600, 1600, 1603, 1, 1, 1, 1, 1)]


def as_printed() -> Any:
    """The guide's class, from its text."""
    names: dict[str, Any] = {}
    exec(Path(__file__).with_name("as-printed.txt").read_text(), names)  # noqa: S102 - the text lies beside this file
    return names["DynamicBatchScheduler"](max_tokens=4096)


def tokens(count: int) -> int:
    """Of the prompts of the first so many."""
    return sum(len(request["input_ids"]) for request in MANY_TOKENS[:count])


def empty(scheduler: Any) -> str:
    """What an empty list gives."""
    try:
        return str(scheduler.schedule([]))
    except ZeroDivisionError:
        return "ZeroDivisionError"


def main() -> None:
    """Both beside each other, then a queue in batches."""
    printed, ours = as_printed(), DynamicBatchScheduler(max_tokens=4096, unknown_output_tokens=256)
    before, now = printed.schedule(MANY_TOKENS), ours.schedule(MANY_TOKENS)
    print(f"as printed: {before} requests, {tokens(before):,} tokens of prompts in a budget of 4,096")
    print(f"here:       {now} requests, {tokens(now):,} of prompts and {now * 256} of answers (256 assumed for each)")
    print(f"[] gives: as printed {empty(printed)}, here {empty(ours)}")
    queue = [
        Waiting(request_id="night job", key="reports", priority=Priority.BATCH, prompt_tokens=1000, output_tokens=500),
        Waiting(request_id="chat 1", key="alice", prompt_tokens=2000, output_tokens=300),
        Waiting(request_id="chat 2", key="alice", prompt_tokens=1500, output_tokens=None),
        Waiting(request_id="chat 3", key="bob", prompt_tokens=700, output_tokens=200),
        Waiting(request_id="novel", key="bob", prompt_tokens=8000, output_tokens=100),
    ]
    formed, refused = ours.batches(queue)
    for number, batch in enumerate(formed, start=1):
        print(f"batch {number}: {', '.join(each.request_id for each in batch.requests)} ({batch.tokens:,} tokens)")
    for each in refused:
        print(f"refused: {each}")


if __name__ == "__main__":
    main()
