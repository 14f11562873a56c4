"""Layers that attend only to a window of the last positions, and the number of positions in it.

A window counts the token itself: of `context` positions such a layer sees, and keeps keys and values of, the last
min(context, window). (The cache of `transformers` drops the oldest of them between two tokens and holds the full
window again once the next one is computed.)
"""

from transact.errors import ModelUnsupported

Windows = tuple[int | None, ...]
"""The window of each layer; None where it attends to all positions."""


def windows_of(kind: str, config) -> Windows:
    """The windows that a `transformers` configuration names, in a family of that kind (see `Family.windows`).

    Raises `ModelUnsupported` for a window that holds no token.
    """
    layers, window = config.num_hidden_layers, getattr(config, "sliding_window", None)
    if kind == "none" or window is None:
        return (None,) * layers
    if window < 1:
        raise ModelUnsupported(
            f"The configuration's sliding_window is {window}; it is a number of tokens from 1, or null for none. Check "
            "config.json."
        )
    if kind == "all":
        return (window,) * layers
    return tuple(window if name == "sliding_attention" else None for name in config.layer_types)


def windows_from(values, layers: int) -> Windows:
    """Read from JSON: one positive number or null a layer, or null for no windows; `ValueError` for anything else."""
    if values is None:
        return (None,) * layers
    if not isinstance(values, list | tuple) or len(values) != layers:
        raise ValueError("every layer must have its window, or null")
    if not all(window is None or (type(window) is int and 1 <= window < 2**31) for window in values):
        raise ValueError("a window is a whole number of tokens from 1, or null")
    return tuple(values)


def attended(window: int | None, context: int) -> int:
    """Positions that the last of `context` tokens sees."""
    return context if window is None else min(context, window)


def attended_in_all(window: int | None, tokens: int) -> int:
    """Positions seen by all of `tokens` tokens of one prompt: the sum of min(t, window) for t from 1."""
    seen = attended(window, tokens)
    return seen * (seen + 1) // 2 + (tokens - seen) * seen
