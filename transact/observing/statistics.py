"""What one pass over the calibration text leaves: sums, and the tokens at which each unit was strongest.

Every metric follows from the sums and the weights, so switching metrics needs no second pass; with the sums
of every sample kept, so do the statistics of any other choice of samples.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from transact.errors import CheckpointBroken, InvalidOption, SaveRefused, is_whole_number
from transact.spec.digest import digest
from transact.text.calibration import CalibrationSet
from transact.text.tokens import TokenSet, amount_read


@dataclass(frozen=True, eq=False)
class Moments:
    """Σ x and Σ x² of one site over the real tokens, float64 [channel].

    `gram` = X^T X, float64 [channel, channel]; `sample_sums` and `sample_square_sums`: the same two sums of
    every sample, float32 [sample, channel], in the order of the calibration set; `taylor`: |weight · gradient|
    summed over the weights that go with a channel, float64 [channel] (see `transact.observing.taylor`). All four are
    None unless asked for.
    """

    sums: torch.Tensor
    square_sums: torch.Tensor
    gram: torch.Tensor | None = None
    sample_sums: torch.Tensor | None = None
    sample_square_sums: torch.Tensor | None = None
    taylor: torch.Tensor | None = None

    def norms(self) -> torch.Tensor:
        """sqrt(Σ_tokens x²), float64 [channel]."""
        return self.square_sums.sqrt()

    def variances(self, num_tokens: int | torch.Tensor) -> torch.Tensor:
        """Var_tokens(x), unbiased, float64 [channel].

        Sums of several token sets at once, [set, channel], go with `num_tokens` [set, 1].
        """
        centred = self.square_sums - self.sums.square() / num_tokens
        return centred.clamp_min(0) / torch.as_tensor(num_tokens - 1).clamp_min(1)

    def drawn(self, times: torch.Tensor) -> "Moments":
        """Sums over samples, each counted as often as `times` says; no forward pass.

        `times` float64 [sample] gives sums [channel]; [set, sample] gives those of several sets, [set, channel].
        """
        sums, square_sums = self._of_each_sample()
        return Moments(times @ sums.double(), times @ square_sums.double())

    def of_samples(self, indices: list[int]) -> "Moments":
        """The moments of these samples alone, a repeated one counting as often as it occurs."""
        kept, kept_squares = (sums[indices] for sums in self._of_each_sample())
        return Moments(
            sums=kept.sum(dim=0, dtype=torch.float64),
            square_sums=kept_squares.sum(dim=0, dtype=torch.float64),
            sample_sums=kept,
            sample_square_sums=kept_squares,
        )

    def _of_each_sample(self) -> tuple[torch.Tensor, torch.Tensor]:
        assert self.sample_sums is not None and self.sample_square_sums is not None, "observed without samples=True"
        return self.sample_sums, self.sample_square_sums


@dataclass(frozen=True, eq=False)
class Cosines:
    """Σ over the real tokens of the cosine between the residual stream before a layer and after it, float64 [].

    `samples`: the same sum of every sample, float32 [sample], None unless asked for.
    """

    total: torch.Tensor
    samples: torch.Tensor | None = None

    def of_samples(self, indices: list[int]) -> "Cosines":
        """The sum of these samples alone, a repeated one counting as often as it occurs."""
        assert self.samples is not None, "observed without samples=True"
        kept = self.samples[indices]
        return Cosines(kept.sum(dtype=torch.float64), kept)


@dataclass(frozen=True, eq=False)
class Peaks:
    """The calibration samples in which each unit of a layer was strongest, strongest first; one token of each.

    `activations` float32 [unit, k]: the norm of a head's transitional activation, or a channel's activation
    with its sign (it is chosen by its size). `samples` int64 [unit, k] counts in the order of the calibration
    set, `positions` int64 [unit, k] in tokens from the sample's first. On a tie the earlier sample stands first;
    within a sample the positive activation counts, then the earlier token.
    """

    activations: torch.Tensor
    samples: torch.Tensor
    positions: torch.Tensor


@dataclass(frozen=True, eq=False)
class CalibrationRecord:
    """What a calibration set was, without its tokens; the fields are those of the set."""

    name: str
    fingerprint: str
    num_samples: int
    num_tokens: int
    seq_len: int
    seed: int | None
    protocol: str
    available_tokens: int | None = None
    requested_samples: int | None = None

    @classmethod
    def of(cls, calibration: TokenSet) -> "CalibrationRecord":
        return cls(
            name=calibration.name,
            fingerprint=calibration.fingerprint,
            num_samples=calibration.num_samples,
            num_tokens=calibration.num_tokens,
            seq_len=calibration.input_ids.shape[1],
            seed=calibration.seed,
            protocol=calibration.protocol,
            available_tokens=calibration.available_tokens,
            requested_samples=calibration.requested_samples,
        )

    @property
    def amount(self) -> str:
        """For messages: how much was read, and of how much where some of the text was left out."""
        return amount_read(self.num_samples, self.num_tokens, self.available_tokens)


@dataclass(frozen=True, eq=False)
class ActivationStatistics:
    """Moments of both transitional activations in every layer.

    `attention[layer]`: inputs of `o_proj`, channels ordered [head · value_dim]; `mlp[layer]`: inputs of
    `down_proj`; `queries[layer]` [head · query_key_dim] and `keys[layer]` [group · query_key_dim]: outputs of `q_proj`
    and `k_proj`, both empty unless observed with `queries=True`. `residual[layer]`: how far the layer turns the
    residual stream; empty in files of 1.0. `fingerprint`: the model they belong to; `dtype`: what the forward pass
    computed in.

    `sample_tokens`: real tokens of each sample, empty unless observed with `samples=True`. `head_peaks[layer]`
    and `channel_peaks[layer]`: where each unit was strongest, empty unless observed with `top_k`.

    `tokens`: the calibration set itself (8 bytes a token), so that `search_plan` and the best repair can run the
    model on it again. It is never saved: statistics that were read from a file have None.

    `gram_by_layer`: least-squares repair is to gather the Gram matrices from the tokens itself, a layer at a time.
    """

    attention: tuple[Moments, ...]
    mlp: tuple[Moments, ...]
    num_tokens: int
    calibration: CalibrationRecord
    fingerprint: str
    dtype: str
    sample_tokens: tuple[int, ...] = ()
    head_peaks: tuple[Peaks, ...] = ()
    channel_peaks: tuple[Peaks, ...] = ()
    queries: tuple[Moments, ...] = ()
    keys: tuple[Moments, ...] = ()
    residual: tuple[Cosines, ...] = ()
    tokens: CalibrationSet | None = None
    gram_by_layer: bool = False

    def check_samples(self) -> None:
        """Raise `InvalidOption` unless the sums of every sample are there."""
        if not self.sample_tokens:
            raise InvalidOption(
                "These statistics hold the sums over all samples alone. Observe with samples=True to ask about some "
                "of them."
            )

    def subset(self, indices: Sequence[int]) -> "ActivationStatistics":
        """The statistics of some of the samples, without a forward pass.

        `indices` count in the order of the calibration set; one that is repeated counts as often as it is
        given (a bootstrap). All samples once give the totals within the accuracy of float32. Gram matrices,
        gradients and peaks belong to the whole set and are left out. Raises `InvalidOption` for statistics that
        were not observed with `samples=True`, for no index and for one that there is not.
        """
        self.check_samples()
        available = len(self.sample_tokens)
        chosen = [int(index) for index in indices if is_whole_number(index) and 0 <= index < available]
        if not chosen or len(chosen) != len(indices):
            raise InvalidOption(
                f"The samples {str(list(indices))[:80]} were asked for; give at least one, as whole numbers from 0 to "
                f"{available - 1}."
            )
        tokens = tuple(self.sample_tokens[index] for index in chosen)
        return replace(
            self,
            attention=tuple(moments.of_samples(chosen) for moments in self.attention),
            mlp=tuple(moments.of_samples(chosen) for moments in self.mlp),
            queries=tuple(moments.of_samples(chosen) for moments in self.queries),
            keys=tuple(moments.of_samples(chosen) for moments in self.keys),
            residual=tuple(cosines.of_samples(chosen) for cosines in self.residual),
            num_tokens=sum(tokens),
            calibration=self._record(chosen, tokens),
            sample_tokens=tokens,
            head_peaks=(),
            channel_peaks=(),
            tokens=self._tokens(chosen),
        )

    def _tokens(self, chosen: list[int]) -> CalibrationSet | None:
        if self.tokens is None:
            return None
        rows = list(self.tokens.rows())
        return CalibrationSet.from_sequences([rows[index] for index in chosen], name=self.tokens.name)

    def _record(self, chosen: list[int], tokens: tuple[int, ...]) -> CalibrationRecord:
        whole = self.calibration
        if chosen == list(range(len(self.sample_tokens))):
            return whole
        share = f"{len(chosen)} of {whole.num_samples} samples"
        return replace(
            whole,
            name=f"{whole.name}, {share}",
            fingerprint=digest(f"{whole.fingerprint} {chosen}"),
            num_samples=len(chosen),
            num_tokens=sum(tokens),
            seq_len=max(tokens),
            protocol=f"{whole.protocol}; {share}",
        )

    def save(self, path: str | Path) -> None:
        """Write one safetensors file; raises `SaveRefused` if the disk refuses."""
        tensors = {
            f"{site}.{index}.{name}": tensor
            for site in _SITES
            for index, value in enumerate(getattr(self, site))
            for name, tensor in vars(value).items()
            if tensor is not None
        }
        values = {
            "num_layers": len(self.mlp),
            "num_tokens": self.num_tokens,
            "calibration": vars(self.calibration),
            "fingerprint": self.fingerprint,
            "dtype": self.dtype,
            "sample_tokens": self.sample_tokens,
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
                sites: dict[str, Any] = {site: _read(file, site, values["num_layers"]) for site in _SITES}
            return cls(
                **sites,
                num_tokens=values["num_tokens"],
                calibration=CalibrationRecord(**values["calibration"]),
                fingerprint=values["fingerprint"],
                dtype=values["dtype"],
                sample_tokens=tuple(values.get("sample_tokens", ())),
            )
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise CheckpointBroken(f"{path} holds no activation statistics ({error}). Score again.") from None


_SITES = {
    "attention": Moments,
    "mlp": Moments,
    "queries": Moments,
    "keys": Moments,
    "residual": Cosines,
    "head_peaks": Peaks,
    "channel_peaks": Peaks,
}
"""The fields of `ActivationStatistics` that hold tensors, one value a layer."""
_ALWAYS = ("attention", "mlp")


def _read(file: safe_open, site: str, num_layers: int) -> tuple:
    """What the file holds of one site, layer by layer; a site outside `_ALWAYS` may be missing."""
    kind, present = _SITES[site], set(file.keys())
    layers = [
        {field.name: key for field in fields(kind) if (key := f"{site}.{index}.{field.name}") in present}
        for index in range(num_layers)
    ]
    if site not in _ALWAYS and not any(layers):
        return ()
    return tuple(kind(**{name: file.get_tensor(key) for name, key in names.items()}) for names in layers)
