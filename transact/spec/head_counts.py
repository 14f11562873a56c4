"""Which numbers of heads the stock configuration of a model can name beside an unchanged head size.

Any, those that divide `hidden_size`, or, "fixed", hidden_size / head_dim alone: `Family.head_counts` says which.
"""

import math

from transact.spec.family import Family

HEAD_COUNTS = ("any", "divisors", "fixed")


def head_counts_of(family: Family, config) -> str:
    """One of `HEAD_COUNTS`, for a `transformers` configuration of the family."""
    rope = getattr(config, "rope_parameters", None) or {}
    return "fixed" if rope.get("rope_type") in family.fixed_with_rope else family.head_counts


def can_name(head_counts: str, heads: int, *, hidden_size: int, head_dim: int) -> bool:
    """Whether the configuration can name `heads` heads."""
    if head_counts == "any":
        return True
    return heads == hidden_size // head_dim if head_counts == "fixed" else hidden_size % heads == 0


def next_nameable(
    head_counts: str, groups: int, group_size: int, *, hidden_size: int, head_dim: int, grouped_queries: bool
) -> tuple[int, int]:
    """Heads and key/value heads of the smallest nameable attention that holds `groups` groups of `group_size` heads.

    Raises `ValueError` where no number of heads that can be named is as large.
    """
    named = (
        (heads, held)
        for heads in ([hidden_size // head_dim] if head_counts == "fixed" else _divisors(hidden_size))
        for held in _divisors(heads)
        if held >= groups and heads // held >= group_size and (held == heads or grouped_queries)
    )
    return min(named, key=lambda pair: (sum(pair), pair[1]))  # parameters grow with the sum


def _divisors(number: int) -> list[int]:
    low = [divisor for divisor in range(1, math.isqrt(number) + 1) if number % divisor == 0]
    return sorted({*low, *(number // divisor for divisor in low)})
