"""What runs for as long as a server does; what is cleared up so is decided in `disk` and `abandoned_work`."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager


@asynccontextmanager
async def running_beside(work: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Run `work`, which never ends by itself, beside the block, and cancel it afterwards."""
    task = asyncio.create_task(work())
    try:
        yield
    finally:
        task.cancel()


def together(*lifespans: Callable[..., AbstractAsyncContextManager]) -> Callable[..., AbstractAsyncContextManager]:
    """One lifespan of a server that holds several."""

    @asynccontextmanager
    async def all_of_them(app):
        async with AsyncExitStack() as stack:
            for lifespan in lifespans:
                await stack.enter_async_context(lifespan(app))
            yield

    return all_of_them
