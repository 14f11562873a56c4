"""One process among several, as `accelerate launch` starts them; alone, everything here does nothing."""

import os
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

import torch
import torch.distributed as distributed

T = TypeVar("T")


def rank_and_count() -> tuple[int, int]:
    """This process's number and how many there are."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


def local_rank() -> int:
    """This process's number on this machine, which selects its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def is_main() -> bool:
    return rank_and_count()[0] == 0


def is_sharded() -> bool:
    """Whether `accelerate launch` was configured to shard the weights over the processes (FSDP)."""
    return rank_and_count()[1] > 1 and os.environ.get("ACCELERATE_USE_FSDP", "").lower() in ("1", "true", "yes")


def share(items: Iterable[T]) -> Iterator[T]:
    """This process's items: every count-th one, from its own number on."""
    rank, count = rank_and_count()
    return islice(items, rank, None, count)


def add_up(*tensors: torch.Tensor | None) -> None:
    """Every tensor becomes, in place, the sum of those of all processes; None stays None."""
    if rank_and_count()[1] == 1:
        return
    for tensor in tensors:
        if tensor is not None:
            distributed.all_reduce(tensor)


def gathered(value: T) -> list[T]:
    """The values of all processes, in the order of their numbers."""
    count = rank_and_count()[1]
    if count == 1:
        return [value]
    values: list = [None] * count
    distributed.all_gather_object(values, value)
    return values


def agreed(value: T) -> T:
    """The main process's value, so that no process takes another branch for a rounding error."""
    if rank_and_count()[1] == 1:
        return value
    values = [value]
    distributed.broadcast_object_list(values, src=0)
    return values[0]


def wait_for_all() -> None:
    if rank_and_count()[1] > 1:
        distributed.barrier()
