"""Numbers without weights: model families, shapes and their costs, targets, locks and plans."""
