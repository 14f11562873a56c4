"""Iterative pruning: cut a little, train, score again, and train on at the end."""
