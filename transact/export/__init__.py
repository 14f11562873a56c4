"""What leaves the project: checkpoints, GGUF, the hub, and the proof that others can read them."""
