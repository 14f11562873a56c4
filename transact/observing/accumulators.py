"""Running totals of one site while text passes through the model, a batch at a time."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from transact.layers.hooks import by_sample
from transact.models.loaded_model import Batch
from transact.observing.statistics import Cosines, Moments, Peaks
from transact.runtime.blockwise_algebra import add_gram
from transact.runtime.distributed import add_up, gathered

_ROWS = 128
"""Tokens per step of the sums: this many rows of partial sums stay in the processor's cache (measured)."""
_LEAST_NORM = 1e-300
"""Keeps vectors of zeros, whose direction is not defined, from a division by zero."""
_ROUNDING = 2.0**13
"""In units of a dtype's precision, how much two sizes may differ and still count as equal: a token that is repeated at
the start of a text is computed several times, each in the order of summation that processor, batch and threads give. In
float32 that changes the peaks of the smallest channels by up to 3e-4 (measured on tiny models of four families)."""
_MOST_ROUNDING = 2.0**-10
"""The limit in half precision, whose own steps are larger: there only equal sizes count as equal."""


@dataclass(frozen=True, eq=False)
class RealTokens:
    """Which positions of the current batch count, and to which samples they belong.

    `mask` [sample, seq], bool: True for real tokens, False for the padding to their right; `lengths`: real tokens
    of each sample; `samples`: the index of each in the calibration set.
    """

    mask: torch.Tensor
    lengths: tuple[int, ...]
    samples: tuple[int, ...]

    @classmethod
    def of(cls, batch: Batch, device: torch.device) -> "RealTokens":
        return cls(batch.mask.to(device), tuple(batch.mask.sum(dim=1).tolist()), batch.indices)


class MomentAccumulator:
    """Float64 totals of one site, fed in cache-sized steps of at least float32.

    `num_samples` > 0: also the float32 sums of each of that many samples.
    """

    def __init__(self, num_channels: int, device: torch.device, *, gram: bool = False, num_samples: int = 0):
        self.totals = torch.zeros(2, num_channels, dtype=torch.float64, device=device)
        self.gram = torch.zeros(num_channels, num_channels, dtype=torch.float64, device=device) if gram else None
        self.samples = [torch.zeros(num_samples, num_channels, device=device) for _ in self.totals if num_samples]

    def add(self, activations: torch.Tensor, tokens: RealTokens) -> None:
        """`activations` [sample, seq, channel]."""
        real = None
        if self.samples:
            self._add_samples(activations, tokens)
        else:
            real = _real(activations, tokens)
            self.totals += _sums(real)
        if self.gram is not None:
            real = _real(activations, tokens) if real is None else real
            real = real.to(_precision(real))
            add_gram(self.gram, real)

    def _add_samples(self, activations: torch.Tensor, tokens: RealTokens) -> None:
        sums = [_sums(rows[:length]) for rows, length in zip(activations, tokens.lengths, strict=True)]
        sums = torch.stack(sums)  # [sample, 2, channel]
        self.totals += sums.sum(dim=0)
        for kind, kept in enumerate(self.samples):
            kept[list(tokens.samples)] = sums[:, kind].float()

    def combine(self) -> None:
        """The totals of all processes."""
        add_up(self.totals, self.gram, *self.samples)

    def so_far(self) -> Moments:
        """The totals as they are now, without the Gram matrix; rows of samples that follow are still to be filled."""
        sums, square_sums = self.totals.clone()
        return Moments(sums, square_sums, None, *self.samples)

    def result(self) -> Moments:
        totals = self.totals.cpu()
        return Moments(
            totals[0].clone(),
            totals[1].clone(),
            None if self.gram is None else self.gram.cpu(),
            *(kept.cpu() for kept in self.samples),
        )


class CosineAccumulator:
    """Sums over the real tokens of cos(x, y), x and y the residual stream before a layer and after it.

    `num_samples` > 0: also the float32 sum of each of that many samples.
    """

    def __init__(self, device: torch.device, num_samples: int = 0):
        self.total = torch.zeros((), dtype=torch.float64, device=device)
        self.samples = torch.zeros(num_samples, device=device) if num_samples else None

    def add(self, before: torch.Tensor, after: torch.Tensor, tokens: RealTokens) -> None:
        """Both [sample, seq, hidden]; a layer of a spread model may be given `before` on the device of the last one."""
        before = before.to(after.device)
        before, after = (by_sample(states, tokens.mask.shape).to(_precision(states)) for states in (before, after))
        sizes = [torch.linalg.vector_norm(states, dim=-1).double() for states in (before, after)]  # [sample, seq]
        # three passes over the states: a tenth of what torch's own function takes (measured)
        cosines = torch.linalg.vecdot(before, after).double() / (sizes[0] * sizes[1]).clamp_min(_LEAST_NORM)
        sums = cosines.masked_fill(~tokens.mask.to(cosines.device), 0).sum(dim=1)
        self.total += sums.sum()
        if self.samples is not None:
            self.samples[list(tokens.samples)] = sums.float()

    def combine(self) -> None:
        """The sums of all processes."""
        add_up(self.total, self.samples)

    def so_far(self) -> Cosines:
        """The sums as they are now, as `MomentAccumulator.so_far`."""
        return Cosines(self.total.clone(), self.samples)

    def result(self) -> Cosines:
        return Cosines(self.total.cpu().clone(), None if self.samples is None else self.samples.cpu().clone())


def _real(activations: torch.Tensor, tokens: RealTokens) -> torch.Tensor:
    """[sample, seq, channel] -> the real tokens [token, channel]."""
    flat = activations.flatten(0, -2)
    return flat if sum(tokens.lengths) == len(flat) else flat[tokens.mask.flatten().to(flat.device)]


def _precision(activations: torch.Tensor) -> torch.dtype:
    return torch.promote_types(activations.dtype, torch.float32)


def _sums(rows: torch.Tensor) -> torch.Tensor:
    """Σ x and Σ x² of `rows` [token, channel]: float64 [2, channel].

    Rows are first added up element by element, `_ROWS` at a time; a matrix product with ones, or a sum over the
    long dimension, takes two to five times as long (measured). Each partial sum is one of few terms, so float32
    loses little.
    """
    precision = _precision(rows)
    parts = rows.new_zeros(2, min(_ROWS, len(rows)), rows.shape[1], dtype=precision)
    for step in rows.split(_ROWS):
        step = step.to(precision)
        sums, square_sums = parts[:, : len(step)]
        sums.add_(step)
        square_sums.addcmul_(step, step)
    return parts.sum(dim=1).double()


def channels(activations: torch.Tensor) -> torch.Tensor:
    """Every channel is a unit, measured by its size: [sample, seq, channel] as it is."""
    return activations


def head_norms(value_dim: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """Every head is a unit, measured by its norm: [sample, seq, head · value_dim] -> [sample, seq, head]."""

    def norms(activations: torch.Tensor) -> torch.Tensor:
        heads = activations.unflatten(-1, (-1, value_dim))  # [sample, seq, head · value_dim] -> [.., head, value_dim]
        return torch.linalg.vector_norm(heads, dim=-1, dtype=torch.promote_types(heads.dtype, torch.float32))

    return norms


class PeakAccumulator:
    """The `k` samples in which each unit was strongest so far: k · units values, samples and positions.

    `units` turns a site's activations into those of its units, [sample, seq, unit].
    """

    def __init__(self, num_units: int, k: int, units: Callable[[torch.Tensor], torch.Tensor], device: torch.device):
        self.k = k
        self.units = units
        shape = (num_units, 0)
        self.activations = torch.empty(shape, device=device)
        self.samples = torch.empty(shape, dtype=torch.int64, device=device)
        self.positions = torch.empty(shape, dtype=torch.int64, device=device)
        self.rounding = 0.0

    def add(self, activations: torch.Tensor, tokens: RealTokens) -> None:
        """`activations` [sample, seq, channel]."""
        self.rounding = _rounding(activations.dtype)
        of_samples = [
            _strongest(rows[:length]) for rows, length in zip(self.units(activations), tokens.lengths, strict=True)
        ]
        values, positions = (torch.stack(each, dim=1) for each in zip(*of_samples, strict=True))  # [unit, sample]
        samples = torch.tensor(tokens.samples, device=values.device).expand(len(values), -1)
        self._keep_strongest(
            torch.cat((self.activations, values.float()), dim=1),
            torch.cat((self.samples, samples), dim=1),
            torch.cat((self.positions, positions), dim=1),
        )

    def _keep_strongest(self, activations: torch.Tensor, samples: torch.Tensor, positions: torch.Tensor) -> None:
        """All [unit, candidate]; of sizes that differ by rounding alone the earlier sample is the stronger."""
        sizes, by_size = activations.abs().sort(dim=1, descending=True)
        smaller = sizes[:, 1:] < sizes[:, :-1] * (1 - self.rounding)
        ranks = torch.nn.functional.pad(smaller.long().cumsum(dim=1), (1, 0))  # ties share one
        in_order = ranks * (int(samples.max()) + 1) + samples.gather(1, by_size)
        chosen = by_size.gather(1, in_order.argsort(dim=1)[:, : self.k])
        self.activations = activations.gather(1, chosen)
        self.samples = samples.gather(1, chosen)
        self.positions = positions.gather(1, chosen)

    def combine(self) -> None:
        """The strongest of all processes."""
        kept = tuple(kept.cpu() for kept in (self.activations, self.samples, self.positions))
        of_processes = gathered((kept, self.rounding))
        if len(of_processes) > 1:
            device = self.activations.device
            self.rounding = max(rounding for _, rounding in of_processes)  # one may have had no batch
            parts = zip(*(kept for kept, _ in of_processes), strict=True)
            self._keep_strongest(*(torch.cat(part, dim=1).to(device) for part in parts))

    def so_far(self) -> Peaks:
        """The strongest as they are now; `add` puts others in their place and changes none."""
        return Peaks(self.activations, self.samples, self.positions)

    def result(self) -> Peaks:
        # cloned outside inference mode, as autograd refuses inference tensors
        return Peaks(*(kept.cpu().clone() for kept in (self.activations, self.samples, self.positions)))


def _rounding(dtype: torch.dtype) -> float:
    return min(_ROUNDING * torch.finfo(dtype).eps, _MOST_ROUNDING)


def _strongest(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The activation of largest size of every unit, with its sign, and its position: [token, unit] -> [unit].

    Of those that differ from the largest by rounding alone the first one, or of both signs the first positive one.
    Largest, smallest and a comparison read memory in order; `max` with indices took twice as long (measured).
    """
    highest, lowest, length, least = rows.amax(dim=0), rows.amin(dim=0), len(rows), 1 - _rounding(rows.dtype)
    sign = torch.where(highest >= -lowest * least, 1, -1).to(rows.dtype)
    tied = rows * sign >= torch.maximum(highest * sign, lowest * sign) * least
    # counts down, so that the largest stands for the first; 16 bits are half the memory to read
    countdown = torch.arange(length, 0, -1, dtype=torch.int16 if length < 1 << 15 else torch.int32, device=rows.device)
    positions = length - (tied * countdown[:, None]).amax(dim=0).long()
    positions.clamp_(max=length - 1)  # NaN is not tied with anything; it is refused after the batch
    return rows.gather(0, positions[None])[0], positions
