"""Making up for what is cut, without training. Below planning and cutting, as `search_plan` and `prune` call it."""
