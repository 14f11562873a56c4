"""From a name to a model in memory: pre-flight from the configuration alone, then the weights."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from transformers import (
    AutoModelForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from transact import per_layer, sources, stored_weights
from transact.devices import BALANCED, device_of, free_bytes, gpus, spreads
from transact.errors import CheckpointBroken, InvalidOption, NotEnoughMemory, choice
from transact.estimates import required_bytes, streamed_bytes
from transact.families import Family
from transact.hooks import checking
from transact.memory import ran_out_of_memory
from transact.narrow_attention import check_pairs
from transact.progress import NO_CHECK, NO_PROGRESS, Cancelled, Check, Progress, Repeating
from transact.quiet import no_progress_bars
from transact.source_config import spec_of, stock
from transact.spec import ModelSpec, digest
from transact.tokenizer_files import check_tokenizer, read_tokenizer, tokenizer_class

if TYPE_CHECKING:
    from transact.calibration import Batch
    from transact.plan import Cut

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float64": torch.float64,
}
_HALF = ("bfloat16", "float16")
_SMALL_MODEL_PARAMETERS = 50_000_000
"""Below this a forward pass on a CPU is bound by overhead, so half precision would only cost accuracy."""


@dataclass(frozen=True)
class Preflight:
    """What loading would need, known from the configuration alone.

    `dtype`: what `dtype="auto"` resolves to here; `weights_bytes`, `required_bytes` (weights and working
    memory) and `available_bytes` in bytes.
    """

    source: str
    revision: str | None
    spec: ModelSpec
    dtype: str
    weights_bytes: int
    required_bytes: int
    available_bytes: int

    @property
    def fits(self) -> bool:
        return self.required_bytes <= self.available_bytes

    @property
    def streamed_bytes(self) -> int:
        """About what going through its files layer by layer takes."""
        return streamed_bytes(self.spec, DTYPES[self.dtype])


@dataclass(frozen=True)
class LoadedModel:
    """A stock `transformers` causal language model with what is known of it.

    `tokenizer` is None for a checkpoint that has none; `stored_dtype` is the dtype of the files;
    `cuts` are the plans that were cut into it, each with its compensation, oldest first (empty for a dense
    model).

    `stored_exceptions`: by name, the tensors that the files hold in another dtype than `stored_dtype` (norms in
    float32 beside matrices in bfloat16, say), as the files hold them. Memory has one dtype, as stock modules compute in
    one; these are kept beside it, so that what nothing has changed is written as it was (`transact.file_tensors`).
    `tokenizer_class`: what the source's files call their tokenizer's class, None where they don't.
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

        Whether the output head is the embeddings again is seen from the two, whatever the configuration says.
        """
        spec = ModelSpec.from_config(model.config)
        stored_weights.check_model(model, spec)
        head, embeddings = (model.get_submodule(path).weight for path in (spec.layout.head, spec.layout.embeddings))
        spec = replace(spec, tie_word_embeddings=head is embeddings)
        loaded = cls(model.eval(), tokenizer, spec, source)
        odd = {name: each for name, each in model.state_dict().items() if each.dtype != loaded.dtype}
        stored_dtype = str(loaded.dtype).removeprefix("torch.")
        return replace(loaded, stored_dtype=stored_dtype, stored_exceptions=odd)

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

    def check_together(self, what: str) -> None:
        """Raise `InvalidOption` where the model is spread, for work that needs all of it on one device."""
        if self.is_spread:
            raise InvalidOption(
                f"{self.source} is spread over several GPUs, and {what} needs it on one. Load it with another device, "
                "or choose what a spread model can do: scoring, masks, measuring, and cutting with another repair."
            )

    @property
    def context_length(self) -> int:
        """The most tokens the model was made for."""
        return self.spec.max_position_embeddings

    @property
    def decoder_layers(self) -> torch.nn.ModuleList:
        return self.model.get_submodule(self.layout.layers)

    @property
    def stages(self) -> list[torch.nn.Module]:
        """What a forward pass goes through one after the other and can be stopped between: layers and output head."""
        return [*self.decoder_layers, self.model.get_output_embeddings()]

    @property
    def decoder(self) -> torch.nn.Module:
        """What owns the layers: token ids in, final hidden states out."""
        return self.model.get_submodule(self.layout.decoder)

    def final_hidden(
        self, batches: Sequence["Batch"], progress: Progress = NO_PROGRESS, check: Check = NO_CHECK
    ) -> Iterator[torch.Tensor]:
        """What the output head reads of each batch in turn: [sample, seq, hidden].

        `transact.output_head` makes predictions of it, while the iteration has not gone on. `progress` is told of work
        that comes before the first batch (here: none); `check` is called at every layer.
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
    def entrance(self, input_ids: torch.Tensor) -> Iterator[None]:
        """For this block, all that tokens meet before the first layer is there, for these ids (here: always)."""
        yield

    @property
    def fingerprint(self) -> str:
        """Digest of family and shapes, then, after a slash, of the weights' identity and the cuts so far.

        The revision (a commit, or a digest of local files) names the weights wherever they lie; models made
        in memory have only their source.
        """
        cuts = (f"{cut.plan.digest} {cut.compensation} {cut.trained}".strip() for cut in self.cuts)
        weights = [self.revision or self.source, *cuts]
        return f"{self.spec.fingerprint}/{digest(json.dumps(weights))}"


def preflight(
    source: str,
    *,
    dtype: str = "auto",
    device: str = "auto",
    revision: str | None = None,
    progress: Progress = NO_PROGRESS,
) -> Preflight:
    """What `load` would need, from config.json alone (a few kilobytes are fetched from the hub at most).

    Raises `ModelNotFound`, `ModelUnsupported`, `CheckpointBroken` or `InvalidOption`, each with its reason, and what
    `progress` raises while the hub is waited for.
    """
    choice(dtype, ("auto", *DTYPES), "dtype")
    return _preflight_on(device, sources.resolve(source, revision, progress), dtype)


def fetch(
    source: str, *, revision: str | None = None, untrusted: bool = False, progress: Progress = NO_PROGRESS
) -> str | None:
    """Bring a model's files here, so that `load` need not wait for a network; the commit, None for a local folder.

    `untrusted`: as for `load`, whose first trial of the tokenizer is made now. Raises `ModelNotFound`,
    `ModelUnsupported` or `CheckpointBroken`, and what `progress` raises.
    """
    found = sources.resolve(source, revision, progress)
    found = sources.download(found, spec_of(found).num_parameters, progress)
    if untrusted:
        check_tokenizer(found.directory, stock(found)[0], progress)
    return found.revision


def load(
    source: str,
    *,
    dtype: str = "auto",
    device: str = "auto",
    revision: str | None = None,
    untrusted: bool = False,
    progress: Progress = NO_PROGRESS,
) -> LoadedModel:
    """Load a hub id, a local folder or `"bundled"` as a stock `transformers` model in evaluation mode.

    `dtype="auto"` keeps float32 checkpoints in float32 and half-precision ones in their own dtype where the
    device computes it fast and the model is large enough to gain; otherwise float32.

    `device`: "auto" (a GPU where there is one), "cpu", "cuda", "cuda:1", ... or "balanced", which spreads the layers
    over all GPUs of this machine (by accelerate's `device_map`) and is as "auto" where there are fewer than two.

    `untrusted`: the model's tokenizer and chat template are a stranger's, and read text in processes of their own with
    limits on memory and time (`transact.enclosed`), which takes half a second each time.

    Everything that can be refused is refused before a weight is read: `ModelNotFound`, `ModelUnsupported`,
    `CheckpointBroken`, `NotEnoughMemory`, `InvalidOption`.
    """
    choice(dtype, ("auto", *DTYPES), "dtype")
    target: torch.device | str = BALANCED if spreads(device) else device_of(device)
    found = sources.resolve(source, revision, progress)
    card = _preflight_on(device, found, dtype)
    if target == BALANCED and found.config.get(per_layer.KEY):
        raise InvalidOption(f"The compact layers of {found.name} are not spread over GPUs. Choose one of them.")
    _check_fits(card)
    found = sources.download(found, card.spec.num_parameters, progress)
    files = sources.weight_files(found.directory)
    stored_dtype = sources.check_weights(files, card.spec)
    config, whole = stock(found)
    whole, spec = stored_weights.decided_by_files(config, files, whole, card.spec)
    card = with_files(card, spec, dtype, stored_dtype, device_of(device))
    _check_fits(card)
    tokenizer = read_tokenizer(found.directory, config, untrusted=untrusted, progress=progress)
    watch = Repeating(progress, card.weights_bytes, "bytes")
    try:
        if found.config.get(per_layer.KEY):
            model = per_layer.read(config, whole, spec, files, DTYPES[card.dtype], watch.check)
            model = model.to(target).eval()
        else:
            model = _read_weights(found.directory, config, DTYPES[card.dtype], target, watch.check)
    except Exception as error:  # whichever library asked for the memory words it in its own way
        if not ran_out_of_memory(error):
            raise
        raise NotEnoughMemory(
            f"Memory ran out while {found.name} was read, though {card.available_bytes / 1e9:.1f} GB seemed to be "
            "free. Choose a smaller model or a half-precision dtype."
        ) from error
    check_pairs(model)
    watch(card.weights_bytes, card.weights_bytes, "bytes")
    return LoadedModel(
        model=model,
        tokenizer=tokenizer,
        spec=spec,
        source=found.name,
        revision=found.revision or sources.content_digest(files, watch.check),
        stored_dtype=stored_dtype,
        stored_exceptions=stored_weights.exceptions(files, model, spec.layout, stored_dtype),
        tokenizer_class=tokenizer_class(found.directory, config),
    )


def _check_fits(card: Preflight) -> None:
    if not card.fits:
        raise NotEnoughMemory(
            f"{card.source} needs about {card.required_bytes / 1e9:.1f} GB in {card.dtype} and "
            f"{card.available_bytes / 1e9:.1f} GB are free. Choose a smaller model or a half-precision dtype, "
            "or go through its files layer by layer: ta.stream_observe and ta.stream_prune, --stream in the shell."
        )


def _preflight_on(device: str, found: sources.Source, dtype: str) -> Preflight:
    """As `preflight_of`; what is spread has the memory of all GPUs."""
    card = preflight_of(found, dtype, device_of(device))
    if not spreads(device):
        return card
    return replace(card, available_bytes=sum(free_bytes(torch.device(gpu)) for gpu in gpus()))


def preflight_of(found: sources.Source, dtype: str, device: torch.device) -> Preflight:
    """As `preflight`, for a source that was found."""
    spec = spec_of(found)
    stored = str(found.config.get("dtype") or found.config.get("torch_dtype") or "float32")
    if dtype == "auto":
        dtype = _fast_dtype(stored, spec, device)
    return Preflight(
        source=found.name,
        revision=found.revision,
        spec=spec,
        dtype=dtype,
        available_bytes=free_bytes(device),
        **_needs(spec, dtype),
    )


def with_files(card: Preflight, spec: ModelSpec, dtype: str, stored_dtype: str, device: torch.device) -> Preflight:
    """As the files have it, whatever config.json says."""
    if dtype == "auto":
        dtype = _fast_dtype(stored_dtype, spec, device)
    return replace(card, spec=spec, dtype=dtype, **_needs(spec, dtype))


def _needs(spec: ModelSpec, dtype: str) -> dict[str, int]:
    weights = spec.num_parameters * DTYPES[dtype].itemsize
    return {"weights_bytes": weights, "required_bytes": required_bytes(spec, DTYPES[dtype])}


def _fast_dtype(stored: str, spec: ModelSpec, device: torch.device) -> str:
    if stored not in _HALF:
        return "float32"
    if device.type != "cpu":
        return stored
    large = spec.num_parameters >= _SMALL_MODEL_PARAMETERS
    # float16 files stay exact in float32; bfloat16 would drop three bits of every weight
    return "bfloat16" if stored == "bfloat16" and large and _cpu_computes_bfloat16() else "float32"


def _cpu_computes_bfloat16() -> bool:
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") or capabilities.get("bf16"))


def _read_weights(
    directory: Path, config: PreTrainedConfig, dtype: torch.dtype, device: torch.device | str, check: Check
) -> PreTrainedModel:
    """`config` is the one that was checked: what config.json names beside it is not heeded."""
    spread = {"device_map": device} if device == BALANCED else {}
    if (directory / "adapter_config.json").exists():
        raise CheckpointBroken(
            f"{directory.name} holds an adapter (adapter_config.json), which names another model to load it into. "
            "Merge the adapter into its model first, and load that."
        )
    try:
        with no_progress_bars(lambda done, total: check()):
            model, found = AutoModelForCausalLM.from_pretrained(
                directory,
                config=config,
                dtype=dtype,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # refused below, in words of our own
                **spread,
            )
        model = (model if spread else model.to(device)).eval()
    except Cancelled:
        raise
    except Exception as error:  # configuration, weights and allocator raise whatever they raise
        if ran_out_of_memory(error):
            raise
        reason = " ".join(str(error).split())
        raise CheckpointBroken(f"The weights in {directory.name} could not be loaded: {reason}") from error
    for name, *shapes in sorted(found["mismatched_keys"]):
        stored_weights.check_shape(name, *map(tuple, shapes))
    surplus = [name for name in found["unexpected_keys"] if not sources.is_constant(name)]
    stored_weights.check_complete(found["missing_keys"], surplus)
    return model
