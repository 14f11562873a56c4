"""Models whose decoder layers sleep: a batch takes seconds on every machine, and no processor is needed for it."""

import contextlib
import time
from collections.abc import Iterator

import torch

from transact import LoadedModel


@contextlib.contextmanager
def slowed(loaded: LoadedModel, seconds: float) -> Iterator[LoadedModel]:
    """The model, each of whose layers sleeps so long before it computes; so do those of a copy, cut or not."""

    def sleep(layer: torch.nn.Module, inputs: tuple) -> None:
        time.sleep(seconds)

    with contextlib.ExitStack() as stack:
        for layer in loaded.decoder_layers:
            stack.callback(layer.register_forward_pre_hook(sleep).remove)
        yield loaded
