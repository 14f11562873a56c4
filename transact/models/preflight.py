"""What loading a model would need, known from its configuration alone."""

from dataclasses import dataclass, replace
from typing import Any

import torch

from transact.errors import choice
from transact.models import sources
from transact.models.loaded_model import DTYPES
from transact.models.source_config import spec_of
from transact.progress import NO_PROGRESS, Progress
from transact.runtime.devices import device_of, free_bytes, gpus, spreads
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
    `progress` raises while it waits for the hub.
    """
    choice(dtype, ("auto", *DTYPES), "dtype")
    return preflight_on(device, sources.resolve(source, revision, progress), dtype)


def preflight_on(device: str, resolved: sources.Source, dtype: str) -> Preflight:
    """As `preflight_of`; a model that is spread has the memory of all GPUs."""
    card = preflight_of(resolved, dtype, device_of(device))
    if not spreads(device):
        return card
    return replace(card, available_bytes=sum(free_bytes(torch.device(gpu)) for gpu in gpus()))


def preflight_of(resolved: sources.Source, dtype: str, device: torch.device) -> Preflight:
    """As `preflight`, for a resolved source."""
    spec = spec_of(resolved)
    stored = str(resolved.config.get("dtype") or resolved.config.get("torch_dtype") or "float32")
    if dtype == "auto":
        dtype = _fast_dtype(stored, spec, device)
    return Preflight(
        source=resolved.name,
        revision=resolved.revision,
        spec=spec,
        dtype=dtype,
        available_bytes=free_bytes(device),
        **_needs(spec, dtype),
    )


def with_files(card: Preflight, spec: ModelSpec, dtype: str, stored_dtype: str, device: torch.device) -> Preflight:
    """The card corrected by what the files hold."""
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
