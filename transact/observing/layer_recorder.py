"""What is recorded of one decoder layer while text passes through it: the sums of its two sites, their peaks, and how
far the layer turns the residual stream.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch

from transact.errors import NonFiniteActivations
from transact.layers.hooks import CallFunction, by_sample
from transact.observing.accumulators import (
    CosineAccumulator,
    MomentAccumulator,
    PeakAccumulator,
    RealTokens,
    channels,
    head_norms,
)
from transact.observing.statistics import Cosines, Moments, Peaks
from transact.spec.model_spec import SITES, ModelSpec


@dataclass(frozen=True)
class RecordOptions:
    """What a pass over the text is to keep beside Σ x and Σ x².

    `gram_sites`: where X^T X too; `queries`: also the outputs of the query and key projections; `num_samples` > 0: the
    sums of each of that many samples; `top_k` > 0: that many peaks.
    """

    gram_sites: tuple[str, ...] = ()
    queries: bool = False
    num_samples: int = 0
    top_k: int = 0


@dataclass(frozen=True, eq=False)
class LayerRecord:
    """What was recorded of one layer; no peaks, queries and keys unless asked for."""

    attention: Moments
    mlp: Moments
    residual: Cosines
    head_peaks: Peaks | None = None
    channel_peaks: Peaks | None = None
    queries: Moments | None = None
    keys: Moments | None = None

    def of(self, samples: Sequence[int]) -> "LayerRecord":
        """The record on the CPU for a set that has these samples alone, which are all that were read; in that order."""
        rows = torch.tensor(samples)

        def picked(value: Moments | Cosines | Peaks | None) -> Any:
            return None if value is None else _PICKED[type(value)](value, rows)

        return LayerRecord(**{field.name: picked(getattr(self, field.name)) for field in fields(self)})


def _moments_of(moments: Moments, rows: torch.Tensor) -> Moments:
    return Moments(
        moments.sums.cpu().clone(), moments.square_sums.cpu().clone(), None,
        _rows(moments.sample_sums, rows), _rows(moments.sample_square_sums, rows),
    )  # fmt: skip


def _cosines_of(cosines: Cosines, rows: torch.Tensor) -> Cosines:
    return Cosines(cosines.total.cpu().clone(), _rows(cosines.samples, rows))


def _peaks_of(peaks: Peaks, rows: torch.Tensor) -> Peaks:
    numbers = torch.zeros(int(rows.max()) + 1, dtype=torch.int64)
    numbers[rows] = torch.arange(len(rows))
    return Peaks(peaks.activations.cpu().clone(), numbers[peaks.samples.cpu()], peaks.positions.cpu().clone())


def _rows(kept: torch.Tensor | None, rows: torch.Tensor) -> torch.Tensor | None:
    return None if kept is None else kept[rows.to(kept.device)].cpu()


_PICKED: dict[type, Callable[[Any, torch.Tensor], Any]] = {
    Moments: _moments_of, Cosines: _cosines_of, Peaks: _peaks_of,
}  # fmt: skip


class LayerRecorder:
    """The running sums of one layer."""

    def __init__(self, spec: ModelSpec, index: int, options: RecordOptions, device: torch.device):
        self.index = index
        self._layout = spec.layout
        shape = spec.layers[index]
        sizes = {"attention": spec.attention_width(shape), "mlp": shape.intermediate_size}
        self.moments = {
            site: MomentAccumulator(size, device, gram=site in options.gram_sites, num_samples=options.num_samples)
            for site, size in sizes.items()
        }
        self.cosines = CosineAccumulator(device, options.num_samples)
        self.peaks: dict[str, PeakAccumulator] = {}
        if options.top_k:
            norms = head_norms(spec.value_dim)
            self.peaks = {
                "attention": PeakAccumulator(shape.num_attention_heads, options.top_k, norms, device),
                "mlp": PeakAccumulator(shape.intermediate_size, options.top_k, channels, device),
            }

        self.query_moments: dict[str, MomentAccumulator] = {}
        if options.queries:
            counts = {"queries": shape.num_attention_heads, "keys": shape.num_key_value_heads}
            self.query_moments = {
                name: MomentAccumulator(count * spec.query_key_dim, device, num_samples=options.num_samples)
                for name, count in counts.items()
            }

    def functions(
        self, layer: torch.nn.Module, tokens: Callable[[], RealTokens]
    ) -> list[tuple[torch.nn.Module, Callable[[torch.Tensor], None]]]:
        """What to call on the inputs of the layer's two projections; `tokens` returns those of the current batch."""

        def recorder(site: str) -> Callable[[torch.Tensor], None]:
            sums: list[MomentAccumulator | PeakAccumulator] = [
                self.moments[site],
                *([self.peaks[site]] if self.peaks else []),
            ]

            def record(activations: torch.Tensor) -> None:
                real = tokens()
                activations = by_sample(activations, real.mask.shape)
                for each in sums:
                    each.add(activations, real)

            return record

        roles = {"attention": self._layout.output, "mlp": self._layout.down}
        return [(layer.get_submodule(roles[site]), recorder(site)) for site in SITES]

    def call_functions(
        self, layer: torch.nn.Module, tokens: Callable[[], RealTokens]
    ) -> list[tuple[torch.nn.Module, CallFunction]]:
        """What to call on what goes into the layer and comes out of it, and, where that was asked for, on the outputs
        of the query and key projections.
        """

        def record_layer(before: torch.Tensor, output: torch.Tensor | tuple) -> None:
            self.cosines.add(before, output if isinstance(output, torch.Tensor) else output[0], tokens())

        def recorder(sums: MomentAccumulator) -> CallFunction:
            def record(_: torch.Tensor, output: torch.Tensor) -> None:
                real = tokens()
                sums.add(by_sample(output, real.mask.shape), real)

            return record

        roles = {"queries": self._layout.query, "keys": self._layout.key}
        queries = [(layer.get_submodule(roles[name]), recorder(sums)) for name, sums in self.query_moments.items()]
        return [(layer, record_layer), *queries]

    def totals(self) -> torch.Tensor:
        """All sums in one vector, to check whether they are finite."""
        return torch.cat([self.moments[site].totals.flatten() for site in SITES])

    def check_finite(self, dtype: torch.dtype) -> None:
        """Raise `NonFiniteActivations`, naming the layer; `dtype` is that of the computation."""
        for site, name in zip(SITES, ("attention", "MLP"), strict=True):
            if not bool(self.moments[site].totals.isfinite().all()):
                raise NonFiniteActivations(
                    f"Layer {self.index} produced NaN or infinite {name} activations in {dtype}. "
                    'The weights may be damaged; if not, load the model with dtype="float32".'
                )

    def combine(self) -> None:
        """The sums of all processes, where there are several."""
        for moments in (*self.moments.values(), *self.query_moments.values()):
            moments.combine()
        for peaks in self.peaks.values():
            peaks.combine()
        self.cosines.combine()

    def so_far(self) -> LayerRecord:
        """What was recorded until now, without Gram matrices; for `LayerRecord.of`."""
        return self._record(lambda accumulator: accumulator.so_far())

    def result(self) -> LayerRecord:
        return self._record(lambda accumulator: accumulator.result())

    def _record(self, value_of: Callable[[Any], Any]) -> LayerRecord:
        attention, mlp = (value_of(self.moments[site]) for site in SITES)
        head_peaks, channel_peaks = (value_of(self.peaks[site]) if self.peaks else None for site in SITES)
        projections = self.query_moments
        queries, keys = (value_of(projections[name]) if projections else None for name in ("queries", "keys"))
        return LayerRecord(attention, mlp, value_of(self.cosines), head_peaks, channel_peaks, queries, keys)
