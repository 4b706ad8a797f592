"""The guide's section 4.2 made whole: the same app and task, `.delay(...).get()`; nothing is lost with its worker.

    GONOGO_STATE_DIR=DIR GONOGO_API_KEY=KEY python ask.py "a question"

`gonogo up` runs the workers already. More of them: `celery -A gonogo.tasks worker --queues gonogo`.
"""

from __future__ import annotations

import sys

from gonogo.tasks.celery import process_glm_request

LIMIT_S = 600.0


def main() -> None:
    """Leave the question, wait for the answer, print it."""
    left = process_glm_request.delay(sys.argv[1])
    answer = left.get(timeout=LIMIT_S, interval=0.1)
    print(answer["choices"][0]["message"]["content"])


if __name__ == "__main__":
    main()
