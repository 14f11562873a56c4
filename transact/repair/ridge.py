"""The linear algebra of repair: ridge regression from normal equations, and what it is worth to keep.

All of it in float64 by Cholesky factors. The ridge λ is a share of the Gram matrix's mean diagonal, so that
directions which the text never used stay what they were and every factorisation exists.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from transact.errors import NonFiniteActivations
from transact.progress import NO_CHECK, Check
from transact.runtime.blockwise_algebra import add_product, cholesky, inverse, part_of, product, solve

RIDGE = 1e-3
"""λ as a share of the Gram matrix's mean diagonal."""
_ROUNDS = 64
"""In how many rounds all channels would go; within a round they are judged alone."""
_SHRINK_AT = 0.875
"""What is gone leaves the matrices once less than this share is left: it costs work, and moving costs time too."""
_ROWS_AT_ONCE = 256


@dataclass(frozen=True, eq=False)
class NormalEquations:
    """Ridge regression of outputs on channels, min ‖Y − X W'^T‖² + λ‖W' − W‖², as normal equations.

    `inner` = X^T X + λI, float64 [channel, channel]; `outer` = Y^T X + λW, float64 [hidden, channel].
    """

    inner: torch.Tensor
    outer: torch.Tensor

    @classmethod
    def of(cls, gram: torch.Tensor, products: torch.Tensor, weight: torch.Tensor) -> "NormalEquations | None":
        """From X^T X, Y^T X and W; None where the text moved no channel, so that there is nothing to learn from.

        `gram` and `products` are taken over. Raises `NonFiniteActivations` for sums that are NaN or infinite.
        """
        size = gram.diagonal().mean()
        if not bool(size.isfinite()) or not bool(products.isfinite().all()):
            raise NonFiniteActivations(
                "The sums that repair works from are NaN or infinite. The weights may be damaged; if not, load the "
                'model with dtype="float32".'
            )
        ridge = RIDGE * float(size)
        if ridge == 0:
            return None
        gram.diagonal().add_(ridge)
        return cls(gram, products.add_(weight.double(), alpha=ridge))

    def solved(self, kept: torch.Tensor, check: Check = NO_CHECK) -> torch.Tensor:
        """W' for those channels alone, float64 [hidden, kept]."""
        factor = cholesky(part_of(self.inner, kept, check), check)
        return solve(factor, self.outer[:, kept].T, check).T

    def obs_select(
        self, keep: int, staying: Sequence[int] = (), going: Sequence[int] = (), check: Check = NO_CHECK
    ) -> tuple[int, ...]:
        """Which `keep` channels to keep, by removing again and again what is missed least.

        With Ŵ the solution for the channels that are left and P the inverse of `inner` for them, removing the
        channel u and solving again raises the minimum by |Ŵ_u|² / P_uu: the error that remains after repair, so a
        channel that others can stand in for goes early (optimal brain surgery, Hassibi and Stork 1993, with all
        outputs at once). Both Ŵ and P follow by one downdate. Channels go in small rounds; those of `going` go
        first, those of `staying` never.
        """
        inverted = inverse(cholesky(self.inner, check), check)
        solution = product(self.outer, inverted, check)
        ids = torch.arange(len(inverted), device=inverted.device)  # whose row each is; shrinks with the matrices
        may_go = torch.ones(len(ids), dtype=torch.bool, device=inverted.device)
        may_go[list(staying)] = False
        left = torch.ones_like(may_go)
        at_once = max(1, len(ids) // _ROUNDS)

        def remove(rows: torch.Tensor) -> None:
            left[rows] = may_go[rows] = False
            _downdate(inverted, solution, rows.sort().values, check)

        if len(going):
            for some in torch.tensor(list(going), device=inverted.device).split(_ROWS_AT_ONCE):
                remove(some)
        while (excess := int(left.sum()) - keep) > 0:
            if int(left.sum()) < _SHRINK_AT * len(left):
                rows = left.nonzero()[:, 0]
                inverted, solution = _shrunk(inverted, rows, check), solution[:, rows]
                ids, may_go, left = ids[rows], may_go[rows], left[rows]
            check()
            missed = solution.square().sum(dim=0) / inverted.diagonal()
            remove(missed.masked_fill(~may_go, torch.inf).argsort(stable=True)[: min(at_once, excess)])
        return tuple(ids[left].tolist())


def _downdate(inverted: torch.Tensor, solution: torch.Tensor, gone: torch.Tensor, check: Check) -> None:
    """Both, in place, as they are without those channels; what is gone becomes a unit matrix and zeros."""
    columns = inverted[:, gone]  # [channel, gone]
    factor = cholesky(columns[gone], check)
    add_product(solution, solve(factor, solution[:, gone].T, check).T, columns.T, check, scale=-1)
    add_product(inverted, solve(factor, columns.T, check).T, columns.T, check, scale=-1)
    solution[:, gone] = 0
    inverted[gone] = 0
    inverted[:, gone] = 0
    inverted[gone, gone] = 1


def _shrunk(matrix: torch.Tensor, rows: torch.Tensor, check: Check) -> torch.Tensor:
    """Rows and columns `rows` (sorted) of a square matrix, moved together in its own memory: a view of it.

    A row moves up or stays, so those still to be read are never overwritten.
    """
    shrunk = matrix[: len(rows), : len(rows)]
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        check()
        some = rows[start : start + _ROWS_AT_ONCE]
        shrunk[start : start + len(some)] = matrix[some][:, rows]
    return shrunk


def least_squares(weight: torch.Tensor, gram: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    """argmin ‖X W^T − X_S W'^T‖² + λ‖W' − W_S‖² for `weight` [hidden, channel], `gram` X^T X and the kept S.

    W' = (W G[:, S] + λ W_S) (G[S, S] + λ I)^-1, [hidden, kept] in the dtype of `weight`.
    """
    return solved(reduced(weight, gram, kept), weight, kept)


def reduced(
    weight: torch.Tensor, gram: torch.Tensor, kept: torch.Tensor, check: Check = NO_CHECK
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """G[S, S] + λ I [kept, kept] and (W G[:, S] + λ W_S)^T [kept, hidden], float64, of `least_squares`.

    They are all that `solved` needs, so that the whole Gram matrix can be let go between the two. None where the
    weights stay as they are: nothing is cut, or the text never moved any channel.
    """
    if len(kept) == weight.shape[1]:
        return None
    ridge = RIDGE * gram.diagonal().mean()
    if ridge == 0:
        return None
    outer = gram.new_empty(len(kept), len(weight))
    # in blocks, as neither a whole G[:, S] nor a whole W in float64 has to stand beside the rest
    for some, rows in zip(kept.split(_ROWS_AT_ONCE), outer.split(_ROWS_AT_ONCE), strict=True):
        sums = gram[some]  # G is symmetric
        for part, block in zip(weight.split(_ROWS_AT_ONCE), rows.split(_ROWS_AT_ONCE, dim=1), strict=True):
            check()
            full = part.double()
            block.copy_(sums @ full.T + ridge * full[:, some].T)
    inner = part_of(gram, kept, check)
    inner.diagonal().add_(ridge)
    return inner, outer


def solved(
    equations: tuple[torch.Tensor, torch.Tensor] | None,
    weight: torch.Tensor,
    kept: torch.Tensor,
    check: Check = NO_CHECK,
) -> torch.Tensor:
    """W' of `least_squares` from what `reduced` made."""
    if equations is None:
        return weight[:, kept]
    inner, outer = equations
    return solve(cholesky(inner, check), outer, check).T.to(weight.dtype)
