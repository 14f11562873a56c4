"""One pass over the calibration text, recording the transitional activations.

The transitional activations of a layer (TransAct, arXiv 2407.05690) are the inputs of its `o_proj` and
`down_proj`. Of each channel x_j the pass keeps Σ x_j and Σ x_j² over all real tokens; every metric follows
from these and from the weights, so switching metrics needs no second pass.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from transact.calibration import CalibrationSet
from transact.errors import CheckpointBroken, InvalidOption, NonFiniteActivations, NotEnoughMemory, SaveRefused
from transact.hooks import on_inputs
from transact.loading import LoadedModel, free_bytes
from transact.progress import NO_PROGRESS, Progress
from transact.spec import ModelSpec

_ROWS = 256
"""Tokens per step of the sums: the squares of this many rows stay in the processor's cache (measured)."""


@dataclass(frozen=True, eq=False)
class Moments:
    """Σ x and Σ x² over the real tokens, float64 [channel]; `gram` = X^T X, float64 [channel, channel] or None."""

    sums: torch.Tensor
    square_sums: torch.Tensor
    gram: torch.Tensor | None = None

    def norms(self) -> torch.Tensor:
        """sqrt(Σ_tokens x²), float64 [channel]."""
        return self.square_sums.sqrt()

    def variances(self, num_tokens: int) -> torch.Tensor:
        """Var_tokens(x), unbiased, float64 [channel]."""
        centred = self.square_sums - self.sums.square() / num_tokens
        return centred.clamp_min(0) / max(num_tokens - 1, 1)


@dataclass(frozen=True, eq=False)
class CalibrationRecord:
    """What a calibration set was, without its tokens."""

    name: str
    fingerprint: str
    num_samples: int
    num_tokens: int
    seq_len: int
    seed: int | None
    protocol: str

    @classmethod
    def of(cls, calibration: CalibrationSet) -> "CalibrationRecord":
        return cls(
            name=calibration.name,
            fingerprint=calibration.fingerprint,
            num_samples=calibration.num_samples,
            num_tokens=calibration.num_tokens,
            seq_len=calibration.input_ids.shape[1],
            seed=calibration.seed,
            protocol=calibration.protocol,
        )


@dataclass(frozen=True, eq=False)
class ActivationStatistics:
    """Moments of both transitional activations in every layer.

    `attention[layer]`: inputs of `o_proj`, channels ordered [head · head_dim]; `mlp[layer]`: inputs of
    `down_proj`. `fingerprint`: the model they belong to; `dtype`: what the forward pass computed in.
    """

    attention: tuple[Moments, ...]
    mlp: tuple[Moments, ...]
    num_tokens: int
    calibration: CalibrationRecord
    fingerprint: str
    dtype: str

    def save(self, path: str | Path) -> None:
        """Write one safetensors file; raises `SaveRefused` if the disk refuses."""
        tensors = {
            f"{site}.{index}.{name}": getattr(moments, name)
            for site in ("attention", "mlp")
            for index, moments in enumerate(getattr(self, site))
            for name in ("sums", "square_sums", "gram")
            if getattr(moments, name) is not None
        }
        values = {
            "num_layers": len(self.mlp),
            "num_tokens": self.num_tokens,
            "calibration": vars(self.calibration),
            "fingerprint": self.fingerprint,
            "dtype": self.dtype,
        }
        try:
            save_file(tensors, path, metadata={"transact": json.dumps(values)})
        except (OSError, SafetensorError) as error:
            raise SaveRefused(f"{path} could not be written: {error}. Choose another place.") from error

    @classmethod
    def load(cls, path: str | Path) -> "ActivationStatistics":
        """The inverse of `save`; raises `CheckpointBroken` for any other file."""
        try:
            with safe_open(path, framework="pt") as file:
                values = json.loads((file.metadata() or {})["transact"])
                present = set(file.keys())
                sites = {
                    site: tuple(
                        Moments(
                            **{
                                name: file.get_tensor(key)
                                for name in ("sums", "square_sums", "gram")
                                if (key := f"{site}.{index}.{name}") in present
                            }
                        )
                        for index in range(values["num_layers"])
                    )
                    for site in ("attention", "mlp")
                }
            return cls(
                **sites,
                num_tokens=values["num_tokens"],
                calibration=CalibrationRecord(**values["calibration"]),
                fingerprint=values["fingerprint"],
                dtype=values["dtype"],
            )
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise CheckpointBroken(f"{path} holds no activation statistics ({error}). Score again.") from None


def observe(
    loaded: LoadedModel,
    calibration: CalibrationSet,
    *,
    gram: bool = False,
    batch_size: int = 8,
    progress: Progress = NO_PROGRESS,
) -> ActivationStatistics:
    """Run the calibration text through the decoder and sum up its transitional activations.

    The output head is not computed; padding never counts. `gram=True` also sums X^T X of every site, which
    least-squares repair needs. Progress is in tokens and may raise `Cancelled` at any layer. The model is
    unchanged afterwards, also when the pass fails.

    Raises `NonFiniteActivations`, naming the layer, `InvalidText` for ids outside the vocabulary, and
    `NotEnoughMemory` where the Gram matrices would not fit.
    """
    if batch_size < 1:
        raise InvalidOption(f"batch_size is {batch_size}; give a whole number from 1.")
    calibration.check_vocabulary(loaded.spec.vocab_size)
    if gram:
        _check_gram_fits(loaded)
    pass_ = _Pass(loaded, calibration, gram, progress)
    with torch.inference_mode(), on_inputs(pass_.functions()):
        for batch in calibration.batches(batch_size=batch_size):
            pass_.run(batch.input_ids, batch.mask)
    return ActivationStatistics(
        attention=tuple(sums.result() for sums in pass_.attention),
        mlp=tuple(sums.result() for sums in pass_.mlp),
        num_tokens=calibration.num_tokens,
        calibration=CalibrationRecord.of(calibration),
        fingerprint=loaded.fingerprint,
        dtype=str(loaded.dtype).removeprefix("torch."),
    )


def gram_bytes(spec: ModelSpec) -> int:
    """Bytes that the Gram matrices of all layers take in float64."""
    return 8 * sum(
        (layer.num_attention_heads * spec.head_dim) ** 2 + layer.intermediate_size**2 for layer in spec.layers
    )


def _check_gram_fits(loaded: LoadedModel) -> None:
    needed, free = gram_bytes(loaded.spec), free_bytes(loaded.device)
    if needed > free:
        raise NotEnoughMemory(
            f"The Gram matrices of this model need {needed / 1e9:.1f} GB and {free / 1e9:.1f} GB are free. Observe "
            "with gram=False and prune without least-squares repair."
        )


class _RunningMoments:
    """Float64 totals of one site, fed in cache-sized steps of the activations' own precision."""

    def __init__(self, num_channels: int, gram: bool, device: torch.device):
        self.totals = torch.zeros(2, num_channels, dtype=torch.float64, device=device)
        self.gram = torch.zeros(num_channels, num_channels, dtype=torch.float64, device=device) if gram else None

    def add(self, activations: torch.Tensor, weights: torch.Tensor) -> None:
        """`activations` [sample, seq, channel]; `weights` [sample · seq], 1 for real tokens, 0 for padding."""
        flat = activations.flatten(0, -2)  # [sample, seq, channel] -> [sample · seq, channel]
        precision = weights.dtype
        squares = torch.empty(min(_ROWS, len(flat)), flat.shape[1], dtype=precision, device=flat.device)
        values = torch.empty_like(squares)
        for rows, weight in zip(flat.split(_ROWS), weights.split(_ROWS), strict=True):
            part = rows if rows.dtype == precision else values[: len(rows)].copy_(rows)
            square = torch.mul(part, part, out=squares[: len(rows)])
            # a product with the weight vector sums over tokens at the speed of memory, padding left out
            self.totals[0] += part.T @ weight
            self.totals[1] += square.T @ weight
        if self.gram is not None:
            real = flat[weights.bool()].to(precision)
            self.gram += real.T @ real

    def result(self) -> Moments:
        totals = self.totals.cpu()
        return Moments(totals[0].clone(), totals[1].clone(), None if self.gram is None else self.gram.cpu())


class _Pass:
    """One observation in progress: the running sums, and how far it has come."""

    def __init__(self, loaded: LoadedModel, calibration: CalibrationSet, gram: bool, progress: Progress):
        self.loaded = loaded
        self.progress = progress
        self.total = calibration.num_tokens
        self.done = 0
        self.precision = torch.float64 if loaded.dtype == torch.float64 else torch.float32
        self.weights = torch.empty(0)
        spec, device = loaded.spec, loaded.device
        self.attention = [
            _RunningMoments(layer.num_attention_heads * spec.head_dim, gram, device) for layer in spec.layers
        ]
        self.mlp = [_RunningMoments(layer.intermediate_size, gram, device) for layer in spec.layers]

    def functions(self) -> list[tuple[torch.nn.Module, Callable[[torch.Tensor], None]]]:
        layout = self.loaded.layout
        pairs = []
        for index, layer in enumerate(self.loaded.decoder_layers):
            pairs.append((layer.get_submodule(layout.output), self._recorder(self.attention[index], index)))
            pairs.append((layer.get_submodule(layout.down), self._recorder(self.mlp[index], index)))
        return pairs

    def _recorder(self, sums: _RunningMoments, index: int) -> Callable[[torch.Tensor], None]:
        def record(activations: torch.Tensor) -> None:
            sums.add(activations, self.weights)
            self.progress(self.done + self.tokens * index // len(self.mlp), self.total, "tokens")

        return record

    def run(self, input_ids: torch.Tensor, mask: torch.Tensor) -> None:
        device = self.loaded.device
        self.tokens = int(mask.sum())
        self.weights = mask.to(device, self.precision).flatten()
        self.loaded.model.base_model(input_ids=input_ids.to(device), use_cache=False)
        self.done += self.tokens
        self._check_finite()
        self.progress(self.done, self.total, "tokens")

    def _check_finite(self) -> None:
        for index, pair in enumerate(zip(self.attention, self.mlp, strict=True)):
            for name, sums in zip(("attention", "MLP"), pair, strict=True):
                if not bool(sums.totals.isfinite().all()):
                    raise NonFiniteActivations(
                        f"Layer {index} produced NaN or infinite {name} activations in {self.loaded.dtype}. "
                        'The weights may be damaged; if not, load the model with dtype="float32".'
                    )
