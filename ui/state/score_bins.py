"""Scores as the arrays a figure shows: heads by layer, and channels sorted by score in at most 512 bins."""

from dataclasses import dataclass

import numpy as np

import transact as ta

MAX_BINS = 512


@dataclass(frozen=True, eq=False)
class Landscape:
    """One metric's scores, ready to draw.

    `heads` float32 [layer, head], NaN where a layer has fewer heads than the widest one;
    `bins` float32 [layer, bin] mean score of the channels in a bin, best bin first;
    `strongest` int32 [layer, bin] the best channel of a bin;
    `order` int [channel] a layer, channels by falling score; `edges` int [bin + 1] a layer, ranks where bins begin.
    """

    group_size: int
    heads: np.ndarray
    bins: np.ndarray
    strongest: np.ndarray
    order: tuple[np.ndarray, ...]
    edges: tuple[np.ndarray, ...]
    channels: tuple[np.ndarray, ...]

    @classmethod
    def of(cls, scores: ta.ImportanceScores, spec: ta.ModelSpec) -> "Landscape":
        """Sort and bin; done once a metric, so that a slider only has to mark."""
        layers = range(spec.num_hidden_layers)
        widest_heads = max(layer.num_attention_heads for layer in spec.layers)
        num_bins = min(MAX_BINS, min(layer.intermediate_size for layer in spec.layers))
        heads = np.full((len(layers), widest_heads), np.nan, dtype=np.float32)
        bins = np.empty((len(layers), num_bins), dtype=np.float32)
        strongest = np.empty((len(layers), num_bins), dtype=np.int32)
        channels, order, edges = [], [], []
        for layer in layers:
            of_heads = scores.heads[layer].numpy()
            heads[layer, : len(of_heads)] = of_heads
            values = scores.mlp_channels[layer].numpy()
            ranked = np.argsort(-values, kind="stable")
            starts = np.arange(num_bins + 1) * len(values) // num_bins
            bins[layer] = np.add.reduceat(values[ranked], starts[:-1]) / np.diff(starts)
            strongest[layer] = ranked[starts[:-1]]
            channels.append(values)
            order.append(ranked)
            edges.append(starts)
        return cls(spec.group_size, heads, bins, strongest, tuple(order), tuple(edges), tuple(channels))

    @property
    def num_layers(self) -> int:
        return len(self.bins)

    def members(self, layer: int, bin: int) -> tuple[int, ...]:
        """The channels of a bin, best first."""
        start, stop = self.edges[layer][bin : bin + 2]
        return tuple(self.order[layer][start:stop].tolist())

    def rank(self, layer: int, channel: int) -> int:
        """Where the channel stands among those of its layer, 0 for the best."""
        return int(np.flatnonzero(self.order[layer] == channel)[0])

    def bin_of(self, layer: int, channel: int) -> int:
        """The bin that holds the channel."""
        return int(np.searchsorted(self.edges[layer], self.rank(layer, channel), side="right")) - 1

    def removed_heads(self, plan: ta.PruningPlan) -> np.ndarray:
        """float32 [layer, head]: the share of each head's dimensions, of keys and of values, that the plan removes."""
        share = (~np.isnan(self.heads)).astype(np.float32)
        before, after = (spec.query_key_dim + spec.value_dim for spec in (plan.dense_spec, plan.spec))
        for layer, kept in enumerate(plan.layers):
            share[layer, list(kept.kept_heads)] = 1 - after / before
        return share

    def removed_bins(self, plan: ta.PruningPlan) -> np.ndarray:
        """float32 [layer, bin]: the share of each bin's channels that the plan removes."""
        share = np.empty(self.bins.shape, dtype=np.float32)
        for layer, kept in enumerate(plan.layers):
            removed = np.ones(len(self.order[layer]), dtype=np.float32)
            removed[np.fromiter(kept.kept_channels, dtype=np.int64)] = 0
            starts = self.edges[layer]
            share[layer] = np.add.reduceat(removed[self.order[layer]], starts[:-1]) / np.diff(starts)
        return share
