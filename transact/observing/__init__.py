"""What passes through a model's layers while it reads: activations, gradients, and their sums."""
