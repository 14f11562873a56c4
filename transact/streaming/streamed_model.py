"""A model whose weights stay in their files: stock modules without memory, filled while they are used."""

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields

import torch

from transact.errors import InvalidOption, ModelUnsupported, NotEnoughMemory
from transact.models import narrowed_model, sources
from transact.models.loaded_model import DTYPES, Batch, LoadedModel
from transact.models.loading import LoadOptions, opened
from transact.models.preflight import Preflight
from transact.models.sources import Source
from transact.models.stored_weights import check_complete, check_shape
from transact.observing.layer_stream import final_hidden, stream
from transact.progress import NO_CHECK, NO_PROGRESS, Check, Progress, Repeating
from transact.runtime.devices import device_of, free_bytes
from transact.runtime.memory import return_large_blocks
from transact.spec.memory_estimates import held_while_streamed
from transact.streaming.tensor_reader import TensorFiles


@dataclass(frozen=True, kw_only=True)
class StreamedModel(LoadedModel):
    """A `LoadedModel` that holds a decoder layer's weights while it is worked on, and no others.

    Functions that work layer by layer take it: `stream_observe`, `score`, `stability`, `stream_prune`, and `perplexity`
    and `evaluate` (inside `masked` too), for which all text passes one layer after the other. Running the model as a
    whole (`observe`, `generate`, ...) is refused. For one thread at a time.
    """

    files: TensorFiles
    computes_on: torch.device

    @property
    def device(self) -> torch.device:
        return self.computes_on

    @property
    def held_bytes(self) -> int:
        """What the weights take in memory while a layer is in use."""
        return held_while_streamed(self.spec, self.dtype)

    @property
    def is_streamed(self) -> bool:
        return True

    def device_of_layer(self, index: int) -> torch.device:
        return self.computes_on

    @property
    def is_spread(self) -> bool:
        return False

    @property
    def outline(self) -> LoadedModel:
        """The same as a model in memory with shapes but no values (torch's meta device)."""
        return LoadedModel(**{field.name: getattr(self, field.name) for field in fields(LoadedModel)})

    @contextmanager
    def layer(self, index: int, check: Check = NO_CHECK) -> Iterator[torch.nn.Module]:
        with self.layer_as(index, self.dtype, check) as layer:
            yield layer

    @contextmanager
    def layer_as(self, index: int, dtype: torch.dtype, check: Check = NO_CHECK) -> Iterator[torch.nn.Module]:
        """As `layer`, in a given dtype; a layer that an enclosing block has loaded stays as it is."""
        layer, prefix = self.decoder_layers[index], f"{self.layout.layers}.{index}."
        empty = dict(layer.named_parameters())
        if not any(parameter.is_meta for parameter in empty.values()):  # loaded by an enclosing block
            yield layer
            return
        # not strict: buffers, which stay filled, are no parameters
        filled = {name: self._read(prefix + name, dtype, check) for name in empty}
        layer.load_state_dict(filled, strict=False, assign=True)
        try:
            yield layer
        finally:
            layer.load_state_dict(empty, strict=False, assign=True)

    @contextmanager
    def embeddings_loaded(self, input_ids: torch.Tensor) -> Iterator[None]:
        path, decoder = self.layout.decoder, self.decoder
        inside = f"{self.layout.layers.removeprefix(f'{path}.')}."
        empty = {name: each for name, each in decoder.named_parameters() if not name.startswith(inside)}
        filled = {}
        for name in empty:
            full = f"{path}.{name}"
            if full == f"{self.layout.embeddings}.weight":
                filled[name] = self.files.rows(full, input_ids.unique(), self.dtype).to(self.computes_on)
            else:
                filled[name] = self._read(full, self.dtype)
        decoder.load_state_dict(filled, strict=False, assign=True)
        try:
            yield
        finally:
            decoder.load_state_dict(empty, strict=False, assign=True)

    def final_hidden(
        self, batches: Sequence[Batch], progress: Progress = NO_PROGRESS, check: Check = NO_CHECK
    ) -> Generator[torch.Tensor]:
        """As for a model in memory, after all batches have passed one layer after the other; each is read once.

        Progress is in layers, and `check` is called while weights are read. Raises `NotEnoughMemory` where the hidden
        states would not fit.
        """
        self.check_hidden(sum(batch.input_ids.numel() for batch in batches))
        ids = torch.cat([batch.input_ids.flatten() for batch in batches])
        with self.embeddings_loaded(ids):
            streams = [stream(self, batch) for batch in batches]
        count = self.spec.num_hidden_layers
        for index in range(count):
            with self.layer(index, check) as layer:
                for each in streams:
                    progress(index, count, "layers")
                    each.hidden = each.run(layer, index)
        progress(count, count, "layers")
        with self.embeddings_loaded(ids), self._head(check):
            for batch, each in zip(batches, streams, strict=True):
                yield final_hidden(self, batch.input_ids.to(self.computes_on), each.hidden)

    def check_hidden(self, positions: int) -> None:
        """Raise `NotEnoughMemory` unless the hidden states of `positions` positions fit."""
        needed, free = positions * self.spec.hidden_size * self.dtype.itemsize, free_bytes(self.device)
        if needed > free:
            raise NotEnoughMemory(
                f"The hidden states of {positions:,} positions need {needed / 1e9:.1f} GB and {free / 1e9:.1f} GB are "
                "free. Give fewer or shorter samples."
            )

    @contextmanager
    def _head(self, check: Check) -> Iterator[None]:
        """Within this block, everything after the decoder is loaded."""
        base = f"{self.layout.layers.partition('.')[0]}."
        empty = {name: each for name, each in self.model.named_parameters(remove_duplicate=False)
                 if not name.startswith(base)}  # fmt: skip
        # a head that is tied to the embeddings has no name of its own in the files
        table = f"{self.layout.embeddings}.weight"
        stored = {name: table if self.files.find(name) is None else name for name in empty}
        filled = {name: self._read(stored[name], self.dtype, check) for name in empty}
        self.model.load_state_dict(filled, strict=False, assign=True)
        try:
            yield
        finally:
            self.model.load_state_dict(empty, strict=False, assign=True)

    def _read(self, name: str, dtype: torch.dtype, check: Check = NO_CHECK) -> torch.Tensor:
        return self.files.read(name, dtype, check).to(self.computes_on)


def streamed(source: str | StreamedModel, device: str, revision: str | None) -> StreamedModel:
    """The source itself, or the model that it names."""
    if isinstance(source, StreamedModel):
        return source
    if isinstance(source, LoadedModel):
        raise InvalidOption(
            f"{source.source} is in memory already. Use ta.observe and ta.prune, or give its name or ta.load_streamed."
        )
    return load_streamed(source, device=device, revision=revision)


def load_streamed(
    source: str,
    *,
    dtype: str = "auto",
    device: str = "auto",
    revision: str | None = None,
    untrusted: bool = False,
    progress: Progress = NO_PROGRESS,
) -> StreamedModel:
    """A hub id, a local folder or `"bundled"` as a model whose weights are read layer by layer as they are needed.

    Takes what `load` takes and refuses what `load` refuses, but `NotEnoughMemory` is raised only where one layer and
    what is computed with it would not fit. `dtype` is what layers are computed in, `untrusted` as for `load`.
    """
    target = device_of(device)
    return_large_blocks()
    source_files = opened(source, LoadOptions(dtype, str(target), revision, untrusted), _refuse, progress)
    resolved, spec, files = source_files.resolved, source_files.spec, source_files.files
    watch = Repeating(progress, sum(file.stat().st_size for file in files), "bytes")
    computed_in = DTYPES[source_files.card.dtype]
    model = narrowed_model.empty_model(
        source_files.config, source_files.whole, spec, computed_in, resolved.folder
    ).eval()
    model.tie_weights()
    model.requires_grad_(False)
    tensors = TensorFiles(files, spec.layout)
    _check_complete(model, tensors)
    _read_buffers(model, tensors)
    _place_buffers(model, target)
    model.get_submodule(spec.layout.embeddings).register_forward_pre_hook(_refuse_unless_open)
    return StreamedModel(model=model, files=tensors, computes_on=target, **source_files.fields(watch.check))


def _refuse(source: Source, card: Preflight) -> None:
    """Raise for a model that cannot be run layer by layer."""
    if card.spec.has_narrow_heads:
        raise ModelUnsupported(
            f"{source.name} has heads that lost dimensions, which are not streamed. Load it where it fits into memory."
        )
    if card.streamed_bytes > card.available_bytes:
        raise NotEnoughMemory(
            f"{source.name} needs about {card.streamed_bytes / 1e9:.1f} GB in {card.dtype} even layer by layer and "
            f"{card.available_bytes / 1e9:.1f} GB are free. Choose a smaller model or a half-precision dtype."
        )


def _check_complete(model: torch.nn.Module, files: TensorFiles) -> None:
    """Raise `CheckpointBroken` unless the files hold what the stock class calls for, and nothing else."""
    state = model.state_dict()
    for name, tensor in state.items():
        if files.find(name) is not None:
            check_shape(name, files.shape(name), tuple(tensor.shape))
    lacking = [name for name, _ in model.named_parameters() if files.find(name) is None]
    held = {files.find(name) for name in state}
    check_complete(lacking, [name for name in files.names() if name not in held and not sources.is_constant(name)])


def _read_buffers(model: torch.nn.Module, files: TensorFiles) -> None:
    """Fill the few buffers that files hold, such as the constants of an activation function."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for name, buffer in model.state_dict().items():
        if name not in parameters and files.find(name) is not None:
            buffer.copy_(files.read(name, buffer.dtype))


def _place_buffers(model: torch.nn.Module, device: torch.device) -> None:
    for module in model.modules():
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = buffer.to(device)


def _refuse_unless_open(embeddings: torch.nn.Module, inputs: tuple) -> None:
    """Called before the embeddings: raises a message of ours where torch would fail on weights that are not loaded."""
    if not embeddings.weight.is_meta:
        return
    raise InvalidOption(
        "This model is streamed: its weights are in their files, so that it cannot be run as a whole. Use "
        "ta.stream_observe, ta.stream_prune and ta.evaluate, or ta.load where it fits into memory."
    )
