"""How sensitive the predictions are to what a module adds to the residual stream.

With ĝ_t the gradient of −Σ log q in the module's output at the token t, for next tokens drawn from the model itself,
a change δ_t of that output raises the loss to second order by ½ Σ_t (ĝ_t · δ_t)². The mean of ĝ_t ĝ_t^T is the module's
block of the Fisher information, as K-FAC takes it (Martens and Grosse 2015, arXiv 1503.05671): in its metric errors of
different layers are errors of one kind, and can be compared.
"""

import torch

from transact.errors import NonFiniteActivations
from transact.layers.slicing import reading_role
from transact.models.loaded_model import LoadedModel
from transact.observing.gradients import BlockLosses, Key, drawn_losses, output_gradients, pass_bytes
from transact.progress import NO_PROGRESS, Progress
from transact.runtime.random_numbers import random_numbers
from transact.spec.model_spec import ModelSpec
from transact.text.tokens import TokenSet


def output_fishers(
    loaded: LoadedModel, tokens: TokenSet, site: str, progress: Progress = NO_PROGRESS
) -> tuple[torch.Tensor, ...]:
    """Mean of ĝ ĝ^T over the predictions, at the site ("attention" or "mlp") of every layer: [hidden, hidden].

    In float64, as in float32 rounding leaves eigenvalues below zero (measured). One forward and one backward pass.
    Progress is in tokens. Raises `NonFiniteActivations`.
    """
    modules: dict[Key, torch.nn.Linear] = {
        (index, site): layer.get_submodule(reading_role(loaded.spec, site))
        for index, layer in enumerate(loaded.decoder_layers)
    }
    hidden = loaded.spec.hidden_size
    sums = [
        torch.zeros(hidden, hidden, dtype=torch.float64, device=loaded.device_of_layer(index)) for index, _ in modules
    ]
    generator = torch.Generator(loaded.device).manual_seed(0)

    def losses(targets: torch.Tensor) -> BlockLosses:
        numbers = random_numbers(len(targets), loaded.dtype, generator)
        return lambda own, block: drawn_losses(own, [numbers[block]])

    def add(loss: int, key: Key, inputs: torch.Tensor, gradient: torch.Tensor, real: torch.Tensor) -> None:
        rows = gradient[real].double()  # [sample, seq, hidden] -> [token, hidden]
        sums[key[0]] += rows.T @ rows

    output_gradients(loaded, modules, tokens, losses, add, progress)
    for index, total in enumerate(sums):
        if not bool(total.isfinite().all()):
            raise NonFiniteActivations(
                f"The loss has a gradient that is NaN or infinite in layer {index} ({site}) on this text. The weights "
                'may be damaged; if not, load the model with dtype="float32".'
            )
        total /= max(tokens.num_predictions, 1)
    return tuple(sums)


def fisher_bytes(spec: ModelSpec, tokens: TokenSet, bytes_per_element: int = 4) -> int:
    """About what `output_fishers` takes at its peak beside the model."""
    matrices = 8 * spec.num_hidden_layers * spec.hidden_size**2
    return matrices + (pass_bytes(spec, tokens, bytes_per_element)[0] if tokens.num_predictions else 0)
