"""From a name to a model in memory; whatever can be refused is refused before a weight is read."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from transact.errors import CheckpointBroken, InvalidOption, NotEnoughMemory, choice
from transact.layers import per_layer_config
from transact.layers.narrow_attention import check_pairs
from transact.models import narrowed_model, sources, stored_weights
from transact.models.loaded_model import DTYPES, LoadedModel
from transact.models.preflight import Preflight, preflight_on, with_files
from transact.models.source_config import spec_of, stock
from transact.models.tokenizer_files import check_tokenizer, read_tokenizer, tokenizer_class
from transact.progress import NO_PROGRESS, Cancelled, Check, Progress, Repeating
from transact.runtime.devices import BALANCED, device_of, spreads
from transact.runtime.memory import ran_out_of_memory
from transact.runtime.transformers_logging import no_progress_bars
from transact.spec.model_spec import ModelSpec


@dataclass(frozen=True)
class OpenedSource:
    """A model's files, downloaded and checked, with what is known from them before a weight is read.

    `whole`: the spec of the stock class that is built; `spec`: what is left of it, where layers were narrowed.
    `card`: as `preflight`, of what the files hold.
    """

    resolved: sources.Source
    card: Preflight
    files: tuple[Path, ...]
    config: PreTrainedConfig
    whole: ModelSpec
    spec: ModelSpec
    stored_dtype: str
    tokenizer: PreTrainedTokenizerBase | None

    def fields(self, check: Check) -> dict[str, Any]:
        """The fields of the `LoadedModel` that do not depend on where its weights are."""
        return {
            "tokenizer": self.tokenizer,
            "spec": self.spec,
            "source": self.resolved.name,
            "revision": self.resolved.revision or sources.content_digest(self.files, check),
            "stored_dtype": self.stored_dtype,
            "tokenizer_class": tokenizer_class(self.resolved.folder, self.config),
        }


@dataclass(frozen=True)
class LoadOptions:
    """Options of `load`."""

    dtype: str
    device: str
    revision: str | None
    untrusted: bool


def opened(
    source: str, options: LoadOptions, refuse: Callable[[sources.Source, Preflight], None], progress: Progress
) -> OpenedSource:
    """Download a model's files and check them.

    `refuse` raises for a model that does not fit: it is called once with what config.json says, and again with what the
    files hold.
    """
    choice(options.dtype, ("auto", *DTYPES), "dtype")
    resolved = sources.resolve(source, options.revision, progress)
    card = preflight_on(options.device, resolved, options.dtype)
    refuse(resolved, card)
    resolved = sources.download(resolved, card.spec.num_parameters, progress)
    files = sources.weight_files(resolved.folder)
    stored_dtype = sources.check_weights(files, card.spec)
    config, whole = stock(resolved)
    whole, spec = stored_weights.decided_by_files(config, files, whole, card.spec)
    card = with_files(card, spec, options.dtype, stored_dtype, device_of(options.device))
    refuse(resolved, card)
    tokenizer = read_tokenizer(resolved.folder, config, untrusted=options.untrusted, progress=progress)
    return OpenedSource(resolved, card, files, config, whole, spec, stored_dtype, tokenizer)


def fetch(
    source: str, *, revision: str | None = None, untrusted: bool = False, progress: Progress = NO_PROGRESS
) -> str | None:
    """Download a model's files, so that `load` need not wait for a network; the commit, None for a local folder.

    `untrusted`: as for `load`, whose check of the tokenizer is made now. Raises `ModelNotFound`,
    `ModelUnsupported` or `CheckpointBroken`, and what `progress` raises.
    """
    resolved = sources.resolve(source, revision, progress)
    resolved = sources.download(resolved, spec_of(resolved).num_parameters, progress)
    if untrusted:
        check_tokenizer(resolved.folder, stock(resolved)[0], progress)
    return resolved.revision


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

    `untrusted`: the model's tokenizer and chat template are not trusted, and read text in processes of their own with
    limits on memory and time (`transact.models.isolated_tokenizer`), which takes half a second each time.

    Everything that can be refused is refused before a weight is read: `ModelNotFound`, `ModelUnsupported`,
    `CheckpointBroken`, `NotEnoughMemory`, `InvalidOption`.
    """
    target: torch.device | str = BALANCED if spreads(device) else device_of(device)

    def refuse(resolved: sources.Source, card: Preflight) -> None:
        if target == BALANCED and resolved.config.get(per_layer_config.KEY):
            raise InvalidOption(f"The compact layers of {resolved.name} are not spread over GPUs. Choose one of them.")
        _check_fits(card)

    source_files = opened(source, LoadOptions(dtype, device, revision, untrusted), refuse, progress)
    card, files = source_files.card, source_files.files
    watch = Repeating(progress, card.weights_bytes, "bytes")
    try:
        model = _model_of(source_files, target, watch.check)
    except Exception as error:  # every library words a lack of memory in its own way
        if not ran_out_of_memory(error):
            raise
        raise NotEnoughMemory(
            f"Memory ran out while {card.source} was read, though {card.available_bytes / 1e9:.1f} GB seemed to be "
            "free. Choose a smaller model or a half-precision dtype."
        ) from error
    check_pairs(model)
    watch(card.weights_bytes, card.weights_bytes, "bytes")
    exceptions = stored_weights.exceptions(files, model, source_files.spec.layout, source_files.stored_dtype)
    return LoadedModel(model=model, stored_exceptions=exceptions, **source_files.fields(watch.check))


def _model_of(opened: OpenedSource, target: torch.device | str, check: Check) -> PreTrainedModel:
    """The stock class with its weights on the target, in evaluation mode."""
    resolved, dtype = opened.resolved, DTYPES[opened.card.dtype]
    if not resolved.config.get(per_layer_config.KEY):
        return _read_weights(resolved.folder, opened.config, dtype, target, check)
    model = narrowed_model.read(opened.config, opened.whole, opened.spec, opened.files, dtype, check)
    return model.to(target).eval()


def _check_fits(card: Preflight) -> None:
    if not card.fits:
        raise NotEnoughMemory(
            f"{card.source} needs about {card.required_bytes / 1e9:.1f} GB in {card.dtype} and "
            f"{card.available_bytes / 1e9:.1f} GB are free. Choose a smaller model or a half-precision dtype, "
            "or go through its files layer by layer: ta.stream_observe and ta.stream_prune, --stream in the shell."
        )


def _read_weights(
    directory: Path, config: PreTrainedConfig, dtype: torch.dtype, device: torch.device | str, check: Check
) -> PreTrainedModel:
    """`config` is the one that was checked: nothing else that config.json names is used."""
    spread = {"device_map": device} if device == BALANCED else {}
    if (directory / "adapter_config.json").exists():
        raise CheckpointBroken(
            f"{directory.name} holds an adapter (adapter_config.json), which names another model to load it into. "
            "Merge the adapter into its model first, and load that."
        )
    try:
        with no_progress_bars(lambda done, total: check()):
            model, loading_info = AutoModelForCausalLM.from_pretrained(
                directory,
                config=config,
                dtype=dtype,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # refused below, with our own message
                **spread,
            )
        model = (model if spread else model.to(device)).eval()
    except Cancelled:
        raise
    except Exception as error:  # configuration, weights and allocator raise many types
        if ran_out_of_memory(error):
            raise
        reason = " ".join(str(error).split())
        raise CheckpointBroken(f"The weights in {directory.name} could not be loaded: {reason}") from error
    for name, *shapes in sorted(loading_info["mismatched_keys"]):
        stored_weights.check_shape(name, *map(tuple, shapes))
    surplus = [name for name in loading_info["unexpected_keys"] if not sources.is_constant(name)]
    stored_weights.check_complete(loading_info["missing_keys"], surplus)
    return model
