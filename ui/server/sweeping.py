"""Clearing up again and again for as long as the server runs."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager


@asynccontextmanager
async def sweeping(sweep_on: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Let `sweep_on`, which never ends by itself, run beside the block: a part of a server's lifespan."""
    task = asyncio.create_task(sweep_on())
    try:
        yield
    finally:
        task.cancel()
