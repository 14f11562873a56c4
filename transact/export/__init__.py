"""Export: checkpoints, GGUF, the hub, and the proof that stock software reads a checkpoint."""
