"""A model without its weights: shapes, scores by every metric and a measured sweep, in one small file.

docs/gallery.md describes the file. It may come from anybody: everything in it is checked before it is used.
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from transact.errors import CheckpointBroken, InvalidOption, SaveRefused, choice, is_finite
from transact.observing.statistics import ActivationStatistics, CalibrationRecord
from transact.repair.repairs import REPAIRS
from transact.scoring.metrics import METRICS
from transact.scoring.scores import ImportanceScores
from transact.spec.model_spec import ModelSpec
from transact.spec.size_limits import from_one_to, from_zero_to
from transact.text.calibration import CalibrationSet

SUFFIX = ".safetensors"
FORMAT, VERSION = "transact-gallery", 1
_MAX_BYTES = 64_000_000
"""Ten times what a model of 8 billion parameters takes."""
_MAX_NUMBER, _MAX_COUNT, _MAX_CHARACTERS, _MAX_POINTS = 1e30, 10**15, 1_000, 200
_PEAK = 2.0**15
"""What the largest score of a layer becomes, so that float16 holds all within eight powers of ten of it."""
_DRAWN = "random"
"""The metric that is drawn anew from the seed instead of being stored."""
_UNREADABLE = (
    SafetensorError, OSError, InvalidOption, TypeError, ValueError, AttributeError, IndexError, OverflowError,
    RecursionError,
)  # fmt: skip
"""What a file of another form leads to, beside a `KeyError`."""
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


@dataclass(frozen=True)
class SizePoint:
    """A size of the model: `removed`, the share of the prunable parameters that is gone, and `parameters` in all.

    `perplexity` on the sweep's text was `measured`, or predicted from sizes that were.
    """

    removed: float
    parameters: int
    perplexity: float
    measured: bool


@dataclass(frozen=True)
class SizeSweep:
    """Perplexity against size, the dense model first. `text`, `tokens` and `window` say what it was measured on.

    `protocol`: how the text became tokens; `metric` and `repair`: how what goes was chosen and made up for; `split`: in
    words, how the removal was shared out.
    """

    text: str
    tokens: int
    window: int
    protocol: str
    metric: str
    repair: str
    split: str
    points: tuple[SizePoint, ...]

    @property
    def dense(self) -> SizePoint:
        return self.points[0]

    def perplexity_at(self, parameters: int) -> float | None:
        """The perplexity to expect at that size, its logarithm linear between measured sizes; None beyond them."""
        known = sorted((point.parameters, math.log(point.perplexity)) for point in self.points if point.measured)
        for (low, at_low), (high, at_high) in zip(known, known[1:], strict=False):
            if low <= parameters <= high:
                along = (parameters - low) / (high - low) if high > low else 0.0
                return math.exp(at_low + along * (at_high - at_low))
        return None


@dataclass(frozen=True)
class Origin:
    """`weights`: in words, which weights were scored and where they came from, with their `licence`.

    `source`: the hub id under which weights of these shapes are found, None where there is none.
    """

    weights: str
    licence: str
    source: str | None = None


@dataclass(frozen=True, eq=False)
class GalleryModel:
    """What is known of a model: facts only, neither weights nor text.

    `calibration` is what it was scored on, `dtype` what the forward passes computed in, `fingerprint` the model's;
    `scores` by the names of their metrics; `versions` of the software that made it.
    """

    name: str
    spec: ModelSpec
    fingerprint: str
    origin: Origin
    calibration: CalibrationRecord
    dtype: str
    scores: Mapping[str, ImportanceScores]
    sweep: SizeSweep
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def statistics(self) -> ActivationStatistics:
        """The record of the run alone: no metric can be made of it, and no repair."""
        return ActivationStatistics((), (), self.calibration.num_tokens, self.calibration, self.fingerprint, self.dtype)

    @property
    def tokens(self) -> CalibrationSet:
        """The calibration set without its tokens: no samples, int64 [0, seq]."""
        ids = torch.empty((0, self.calibration.seq_len), dtype=torch.int64)
        return CalibrationSet(ids, ids.bool(), self.calibration.name, self.calibration.seed, self.calibration.protocol)

    def save(self, path: str | Path) -> None:
        """Write one safetensors file; raises `SaveRefused` if the disk refuses."""
        first = next(iter(self.scores.values()))
        tensors = {} if first.layers is None else {"layers": first.layers}
        if first.rotary_pairs:
            tensors["rotary_pairs"] = torch.cat([pairs.flatten() for pairs in first.rotary_pairs]).float()
        for name, scores in self.scores.items():
            if name == _DRAWN:
                continue
            tensors[f"{name}.heads"] = torch.cat(scores.heads)
            for site, channels in (("attention", scores.attention_channels), ("mlp", scores.mlp_channels)):
                tensors[f"{name}.{site}"], tensors[f"{name}.{site}.scale"] = _packed(channels)
        header = {
            "format": FORMAT, "version": VERSION, "name": self.name, "fingerprint": self.fingerprint,
            "spec": self.spec.to_dict(), "origin": asdict(self.origin), "calibration": vars(self.calibration),
            "dtype": self.dtype, "metrics": list(self.scores), "sweep": asdict(self.sweep),
            "versions": dict(self.versions),
        }  # fmt: skip
        try:
            save_file(tensors, path, metadata={"transact": json.dumps(header, allow_nan=False)})
        except (OSError, SafetensorError) as error:
            raise SaveRefused(f"{path} could not be written: {error}. Choose another place.") from error

    @classmethod
    def load(cls, path: str | Path) -> "GalleryModel":
        """The inverse of `save`, within float16 for the scores of channels.

        Raises `CheckpointBroken`, with the name of the file, for anything else.
        """
        path = Path(path)
        try:
            if not path.is_file() or path.stat().st_size > _MAX_BYTES:
                raise ValueError(f"it is no file of at most {_MAX_BYTES // 1_000_000} MB")
            with safe_open(path, framework="pt") as file:
                return _read(file)
        except KeyError as error:
            reason = f"it lacks {error}"
        except _UNREADABLE as error:
            reason = str(error)[:200]
        raise CheckpointBroken(
            f"“{path.name}” is no gallery file that can be read ({reason}). Make it anew with python -m "
            "benchmarks.gallery, or take it out of the folder."
        )


def _packed(layers: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores of all layers one after the other, float16 [channel of all layers], and what to multiply each layer by."""
    scales = torch.stack([scores.abs().max() for scores in layers]) / _PEAK
    scales[scales == 0] = 1.0
    return torch.cat([(scores / scale).flatten().half() for scores, scale in zip(layers, scales, strict=True)]), scales


def _read(file: safe_open) -> GalleryModel:
    """The model of an open file. Raises what a file of another form leads to."""
    values = json.loads((file.metadata() or {})["transact"])
    if (values["format"], values["version"]) != (FORMAT, VERSION):
        raise ValueError(f"format {_shown(values['format'])}, version {_shown(values['version'])}")
    spec = ModelSpec.from_dict(values["spec"])
    record, fingerprint = _record(values["calibration"]), _text(values["fingerprint"])
    if fingerprint.split("/")[0] != spec.fingerprint:
        raise ValueError("the fingerprint belongs to another shape")
    metrics = values["metrics"]
    if not isinstance(metrics, list) or not metrics or not all(metric in METRICS for metric in metrics):
        raise ValueError("it is scored by no metric, or by one that is not known here")
    tensors = _Tensors(file, spec)
    named = {"fingerprint": fingerprint, "calibration": record.name}
    scores = {metric: tensors.scores(metric, record, named) for metric in metrics}
    tensors.check_all_read()
    return GalleryModel(
        name=_text(values["name"]),
        spec=spec,
        fingerprint=fingerprint,
        origin=_origin(values["origin"]),
        calibration=record,
        dtype=_text(values["dtype"]),
        scores=scores,
        sweep=_sweep(values["sweep"], spec),
        versions={_text(name): _text(version) for name, version in values["versions"].items()},
    )


class _Tensors:
    """The tensors of a file, each of the shape that the spec asks for."""

    def __init__(self, file: safe_open, spec: ModelSpec):
        self._file = file
        self._spec = spec
        self._left = set(file.keys())

    def scores(self, metric: str, record: CalibrationRecord, named: Mapping[str, str]) -> ImportanceScores:
        spec, layers = self._spec, self._spec.layers
        pairs, of_layers = self._pairs(), self._of_layers()
        if metric == _DRAWN:
            drawn = ImportanceScores.random(spec, record.seed or 0)
            return ImportanceScores.from_channels(
                metric, tuple(scores.flatten() for scores in drawn.attention_channels), drawn.mlp_channels, spec,
                **named, rotary_pairs=drawn.rotary_pairs if pairs else (), layers=drawn.layers,
            )  # fmt: skip
        heads = self._read(f"{metric}.heads", torch.float64, [layer.num_attention_heads for layer in layers])
        attention = self._unpacked(f"{metric}.attention", [spec.attention_width(layer) for layer in layers])
        mlp = self._unpacked(f"{metric}.mlp", [layer.intermediate_size for layer in layers])
        return ImportanceScores(
            metric,
            tuple(channels.reshape(-1, spec.value_dim) for channels in attention),  # [head, value_dim]
            heads,
            tuple(
                scores.reshape(-1, layer.group_size).mean(dim=1)  # [head] -> [group, heads in it] -> [group]
                for scores, layer in zip(heads, layers, strict=True)
            ),
            mlp,
            **named,
            rotary_pairs=pairs,
            layers=of_layers,
        )

    def check_all_read(self) -> None:
        """Raise `ValueError` where the file holds more."""
        if self._left:
            raise ValueError(f"nothing is called {_shown(min(self._left))}")

    def _pairs(self) -> tuple[torch.Tensor, ...]:
        if "rotary_pairs" not in self._file.keys():  # noqa: SIM118, an open file is no dictionary
            return ()
        pairs = self._spec.query_key_dim // 2
        groups = [layer.num_key_value_heads for layer in self._spec.layers]
        read = self._read("rotary_pairs", torch.float32, [count * pairs for count in groups])
        return tuple(scores.reshape(count, pairs) for scores, count in zip(read, groups, strict=True))

    def _of_layers(self) -> torch.Tensor | None:
        if "layers" not in self._file.keys():  # noqa: SIM118
            return None
        return self._read("layers", torch.float64, [self._spec.num_hidden_layers])[0]

    def _unpacked(self, name: str, sizes: list[int]) -> tuple[torch.Tensor, ...]:
        (scales,) = self._read(f"{name}.scale", torch.float64, [len(sizes)])
        packed = self._read(name, torch.float16, sizes)
        return tuple(scores * scale for scores, scale in zip(packed, scales, strict=True))

    def _read(self, name: str, dtype: torch.dtype, sizes: list[int]) -> tuple[torch.Tensor, ...]:
        """The layers of a tensor in float64, each of its size. Raises `ValueError` for other shapes and numbers."""
        if self._file.get_slice(name).get_shape() != [sum(sizes)]:
            raise ValueError(f"{name} is not {sum(sizes):,} numbers, as the shapes ask for")
        read = self._file.get_tensor(name)
        self._left.discard(name)
        if read.dtype != dtype or not bool(read.isfinite().all()) or float(read.abs().max()) > _MAX_NUMBER:
            raise ValueError(f"{name} holds something else than finite numbers in {str(dtype).removeprefix('torch.')}")
        return tuple(read.double().split(sizes))


def _record(values: dict) -> CalibrationRecord:
    def count(name: str, of: Callable[[int, Any], int] = from_one_to) -> int:
        return of(_MAX_COUNT, values[name])

    def count_or_none(name: str) -> int | None:
        return None if values.get(name) is None else count(name, from_zero_to)

    return CalibrationRecord(
        name=_text(values["name"]),
        fingerprint=_text(values["fingerprint"]),
        num_samples=count("num_samples"),
        num_tokens=count("num_tokens"),
        seq_len=from_one_to(2**24, values["seq_len"]),
        seed=None if values["seed"] is None else from_zero_to(2**31 - 1, values["seed"]),
        protocol=_text(values["protocol"]),
        available_tokens=count_or_none("available_tokens"),
        requested_samples=count_or_none("requested_samples"),
    )


def _origin(values: dict) -> Origin:
    source = values["source"]
    if source is not None and not _HUB_ID.fullmatch(_text(source)):
        raise ValueError(f"its source is {_shown(source)}, which is no hub id")
    return Origin(_text(values["weights"]), _text(values["licence"]), source)


def _sweep(values: dict, spec: ModelSpec) -> SizeSweep:
    points = values["points"]
    if not isinstance(points, list) or not 1 <= len(points) <= _MAX_POINTS:
        raise ValueError(f"its sweep has not 1 to {_MAX_POINTS} points")
    return SizeSweep(
        text=_text(values["text"]),
        tokens=from_one_to(_MAX_COUNT, values["tokens"]),
        window=from_one_to(_MAX_COUNT, values["window"]),
        protocol=_text(values["protocol"]),
        metric=choice(values["metric"], METRICS, "metric"),
        repair=choice(values["repair"], REPAIRS, "repair"),
        split=_text(values["split"]),
        points=tuple(_point(point, spec) for point in points),
    )


def _point(values: dict, spec: ModelSpec) -> SizePoint:
    removed, perplexity = values["removed"], values["perplexity"]
    if not is_finite(removed) or not 0 <= removed < 1 or not is_finite(perplexity) or not 1 <= perplexity < _MAX_NUMBER:
        raise ValueError(f"its sweep has a point of {_shown(perplexity)} at {_shown(removed)}")
    parameters = from_one_to(spec.num_parameters, values["parameters"])
    return SizePoint(float(removed), parameters, float(perplexity), values["measured"] is True)


def _text(value: object) -> str:
    """One line of printable text; raises `ValueError` for anything else."""
    if not isinstance(value, str) or len(value) > _MAX_CHARACTERS or not value.isprintable():
        raise ValueError(f"{_shown(value)} is not one line of text")
    return value


def _shown(value: object) -> str:
    return repr(value)[:60]
