"""A test that is a coroutine: `@in_loop`. It ends within a minute or fails."""

from __future__ import annotations

import asyncio
import functools
from typing import Any, Awaitable, Callable

LIMIT_S = 60.0


def in_loop(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run it in an event loop of its own."""

    @functools.wraps(test)
    def run(*arguments: Any, **named: Any) -> None:
        asyncio.run(asyncio.wait_for(test(*arguments, **named), LIMIT_S))

    return run
