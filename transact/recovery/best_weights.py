"""The weights of the lowest perplexity that a training measured, kept for a resumed training too."""

import os
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from transact.runtime.distributed import is_main

_PERPLEXITY = "perplexity"


class BestWeights:
    """Keeps the best of the weights that are offered; in `file` too, unless that is None.

    An existing file is read: the process that wrote it was interrupted.
    """

    def __init__(self, file: Path | None):
        self.file = file
        self.perplexity: float | None = None
        self._state: dict[str, torch.Tensor] = {}
        if file is not None and file.exists():
            with safe_open(file, framework="pt") as opened:
                self.perplexity = float(opened.metadata()[_PERPLEXITY])
            self._state = load_file(file)

    def offer(self, perplexity: float, module: torch.nn.Module) -> None:
        """Keep a copy of the module's weights if they are better than those before."""
        if self.perplexity is not None and not perplexity < self.perplexity:
            return
        self.perplexity = perplexity
        self._state = {name: value.detach().cpu().clone() for name, value in module.state_dict().items()}
        if self.file is not None and is_main():
            self.file.parent.mkdir(parents=True, exist_ok=True)
            partial = self.file.with_name(f".{self.file.name}.partial")
            save_file(self._state, partial, metadata={_PERPLEXITY: repr(perplexity)})
            os.replace(partial, self.file)

    def restore(self, module: torch.nn.Module, last: float | None) -> None:
        """Load them into the module, unless its own weights, of perplexity `last`, are as good."""
        if self.perplexity is not None and last is not None and self.perplexity < last:
            module.load_state_dict(self._state, strict=False)
