"""Models larger than memory: observed, cut, repaired and saved layer by layer from their safetensors files.

tensor_reader    tensors read one at a time, never mapped
streamed_model   a stock model without memory, whose layers are filled while they are used
observe          `observe`, all batches through one layer, then the next
prune            `prune` and `save` in one
shard_writer     safetensors files written tensor by tensor
layer_log        where interrupted work resumes
"""

from transact.streaming.observe import stream_observe
from transact.streaming.prune import stream_prune
from transact.streaming.streamed_model import StreamedModel, load_streamed

__all__ = ["StreamedModel", "load_streamed", "stream_observe", "stream_prune"]
