"""A model in memory with what is known of it, and a batch of token ids as it takes them."""

import json
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from transact.errors import InvalidOption
from transact.layers.hooks import checking
from transact.models import stored_weights
from transact.models.tasks_by_placement import SPREAD, STREAMED, TOGETHER, Task, refusal
from transact.progress import NO_CHECK, NO_PROGRESS, Check, Progress
from transact.runtime.devices import device_of
from transact.spec.digest import digest
from transact.spec.family import Family
from transact.spec.model_spec import ModelSpec

if TYPE_CHECKING:
    from transact.spec.plan import Cut


@dataclass(frozen=True)
class Batch:
    """`input_ids` int64 [sample, seq], right-padded; `mask` bool [sample, seq], True = real token."""

    input_ids: torch.Tensor
    mask: torch.Tensor
    indices: tuple[int, ...]

    @property
    def predicting(self) -> torch.Tensor:
        """The positions that predict a real token: bool [sample, seq]."""
        rows = torch.zeros_like(self.mask)
        rows[:, :-1] = self.mask[:, 1:]
        return rows


DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float64": torch.float64,
}


@dataclass(frozen=True)
class LoadedModel:
    """A stock `transformers` causal language model with what is known of it.

    `tokenizer` is None for a checkpoint that has none; `stored_dtype` is the dtype of the files;
    `cuts` are the plans that were cut into it, each with its compensation, oldest first (empty for a dense
    model).

    `stored_exceptions`: by name, the tensors that the files hold in another dtype than `stored_dtype` (norms in
    float32 beside matrices in bfloat16, say), as the files hold them. Memory has one dtype, as stock modules compute in
    one; these are kept beside it, so that what nothing has changed is written as it was
    (`transact.export.file_tensors`). `tokenizer_class`: what the source's files call their tokenizer's class, None
    where they don't.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase | None
    spec: ModelSpec
    source: str
    revision: str | None = None
    stored_dtype: str = "float32"
    cuts: tuple["Cut", ...] = ()
    stored_exceptions: Mapping[str, torch.Tensor] = field(default_factory=dict, compare=False, repr=False)
    tokenizer_class: str | None = None

    @classmethod
    def from_model(
        cls, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None = None, *, source: str = "memory"
    ) -> "LoadedModel":
        """Wrap a model that is in memory already; raises `ModelUnsupported` if it cannot be pruned.

        Whether the output head is tied to the embeddings is read from the modules, not from the configuration.
        """
        spec = ModelSpec.from_config(model.config)
        stored_weights.check_model(model, spec)
        head, embeddings = (model.get_submodule(path).weight for path in (spec.layout.head, spec.layout.embeddings))
        spec = replace(spec, tie_word_embeddings=head is embeddings)
        loaded = cls(model.eval(), tokenizer, spec, source)
        exceptions = {name: each for name, each in model.state_dict().items() if each.dtype != loaded.dtype}
        stored_dtype = str(loaded.dtype).removeprefix("torch.")
        return replace(loaded, stored_dtype=stored_dtype, stored_exceptions=exceptions)

    @property
    def held_bytes(self) -> int:
        """What the weights take in memory."""
        return self.spec.num_parameters * self.dtype.itemsize

    @property
    def is_streamed(self) -> bool:
        """Whether weights stay in their files, see `transact.streaming`: then the model cannot be run as a whole."""
        return False

    @property
    def layout(self) -> Family:
        return self.spec.layout

    @property
    def dtype(self) -> torch.dtype:
        return next(self.model.parameters()).dtype

    @property
    def file_dtype(self) -> str:
        """The dtype a checkpoint needs to lose nothing: that of the base's files, or of memory if narrower."""
        in_memory = str(self.dtype).removeprefix("torch.")
        return in_memory if self.dtype.itemsize < DTYPES[self.stored_dtype].itemsize else self.stored_dtype

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def on(self, device: str) -> "LoadedModel":
        """The same model on another device (`"auto"`, `"cpu"`, `"cuda"`, …): its weights are moved, not copied."""
        return replace(self, model=self.model.to(device_of(device)))

    def device_of_layer(self, index: int) -> torch.device:
        """Where a decoder layer computes; all at `device` unless the model is spread."""
        return self.decoder_layers[index].get_submodule(self.layout.output).weight.device

    @property
    def is_spread(self) -> bool:
        """Whether its layers are on several devices, see `load`."""
        return len({parameter.device for parameter in self.model.parameters()}) > 1

    @property
    def placement(self) -> str:
        """Where its weights are, as `transact.models.tasks_by_placement` names it."""
        return STREAMED if self.is_streamed else SPREAD if self.is_spread else TOGETHER

    def can(self, task: Task) -> bool:
        """Whether a model with its weights there can do that."""
        return refusal(self.placement, task, self.source) is None

    def check_can(self, task: Task) -> None:
        """Raise `InvalidOption`, with the reason and what to do, where it cannot."""
        reason = refusal(self.placement, task, self.source)
        if reason is not None:
            raise InvalidOption(reason)

    @property
    def context_length(self) -> int:
        """The most tokens the model was made for."""
        return self.spec.max_position_embeddings

    @property
    def decoder_layers(self) -> torch.nn.ModuleList:
        return self.model.get_submodule(self.layout.layers)

    @property
    def stages(self) -> list[torch.nn.Module]:
        """The modules that a forward pass runs in turn and can be cancelled between: layers and output head."""
        return [*self.decoder_layers, self.model.get_output_embeddings()]

    @property
    def decoder(self) -> torch.nn.Module:
        """What owns the layers: token ids in, final hidden states out."""
        return self.model.get_submodule(self.layout.decoder)

    def final_hidden(
        self, batches: Sequence["Batch"], progress: Progress = NO_PROGRESS, check: Check = NO_CHECK
    ) -> Generator[torch.Tensor]:
        """What the output head reads of each batch in turn: [sample, seq, hidden].

        `transact.models.chunked_logits` makes predictions of it before the iteration continues. `progress` is called
        for work before the first batch (here: none); `check` is called at every layer.
        """
        for batch in batches:
            with checking(self.stages, check):
                output = self.decoder(input_ids=batch.input_ids.to(self.device), use_cache=False)
            yield output.last_hidden_state

    @contextmanager
    def layer(self, index: int, check: Check = NO_CHECK) -> Iterator[torch.nn.Module]:
        """A decoder layer with its weights, which stay there as long as the block lasts (here: always).

        `check` is called while they are read (here: never).
        """
        yield self.decoder_layers[index]

    @contextmanager
    def embeddings_loaded(self, input_ids: torch.Tensor) -> Iterator[None]:
        """Within this block, everything before the first layer is loaded for these ids (here: always)."""
        yield

    @property
    def fingerprint(self) -> str:
        """Digest of family and shapes, then, after a slash, of the weights' identity and the cuts so far.

        The revision (a commit, or a digest of local files) names the weights wherever they are; models made
        in memory have only their source.
        """
        cuts = (f"{cut.plan.digest} {cut.compensation} {cut.trained}".strip() for cut in self.cuts)
        weights = [self.revision or self.source, *cuts]
        return f"{self.spec.fingerprint}/{digest(json.dumps(weights))}"
