"""How much is to be kept: counts, uniform or layer by layer, and ways to come to them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real

from transact.errors import InvalidTarget
from transact.spec import LayerShape, ModelSpec

Counts = int | tuple[int, ...]
_ROUNDING = 1e-9
"""Keeps 10 · (1 − 0.9) from falling below 1 for lack of a binary 0.9."""


@dataclass(frozen=True)
class PruningTarget:
    """Head groups and MLP channels to keep: one number for all layers, or a tuple with one per layer.

    `requested` remembers what the counts were derived from, for the plan's summary.
    """

    keep_head_groups: Counts
    keep_channels: Counts
    requested: tuple[tuple[str, float], ...] = field(default=(), compare=False)

    def __post_init__(self):
        for name in ("keep_head_groups", "keep_channels"):
            value = getattr(self, name)
            if isinstance(value, Sequence) and not isinstance(value, str):
                value = tuple(value)
            counts = value if isinstance(value, tuple) else (value,)
            if not counts or any(isinstance(count, bool) or not isinstance(count, Integral) for count in counts):
                raise InvalidTarget(f"{name} is {value!r}; give a whole number, or a tuple with one per layer.")

            plain = tuple(map(int, counts))  # JSON knows no numpy integers
            object.__setattr__(self, name, plain if isinstance(value, tuple) else plain[0])

    @classmethod
    def from_sparsity(
        cls, spec: ModelSpec, *, attention: float = 0.0, mlp: float = 0.0, multiple_of: int = 1
    ) -> "PruningTarget":
        """Keep floor(n · (1 − sparsity)) of a layer's n head groups and channels, at least one.

        Channels are rounded down to `multiple_of` (but never below it where the layer has as many). Raises
        `InvalidTarget` for a sparsity outside [0, 1) or a `multiple_of` below 1.
        """
        if isinstance(multiple_of, bool) or not isinstance(multiple_of, int) or multiple_of < 1:
            raise InvalidTarget(f"multiple_of is {multiple_of!r}; give a whole number from 1.")
        attention = _sparsity("attention sparsity", attention)
        mlp = _sparsity("MLP sparsity", mlp)
        groups = tuple(_kept(layer.num_key_value_heads, 1 - attention, 1) for layer in spec.layers)
        channels = tuple(_kept(layer.intermediate_size, 1 - mlp, multiple_of) for layer in spec.layers)
        requested = (("attention_sparsity", attention), ("mlp_sparsity", mlp))
        return cls(_collapse(groups), _collapse(channels), requested)

    @classmethod
    def from_parameters(cls, spec: ModelSpec, parameters: int) -> "PruningTarget":
        """The largest result of at most `parameters` parameters in all (embeddings included).

        Of all head-group counts, the one whose attention and MLP sparsity come closest to each other; the
        channels then fill what is left. Raises `InvalidTarget` below what one group and one channel a layer
        need.
        """
        if isinstance(parameters, bool) or not isinstance(parameters, Real) or not 0 < parameters < float("inf"):
            raise InvalidTarget(f"parameters is {parameters!r}; give a positive number.")
        all_groups = [layer.num_key_value_heads for layer in spec.layers]
        all_channels = [layer.intermediate_size for layer in spec.layers]
        candidates = []
        for step in range(1, max(all_groups) + 1):
            groups = tuple(_kept(count, step / max(all_groups), 1) for count in all_groups)
            fixed = spec.fixed_parameters + sum(groups) * spec.parameters_per_head_group
            share = (parameters - fixed) / (sum(all_channels) * spec.parameters_per_channel)
            channels = tuple(_kept(count, min(share, 1.0), 1) for count in all_channels)
            total = fixed + sum(channels) * spec.parameters_per_channel
            if share > 0 and total <= parameters:
                imbalance = abs(sum(groups) / sum(all_groups) - sum(channels) / sum(all_channels))
                candidates.append((imbalance, -total, groups, channels))
        if not candidates:
            layers = spec.num_hidden_layers
            least = spec.fixed_parameters + (spec.parameters_per_head_group + spec.parameters_per_channel) * layers
            raise InvalidTarget(
                f"{int(parameters):,} parameters cannot be reached: one head group and one channel in each layer "
                f"and what pruning leaves alone are {least:,}. Ask for more."
            )
        _, _, groups, channels = min(candidates)
        return cls(_collapse(groups), _collapse(channels), (("parameters", float(parameters)),))

    def per_layer(self, spec: ModelSpec) -> tuple[LayerShape, ...]:
        """The shape each layer of `spec` will have.

        Raises `InvalidTarget` for counts below one, above what the layer has, or for the wrong number of
        layers; counts are never changed.
        """
        groups = _spread("keep_head_groups", self.keep_head_groups, spec.num_hidden_layers)
        channels = _spread("keep_channels", self.keep_channels, spec.num_hidden_layers)
        shapes = []
        for index, (layer, group, channel) in enumerate(zip(spec.layers, groups, channels, strict=True)):
            _check(index, "head groups", group, layer.num_key_value_heads)
            _check(index, "channels", channel, layer.intermediate_size)
            shapes.append(LayerShape(group * layer.group_size, group, channel))
        return tuple(shapes)


def _sparsity(name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= value < 1:
        raise InvalidTarget(
            f"The {name} is {value!r}; it is the fraction removed and must be at least 0 and below 1, so that "
            "every layer keeps something."
        )
    return float(value)


def _kept(count: int, share: float, multiple_of: int) -> int:
    kept = int(count * share + _ROUNDING)
    return max(kept - kept % multiple_of, min(multiple_of, count), 1)


def _collapse(counts: tuple[int, ...]) -> Counts:
    """One number where all layers agree."""
    return counts[0] if len(set(counts)) == 1 else counts


def _spread(name: str, counts: Counts, layers: int) -> tuple[int, ...]:
    if isinstance(counts, int):
        return (counts,) * layers
    if len(counts) != layers:
        raise InvalidTarget(f"{name} has {len(counts)} entries, but the model has {layers} layers. Give one each.")
    return counts


def _check(layer: int, what: str, keep: int, available: int) -> None:
    if not 1 <= keep <= available:
        raise InvalidTarget(
            f"Layer {layer} was told to keep {keep} {what}; it has {available} and must keep at least 1."
        )
