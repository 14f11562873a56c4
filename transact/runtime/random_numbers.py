"""Random numbers from generators of our own: no other thread changes what is drawn, and no shared one is reseeded.

Python, numpy and torch each keep one generator for the whole process, which any thread may draw from or seed anew.
"""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch


def draw(log_probabilities: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """One index for each row of `log_probabilities` [row, choice], as likely as the row says: int64 [row, 1].

    The first index whose cumulative probability is above a uniform random number. `torch.multinomial` draws a random
    number for every choice instead, which took a tenth of the time of a search.
    """
    where = random_numbers(len(log_probabilities), log_probabilities.dtype, generator)
    return drawn_at(log_probabilities, [where])[0]


def random_numbers(rows: int, dtype: torch.dtype, generator: torch.Generator) -> torch.Tensor:
    """One from 0 to 1 for each row, [row, 1]: what `draw` uses for that many rows at once, on the generator's device.

    In float32 at least, as log-probabilities of a model of that dtype are.
    """
    precise = torch.promote_types(dtype, torch.float32)
    return torch.rand(rows, 1, generator=generator, device=generator.device, dtype=precise)


def drawn_at(log_probabilities: torch.Tensor, numbers: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """As `draw`, by given numbers [row, 1]; one int64 [row, 1] for each of them."""
    cumulative = log_probabilities.exp().cumsum(dim=1)
    last = cumulative.shape[1] - 1
    return [torch.searchsorted(cumulative, each * cumulative[:, -1:], right=True).clamp_(max=last) for each in numbers]


@contextmanager
def shared_generators_restored() -> Iterator[None]:
    """Restore the process's generators of Python, numpy and torch afterwards, also after a failure.

    For libraries that seed them. What other threads draw meanwhile is drawn from the seeded generators.
    """
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    of_python, of_numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(of_python)
        np.random.set_state(of_numpy)
