"""Coroutines of tests, whatever else lives in this process."""

import asyncio
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def run(work: Coroutine[object, object, T]) -> T:
    """What `work` returns, or its error, by a loop in a thread of its own: a test that used a browser before in the
    same process has left a running loop in the main thread, where `asyncio.run` refuses a second one."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()
