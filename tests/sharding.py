"""FSDP between processes on CPUs.

`accelerate` shards on accelerators alone, though torch can on CPUs as well; this stands in for the GPUs, so that what
is ours around sharded weights (copying, gathering, measuring, cutting again) is run for real.
"""

import sys

from accelerate import state
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from transformers import Trainer


def shard_on_cpus() -> None:
    """Let `accelerate` take several CPU processes for a machine that shards; say what was sharded on standard error."""
    begin, train = state.AcceleratorState.__init__, Trainer.train

    def init(self, *given, fsdp_plugin=None, **named):
        begin(self, *given, fsdp_plugin=fsdp_plugin, **named)
        if self.distributed_type == DistributedType.MULTI_CPU:
            self.distributed_type = DistributedType.FSDP
            self.fsdp_plugin = fsdp_plugin or FullyShardedDataParallelPlugin()

    def trained(self, *given, **named):
        result = train(self, *given, **named)
        parameter = next(self.model.parameters())
        print(f"FSDP: parameters of {parameter.device_mesh.size()} shards", file=sys.stderr)
        return result

    state.AcceleratorState.__init__, Trainer.train = init, trained
