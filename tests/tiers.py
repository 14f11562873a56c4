"""Which cases of a table each tier of tests takes.

The Makefile says what a tier runs and pyproject.toml what a mark means. A case that is marked here leaves `make check`
or `make test`, and never `make test-all`.
"""

from collections.abc import Callable, Iterable

import pytest
from hypothesis import settings

from tests.tiny_models import TINY
from transact.spec.families import FAMILIES

_TYPES = [model_type for model_type, _ in TINY.values()]
VARIANTS = {kind: [name for name, (own, _) in TINY.items() if own == kind] for kind in dict.fromkeys(_TYPES)}
"""The tiny models of each family: the plain one first, then those with biases, tied embeddings and the like."""
PLAIN = tuple(names[0] for names in VARIANTS.values())
"""One tiny model a family."""
_CUT = (
    "projections", "gate", "transposed", "packed_by_head", "query_norm", "head_norms", "post_attention", "post_mlp",
    "norm_weights", "parallel", "residual_multiplier", "layer_lists", "position_rows", "file_names", "head_bias",
)  # fmt: skip
_LAYOUTS = [tuple(getattr(FAMILIES[TINY[name][0]], trait) for trait in _CUT) for name in PLAIN]
LAYOUTS = tuple(name for at, name in enumerate(PLAIN) if _LAYOUTS.index(_LAYOUTS[at]) == at)
"""One tiny model a layout, for what takes longer in `make test`: the same code cuts, repairs and writes the others."""
FEW = ("llama", "gemma2", "gpt2")
"""The models that stand for the others in `make check`: separate and fused projections, norms of two kinds."""


def inputs(most: int) -> int:
    """The part of `most` inputs that the tier tries, at least one; tests/conftest.py has the profiles."""
    return max(1, round(most * settings.default.max_examples / 1000))


def cases(table: Iterable, *, test: Callable[..., bool] | Iterable = (), check: Callable[..., bool] | Iterable = ()):
    """The parameters of a table by tier, to be given to `pytest.mark.parametrize`.

    `check` and `test` hold for those that `make check` and `make test` run, as predicates of a case's values or as
    collections of cases; all others are left to `make test-all`.
    """
    in_check, in_test = (each if callable(each) else _among(list(each)) for each in (check, test))
    for case in table:
        values = case if isinstance(case, tuple) else (case,)
        if in_check(*values):
            yield pytest.param(*values)
        else:
            yield pytest.param(*values, marks=pytest.mark.slow if in_test(*values) else pytest.mark.exhaustive)


def _among(chosen: list) -> Callable[..., bool]:
    return lambda *values: (values if len(values) > 1 else values[0]) in chosen
