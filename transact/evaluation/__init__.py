"""What pruning cost and what it saved: perplexity, agreement, speed, probes, standard tasks."""
