"""One decoder layer: its weights, hooks on it, masks over it, and its projections made narrower."""
