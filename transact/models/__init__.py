"""From a name to a model in memory: the bundled one, a local folder's, or the hub's."""
