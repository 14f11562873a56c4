"""Text run through a model one decoder layer at a time, so that a layer can be changed before it is run.

Layers are run by calling the stock modules with the arguments that their own model passes to them; of a
layer's inside only the paths of its projections are known here.
"""

from dataclasses import dataclass

import torch

from transact.layers.hooks import by_sample, on_calls, on_inputs
from transact.layers.stand_in import with_module_at
from transact.models.loaded_model import Batch, LoadedModel
from transact.text.tokens import TokenSet

Arguments = tuple[tuple, dict]
"""What a model passes to a layer beside the hidden states, by position and by name."""


@dataclass(eq=False)
class HiddenStream:
    """One batch between two layers: `hidden` [sample, seq, hidden], the residual stream before the next layer.

    `real` bool [sample · seq]: which positions count; `arguments[layer]`: what else the model passes to a layer.
    """

    hidden: torch.Tensor
    real: torch.Tensor
    arguments: tuple["Arguments", ...]

    def counted(self, activations: torch.Tensor) -> torch.Tensor:
        """The rows that count, at least float32, maybe a view: [sample, seq, channel] -> [token, channel]."""
        rows = activations.flatten(0, -2)
        rows = rows if bool(self.real.all()) else rows[self.real.to(rows.device)]
        return rows if rows.dtype == torch.float64 else rows.float()

    def run(self, layer: torch.nn.Module, index: int) -> torch.Tensor:
        """The residual stream after the layer."""
        positional, named = self.arguments[index]
        output = layer(self.hidden, *positional, **named)
        return output if isinstance(output, torch.Tensor) else output[0]

    def input_of(self, role: str, layer: torch.nn.Module, index: int) -> torch.Tensor:
        """What the projection at `role` would read; the layer is run no further."""
        try:
            with on_inputs([(layer.get_submodule(role), _stop_at)]):
                self.run(layer, index)
        except _Reached as reached:
            return by_sample(reached.activations, self.hidden.shape[:2])
        raise AssertionError(f"{role} was never called")


class NoAttention(torch.nn.Module):
    """Replaces attention and adds nothing, for streams that already contain what it added."""

    def forward(self, hidden_states: torch.Tensor, *positional, **named) -> tuple[torch.Tensor, None]:
        """Zeros, as attention modules return them: with no attention weights."""
        return torch.zeros_like(hidden_states), None


def streams(
    loaded: LoadedModel, tokens: TokenSet, batch_size: int, max_tokens: int | None = None
) -> list[HiddenStream]:
    """Every batch before the first layer; batches as `TokenSet.batches` makes them."""
    batches = list(tokens.batches(batch_size=batch_size, max_tokens=max_tokens))
    with loaded.embeddings_loaded(tokens.input_ids):
        return [stream(loaded, batch) for batch in batches]


def stream(loaded: LoadedModel, batch: Batch) -> HiddenStream:
    """One batch before the first layer, while the model's embeddings are loaded."""
    hidden, arguments = _first_hidden(loaded, batch.input_ids.to(loaded.device))
    return HiddenStream(hidden, batch.mask.flatten().to(loaded.device), arguments)


def output_watched(layer: torch.nn.Module, role: str) -> "_Watched":
    """A context that yields a list to which the outputs of the projection at `role` are appended."""
    outputs: list[torch.Tensor] = []
    return _Watched(outputs, on_calls([(layer.get_submodule(role), lambda _, output: outputs.append(output))]))


class _Watched:
    def __init__(self, outputs: list[torch.Tensor], context):
        self.outputs, self.context = outputs, context

    def __enter__(self) -> list[torch.Tensor]:
        self.context.__enter__()
        return self.outputs

    def __exit__(self, *error) -> None:
        self.context.__exit__(*error)


class _Reached(Exception):
    def __init__(self, activations: torch.Tensor):
        self.activations = activations


def _stop_at(activations: torch.Tensor) -> None:
    raise _Reached(activations)


class _Recorder(torch.nn.Module):
    """Replaces a layer: records its arguments and returns the hidden states as they are."""

    def __init__(self, layer: torch.nn.Module):
        super().__init__()
        object.__setattr__(self, "replaced", layer)
        self.arguments: Arguments = ((), {})

    def __getattr__(self, name: str):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["replaced"], name)  # models ask layers for their kind of attention

    def forward(self, hidden_states: torch.Tensor, *positional, **named) -> torch.Tensor:
        self.arguments = positional, named
        return hidden_states


def _first_hidden(loaded: LoadedModel, input_ids: torch.Tensor) -> tuple[torch.Tensor, tuple[Arguments, ...]]:
    """The embedded tokens and the arguments of every layer, from the model's own code with no layer run."""
    recorders = torch.nn.ModuleList(_Recorder(layer) for layer in loaded.decoder_layers)
    received: list[torch.Tensor] = []
    recorders[0].register_forward_pre_hook(lambda _, inputs: received.append(inputs[0]))
    _without_layers(loaded, recorders)(input_ids=input_ids, use_cache=False)
    return received[0], tuple(recorder.arguments for recorder in recorders)


def final_hidden(loaded: LoadedModel, input_ids: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """What the decoder's own code makes of `hidden` [sample, seq, hidden], the residual stream after the last layer.

    Of the same shape: what the output head reads. All weights outside the layers have to be loaded,
    for `input_ids` of the same batch.
    """
    recorders = torch.nn.ModuleList(_Recorder(layer) for layer in loaded.decoder_layers)
    recorders[0].register_forward_pre_hook(lambda _, inputs: (hidden, *inputs[1:]))
    return _without_layers(loaded, recorders)(input_ids=input_ids, use_cache=False).last_hidden_state


def _without_layers(loaded: LoadedModel, recorders: torch.nn.ModuleList) -> torch.nn.Module:
    """The decoder with recorders in place of its layers."""
    layout = loaded.layout
    return with_module_at(loaded.decoder, layout.layers.removeprefix(f"{layout.decoder}."), recorders)
