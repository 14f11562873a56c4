"""What work takes at its peak beside the weights, from shapes alone.

Estimates of single kinds of work are in their modules (`sequential_bytes`, `backward_bytes`, `search_bytes`, ...); here
is what they share.
"""

import torch

from transact.spec.model_spec import ModelSpec

BLOCK_BYTES = 34 << 20
"""Logits that are made at a time. From 32 MiB on glibc returns a tensor to the system when it is freed; smaller ones
pile up in its heap (half a gigabyte, measured), as freed aligned blocks are seldom reused."""
_BLOCK_COPIES = 5
"""The most tensors of a block's size that a loss or its gradient holds at a time."""
_USUAL_POSITIONS = 512
"""Positions of a sample that is measured, the default of the app and the command line."""
_WORKSPACE_SHARE = 0.2
"""Allowance for memory that loading takes beside the weights, as a share of them."""
_WORKSPACE_BYTES = 400_000_000
"""Allowance for the runtime itself."""


def block_bytes(spec: ModelSpec, num_rows: int, bytes_per_element: int = 4) -> int:
    """What a loss over `num_rows` rows holds at its peak beside hidden states: a few blocks of logits."""
    row = spec.vocab_size * max(bytes_per_element, 4)
    return _BLOCK_COPIES * min(num_rows * row, max(BLOCK_BYTES, row))


def forward_bytes(spec: ModelSpec, num_positions: int, bytes_per_element: int = 4) -> int:
    """What a forward pass holds at its peak, norms in float32 included.

    Of the widest layer: the residual stream before and after, and either queries, keys, values and the output of
    attention, or gate, up and their product.
    """
    widest = max(
        max(
            3 * (layer.num_attention_heads + layer.num_key_value_heads) * max(spec.query_key_dim, spec.value_dim),
            3 * layer.intermediate_size,
        )
        for layer in spec.layers
    )
    return num_positions * (bytes_per_element * (4 * spec.hidden_size + widest) + 2 * 4 * spec.hidden_size)


def measuring_bytes(spec: ModelSpec, num_positions: int, bytes_per_element: int = 4) -> int:
    """What computing the losses of a batch holds at its peak: first layers, then blocks of logits."""
    hidden = 2 * num_positions * spec.hidden_size * bytes_per_element  # all of them, and those that predict
    logits = block_bytes(spec, num_positions, bytes_per_element)
    return hidden + max(forward_bytes(spec, num_positions, bytes_per_element), logits)


def required_bytes(spec: ModelSpec, dtype: torch.dtype) -> int:
    """Memory that a model of that shape takes in `dtype`, with working memory."""
    weights = spec.num_parameters * dtype.itemsize
    computing = measuring_bytes(spec, _USUAL_POSITIONS, dtype.itemsize)
    return int(weights * (1 + _WORKSPACE_SHARE)) + _WORKSPACE_BYTES + computing


def held_while_streamed(spec: ModelSpec, dtype: torch.dtype) -> int:
    """Most bytes of weights that streaming holds at a time: the largest layer twice, and the embeddings."""
    layer = max(map(spec.layer_parameters, spec.layers))
    return (2 * layer + spec.vocab_size * spec.hidden_size) * dtype.itemsize


def streamed_bytes(spec: ModelSpec, dtype: torch.dtype) -> int:
    """Memory that streaming a model takes, with working memory."""
    computing = measuring_bytes(spec, _USUAL_POSITIONS, dtype.itemsize)
    return held_while_streamed(spec, dtype) + _WORKSPACE_BYTES + computing
