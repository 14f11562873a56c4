"""What stays and what goes, as a value: it can be compared, stored as JSON, tried behind masks and cut."""

import json
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from transact.errors import InvalidPlan
from transact.spec.digest import digest
from transact.spec.kept_layers import checked_layers, only_layers
from transact.spec.layer_plan import LayerPlan
from transact.spec.model_spec import HEAD_WIDTHS, ModelSpec

_FORMAT = "transact-plan"
_VERSION = 4
_WITHOUT_LAYERS = 3
"""The version before, whose plans keep all layers."""
_SUMMARY_CONTEXT = 512


@dataclass(frozen=True)
class PruningPlan:
    """The kept units of every layer, the layers that stay, the model they belong to, and how they were chosen.

    `layers` has one entry per layer of the model before the cut, and `kept_layers` the sorted indices of those that
    stay, all of them by default. Nothing reads the entry of a layer that goes: it says what the layer would keep, so
    that `dataclasses.replace(plan, kept_layers=(0, 2))` is a plan with other layers.

    `dense_spec` is the model before the cut, `fingerprint` names its shapes and, after a slash, its weights;
    `requested` is the requested target, as pairs.
    """

    layers: tuple[LayerPlan, ...]
    dense_spec: ModelSpec
    fingerprint: str
    metric: str
    calibration: str
    allocation: str
    requested: tuple[tuple[str, float], ...] = ()
    kept_layers: tuple[int, ...] = ()

    def __post_init__(self):
        """Raise `InvalidPlan` for layers that are not sorted or that the model does not have."""
        object.__setattr__(self, "kept_layers", checked_layers(self.kept_layers, len(self.layers)))

    @cached_property
    def spec(self) -> ModelSpec:
        """The shape that pruning will give."""
        spec = self.dense_spec.with_layers(tuple(layer.shape for layer in self.layers))
        return only_layers(spec, self.kept_layers).with_heads(**self.layers[self.kept_layers[0]].head_widths)

    @cached_property
    def kept_layer_plans(self) -> dict[int, LayerPlan]:
        """What the layers that stay keep, in their order, by their indices before the cut."""
        return {index: self.layers[index] for index in self.kept_layers}

    @property
    def removed_layers(self) -> tuple[int, ...]:
        """Sorted indices of the layers that go."""
        return tuple(index for index in range(len(self.layers)) if index not in self.kept_layer_plans)

    @property
    def cuts_inside_groups(self) -> bool:
        """Whether kept groups lose query heads."""
        return self.spec.group_size < self.dense_spec.group_size

    @property
    def cuts_inside_heads(self) -> dict[str, int]:
        """The kept widths of heads that lose dimensions, by the names of a target; empty where they stay whole."""
        before, after = self.dense_spec, self.spec
        widths = {name: getattr(after, name) for name in HEAD_WIDTHS if getattr(after, name) < getattr(before, name)}
        return {f"keep_{name}": width for name, width in widths.items()}

    @property
    def granularity(self) -> str:
        """The granularity of the cuts in attention, as named by `PruningTarget.from_sparsity`."""
        return "heads" if self.cuts_inside_groups else "head_dims" if self.cuts_inside_heads else "head_groups"

    @cached_property
    def digest(self) -> str:
        """A short digest of the whole plan."""
        return digest(self.to_json())

    def check_fits(self, fingerprint: str) -> None:
        """Raise `InvalidPlan` unless this plan was made for the model with that fingerprint.

        A plan from shapes alone (`ImportanceScores.random`) fits every model of those shapes.
        """
        mine, theirs = self.fingerprint.partition("/"), fingerprint.partition("/")
        if mine[0] != theirs[0]:
            raise InvalidPlan("This plan was made for a model of other shapes. Make a plan from this model's scores.")
        if mine[2] and theirs[2] and mine[2] != theirs[2]:
            raise InvalidPlan(
                "This plan was made for a model of the same shapes but other weights (another source, revision "
                "or an earlier cut). Make a plan from this model's scores."
            )

    def summary(self) -> dict:
        """Requested, achieved, and parameters, FLOPs and KV bytes per token before and after; JSON-able.

        FLOPs per token at a context of 512; KV bytes and checkpoint bytes for 2-byte elements. KV bytes per token as
        long as no window is full, and of one sequence as long as the model's context.
        """
        before, after = self.dense_spec, self.spec
        heads = [
            sum(layer.num_attention_heads for layer in spec.layers) * (spec.query_key_dim + spec.value_dim)
            for spec in (before, after)
        ]
        channels = [sum(layer.intermediate_size for layer in spec.layers) for spec in (before, after)]
        return {
            "requested": dict(self.requested),
            "achieved": {
                "attention_sparsity": 1 - heads[1] / heads[0],
                "mlp_sparsity": 1 - channels[1] / channels[0],
                "parameter_sparsity": 1 - after.num_parameters / before.num_parameters,
                "kept_layers": list(self.kept_layers),
                "keep_head_groups": [layer.num_key_value_heads for layer in after.layers],
                "keep_heads_per_group": after.group_size,
                "keep_query_key_dim": after.query_key_dim,
                "keep_value_dim": after.value_dim,
                "keep_channels": [layer.intermediate_size for layer in after.layers],
            },
            "before": _costs(before),
            "after": _costs(after),
        }

    def to_json(self) -> str:
        """One JSON object; `from_json` gives an equal plan."""
        return json.dumps(
            {
                "format": _FORMAT,
                "version": _VERSION,
                "metric": self.metric,
                "calibration": self.calibration,
                "allocation": self.allocation,
                "requested": dict(self.requested),
                "fingerprint": self.fingerprint,
                "dense_spec": self.dense_spec.to_dict(),
                "kept_layers": list(self.kept_layers),
                "layers": [
                    {
                        "kept_head_groups": list(layer.kept_head_groups),
                        "kept_heads": list(layer.kept_heads),
                        "kept_channels": list(layer.kept_channels),
                        "kept_pairs": [list(pairs) for pairs in layer.kept_pairs],
                        "kept_value_channels": [list(channels) for channels in layer.kept_value_channels],
                    }
                    for layer in self.layers
                ],
            },
            allow_nan=False,
        )

    @classmethod
    def from_json(cls, text: str) -> "PruningPlan":
        """Read a plan; raises `InvalidPlan` for anything that `to_json` does not write."""
        try:
            values = json.loads(text)
            if values["format"] != _FORMAT or values["version"] not in (_WITHOUT_LAYERS, _VERSION):
                raise ValueError(f"format {values['format']!r}, version {values['version']!r}")
            spec = ModelSpec.from_dict(values["dense_spec"])
            if len(values["layers"]) != spec.num_hidden_layers:
                raise ValueError(f"{len(values['layers'])} layers instead of {spec.num_hidden_layers}")
            layers = tuple(
                LayerPlan(
                    _indices(kept["kept_head_groups"], shape.num_key_value_heads),
                    _indices(kept["kept_heads"], shape.num_attention_heads),
                    _indices(kept["kept_channels"], shape.intermediate_size),
                    tuple(_indices(pairs, spec.query_key_dim // 2) for pairs in kept["kept_pairs"]),
                    tuple(_indices(channels, spec.value_dim) for channels in kept["kept_value_channels"]),
                )
                for kept, shape in zip(values["layers"], spec.layers, strict=True)
            )
            numbers = values["kept_layers"] if values["version"] == _VERSION else list(range(len(layers)))
            kept_layers = _indices(numbers, len(layers))
            _check_heads(tuple(layers[index] for index in kept_layers), spec)
            for layer in layers:
                _check_heads((layer,), spec)
            fingerprint = _text(values["fingerprint"])
            if fingerprint.split("/")[0] != spec.fingerprint:
                raise ValueError("the fingerprint does not belong to dense_spec")
            return cls(
                layers=layers,
                dense_spec=spec,
                fingerprint=fingerprint,
                metric=_text(values["metric"]),
                calibration=_text(values["calibration"]),
                allocation=_text(values["allocation"]),
                requested=tuple((_text(name), _number(value)) for name, value in values["requested"].items()),
                kept_layers=kept_layers,
            )
        except KeyError as error:
            raise InvalidPlan(f"This is no plan that can be read (it lacks {error}). Export the plan again.") from None
        except (TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
            reason = str(error)[:200]
            raise InvalidPlan(f"This is no plan that can be read ({reason}). Export the plan again.") from None


@dataclass(frozen=True)
class Cut:
    """A plan that was cut into a model, its compensation, and, in words, what the model was trained on since.

    `repeat`: what `compress(repeat=…)` takes to do the same again, empty for what it did not make.
    """

    plan: PruningPlan
    compensation: str
    trained: str = ""
    repeat: str = ""


def compose_cuts(cuts: tuple[Cut, ...]) -> PruningPlan:
    """One plan for the model before the first cut that keeps what all cuts kept."""
    whole = cuts[0].plan
    for cut in cuts[1:]:
        plan, layers = cut.plan, list(whole.layers)
        for before, after in zip(whole.kept_layers, plan.layers, strict=True):
            layers[before] = _both(whole.layers[before], after)
        kept_layers = tuple(whole.kept_layers[index] for index in plan.kept_layers)
        whole = replace(
            whole, layers=tuple(layers), kept_layers=kept_layers, metric=plan.metric, calibration=plan.calibration,
            requested=(),
        )  # fmt: skip
    return whole


def _both(before: LayerPlan, after: LayerPlan) -> LayerPlan:
    """What two cuts in a row keep together."""

    def of(kind: str) -> tuple[int, ...]:
        return tuple(getattr(before, kind)[index] for index in getattr(after, kind))

    def inside(kind: str) -> tuple[tuple[int, ...], ...]:
        whole, kept = getattr(before, kind), getattr(after, kind)
        if not whole:
            return kept
        left = tuple(whole[group] for group in after.kept_head_groups)
        if not kept:
            return left
        return tuple(tuple(each[index] for index in indices) for each, indices in zip(left, kept, strict=True))

    return LayerPlan(
        of("kept_head_groups"),
        of("kept_heads"),
        of("kept_channels"),
        inside("kept_pairs"),
        inside("kept_value_channels"),
    )


def _costs(spec: ModelSpec) -> dict[str, int]:
    return {
        "parameters": spec.num_parameters,
        "flops_per_token": spec.flops_per_token(context=_SUMMARY_CONTEXT),
        "kv_bytes_per_token": spec.kv_bytes_per_token(),
        "kv_bytes_full_context": spec.kv_bytes(spec.max_position_embeddings),
        "checkpoint_bytes": spec.checkpoint_bytes(),
    }


def _indices(values: list, available: int) -> tuple[int, ...]:
    """Strictly rising whole numbers in [0, available), at least one."""
    if not isinstance(values, list) or not values:
        raise ValueError("a layer, or the model, keeps nothing")
    if any(isinstance(value, bool) or not isinstance(value, int) for value in values):
        raise ValueError("an index is not a whole number")
    if any(low >= high for low, high in zip(values, values[1:], strict=False)):
        raise ValueError("indices are not sorted or repeat")
    if values[0] < 0 or values[-1] >= available:
        raise ValueError(f"an index is outside 0 to {available - 1}")
    return tuple(values)


def _check_heads(layers: tuple[LayerPlan, ...], spec: ModelSpec) -> None:
    """Every kept group keeps the same number of heads of the same width, and no other group keeps any."""
    first = layers[0]
    per_group = len(first.kept_heads) // len(first.kept_head_groups)
    for layer in layers:
        of = [head // spec.group_size for head in layer.kept_heads]
        if of != [group for group in layer.kept_head_groups for _ in range(per_group)]:
            raise ValueError("the kept heads are not the same number of each kept group")
        for by_group, in_first in (
            (layer.kept_pairs, first.kept_pairs),
            (layer.kept_value_channels, first.kept_value_channels),
        ):
            widths = {len(kept) for kept in (*by_group, *in_first)}
            if bool(by_group) != bool(in_first) or (by_group and len(by_group) != len(layer.kept_head_groups)):
                raise ValueError("dimensions of heads are not given for each kept group")
            if len(widths) > 1:
                raise ValueError("the kept groups do not keep the same number of dimensions")
    if spec.layout.no_head_dim_pruning_reason is not None and (first.kept_pairs or first.kept_value_channels):
        raise ValueError(f"{spec.layout.label} keeps its heads whole")


def _number(value) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
        raise ValueError(f"{value!r} is not a finite number")
    return float(value)


def _text(value) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not a text")
    return value
