"""Work that a server does beside its answers; what is cleared up so is decided in `disk` and `abandoned_work`."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager


@asynccontextmanager
async def running_beside(work: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Run `work`, which never ends by itself, beside the block, and cancel it afterwards (for a server's lifespan)."""
    task = asyncio.create_task(work())
    try:
        yield
    finally:
        task.cancel()
