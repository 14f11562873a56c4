"""From a name to a model in memory: pre-flight from the configuration alone, then the weights."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
)

from transact.errors import CheckpointBroken, InvalidOption, NotEnoughMemory, choice
from transact.layers import per_layer_config
from transact.layers.narrow_attention import check_pairs
from transact.models import narrowed_model, sources, stored_weights
from transact.models.loaded_model import DTYPES, LoadedModel
from transact.models.source_config import spec_of, stock
from transact.models.tokenizer_files import check_tokenizer, read_tokenizer, tokenizer_class
from transact.progress import NO_PROGRESS, Cancelled, Check, Progress, Repeating
from transact.runtime.devices import BALANCED, device_of, free_bytes, gpus, spreads
from transact.runtime.memory import ran_out_of_memory
from transact.runtime.transformers_logging import no_progress_bars
from transact.spec.memory_estimates import required_bytes, streamed_bytes
from transact.spec.model_spec import ModelSpec

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
        check_tokenizer(found.folder, stock(found)[0], progress)
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
    limits on memory and time (`transact.models.isolated_tokenizer`), which takes half a second each time.

    Everything that can be refused is refused before a weight is read: `ModelNotFound`, `ModelUnsupported`,
    `CheckpointBroken`, `NotEnoughMemory`, `InvalidOption`.
    """
    choice(dtype, ("auto", *DTYPES), "dtype")
    target: torch.device | str = BALANCED if spreads(device) else device_of(device)
    found = sources.resolve(source, revision, progress)
    card = _preflight_on(device, found, dtype)
    if target == BALANCED and found.config.get(per_layer_config.KEY):
        raise InvalidOption(f"The compact layers of {found.name} are not spread over GPUs. Choose one of them.")
    _check_fits(card)
    found = sources.download(found, card.spec.num_parameters, progress)
    files = sources.weight_files(found.folder)
    stored_dtype = sources.check_weights(files, card.spec)
    config, whole = stock(found)
    whole, spec = stored_weights.decided_by_files(config, files, whole, card.spec)
    card = with_files(card, spec, dtype, stored_dtype, device_of(device))
    _check_fits(card)
    tokenizer = read_tokenizer(found.folder, config, untrusted=untrusted, progress=progress)
    watch = Repeating(progress, card.weights_bytes, "bytes")
    try:
        if found.config.get(per_layer_config.KEY):
            model = narrowed_model.read(config, whole, spec, files, DTYPES[card.dtype], watch.check)
            model = model.to(target).eval()
        else:
            model = _read_weights(found.folder, config, DTYPES[card.dtype], target, watch.check)
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
        tokenizer_class=tokenizer_class(found.folder, config),
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


def _needs(spec: ModelSpec, dtype: str) -> dict[str, Any]:
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
