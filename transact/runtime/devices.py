"""Which device a name stands for, how much memory is free there, and when its work is done."""

import time

import torch

from transact.errors import choice
from transact.runtime import distributed, memory

BALANCED = "balanced"
"""The name that spreads a model over all GPUs of the machine."""


def gpus() -> list[str]:
    """The GPUs of this machine: "cuda:0", "cuda:1", ..."""
    return [f"cuda:{index}" for index in range(torch.cuda.device_count())]


def device_of(name: str) -> torch.device:
    """The device of that name. "auto" is a GPU where there is one, else the CPU.

    Of several GPUs "auto" and "cuda" name the first, or that of this process among those that a launcher started.
    A model that is spread begins on it. Raises `InvalidOption` for a device that is not there.
    """
    available = gpus()
    own = available[distributed.local_rank() % len(available)] if available else "cpu"
    if name in ("auto", BALANCED) or (name == "cuda" and available):
        return torch.device(own)
    return torch.device(choice(name, ("auto", "cpu", *available, BALANCED), "device"))


def spreads(name: str) -> bool:
    """Whether a model on that device is spread: where there are several GPUs."""
    return name == BALANCED and len(gpus()) > 1


def free_bytes(device: torch.device) -> int:
    """Memory that can still be taken on the device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return memory.available_bytes()


def seconds_at(device: torch.device) -> float:
    """The clock's reading once the device has done all that it was given, for differences."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
