"""Gram matrices of one layer at a time, for models whose matrices do not fit in memory together.

The text is run through the dense model layer by layer. Only the residual stream before the current layer and that
layer's two matrices are held, so that memory depends on the widest layer and not on the number of layers.
"""

from functools import partial

import torch

from transact.errors import NonFiniteActivations, NotEnoughMemory
from transact.layers.hooks import on_inputs
from transact.layers.slicing import reading_role
from transact.layers.weights import matrix
from transact.models.loaded_model import LoadedModel
from transact.observing.layer_stream import streams
from transact.observing.observe import most_tokens
from transact.progress import NO_PROGRESS, Progress, Repeating
from transact.runtime.blockwise_algebra import add_gram
from transact.runtime.devices import free_bytes
from transact.spec.model_spec import SITES, ModelSpec
from transact.text.calibration import CalibrationSet

_BATCH = 8


def layerwise_bytes(spec: ModelSpec, num_positions: int, bytes_per_element: int = 4) -> int:
    """About what `GramPass` holds at its peak, and the solution of the widest projection with it.

    `num_positions`: tokens of the calibration text, padding included.
    """
    sizes = [(spec.attention_width(layer), layer.intermediate_size) for layer in spec.layers]
    widest = max(map(max, sizes))
    streamed = num_positions * (2 * spec.hidden_size + widest) * bytes_per_element
    # the matrices of both sites, and of the widest its kept part, its factor and both sides of the equations
    return streamed + 8 * (max(a**2 + m**2 for a, m in sizes) + 2 * widest**2 + 3 * spec.hidden_size * widest)


class GramPass:
    """X^T X of both transitional activations, float64 [channel, channel]; ask for layers in rising order.

    Raises `NotEnoughMemory` at the start, `NonFiniteActivations` later. Progress is in layers.
    """

    def __init__(self, loaded: LoadedModel, calibration: CalibrationSet, progress: Progress = NO_PROGRESS):
        positions = calibration.input_ids.numel()
        needed = layerwise_bytes(loaded.spec, positions, loaded.dtype.itemsize)
        free = free_bytes(loaded.device)
        if needed > free:
            raise NotEnoughMemory(
                f"The Gram matrices of this model's widest layer and {positions:,} tokens on their way need about "
                f"{needed / 1e9:.1f} GB and {free / 1e9:.1f} GB are free. Give fewer or shorter samples, or prune "
                "without least-squares repair."
            )
        self._loaded = loaded
        self._watch = Repeating(progress, loaded.spec.num_hidden_layers, "layers")
        self._layer = -1
        self._grams: dict[str, torch.Tensor] = {}
        with torch.no_grad():
            self._streams = streams(loaded, calibration, _BATCH, most_tokens(loaded))

    @property
    def hidden(self) -> list[torch.Tensor]:
        """The residual stream of every batch before the next layer."""
        return [stream.hidden for stream in self._streams]

    def resume(self, layer: int, hidden: list[torch.Tensor]) -> None:
        """Continue before that layer, with `hidden` as it was there."""
        self._layer = layer - 1
        for stream, each in zip(self._streams, hidden, strict=True):
            stream.hidden = each.to(self._loaded.device)

    def gram(self, site: str, layer: int) -> torch.Tensor:
        """The matrix of the site in the layer, on the layer's device; each is returned once and released here."""
        while self._layer < layer:
            self._layer += 1
            self._grams = self._next_grams()
        return self._grams.pop(site)

    @torch.no_grad()
    def _next_grams(self) -> dict[str, torch.Tensor]:
        loaded, index = self._loaded, self._layer
        self._watch(index, loaded.spec.num_hidden_layers, "layers")
        self._grams = {}  # the previous layer's are released before this one's are made
        with loaded.layer(index, self._watch.check) as layer:
            return self._grams_of(layer, index)

    def _grams_of(self, layer: torch.nn.Module, index: int) -> dict[str, torch.Tensor]:
        loaded, grams, functions = self._loaded, {}, []
        for site in SITES:
            projection = layer.get_submodule(reading_role(loaded.spec, site))
            width = matrix(projection).shape[1]
            grams[site] = torch.zeros(width, width, dtype=torch.float64, device=matrix(projection).device)
            functions.append((projection, partial(self._add, grams[site])))
        with on_inputs(functions):
            for stream in self._streams:
                self._watch.check()
                self._stream = stream
                stream.hidden = stream.run(layer, index)
        if not all(bool(gram.diagonal().isfinite().all()) for gram in grams.values()):
            raise NonFiniteActivations(
                f"Layer {index} produced NaN or infinite activations in {loaded.dtype}. The weights may be damaged; "
                'if not, load the model with dtype="float32".'
            )
        return grams

    def _add(self, gram: torch.Tensor, activations: torch.Tensor) -> None:
        add_gram(gram, self._stream.counted(activations), self._watch.check)
