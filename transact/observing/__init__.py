"""Activations and gradients of a model's layers, and their sums over a text."""
