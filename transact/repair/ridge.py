"""The linear algebra of repair: ridge regression from normal equations, and the choice of channels to keep.

All of it in float64 by Cholesky factors. The ridge λ is a share of the Gram matrix's mean diagonal, so that
directions which the text never used stay what they were and every factorisation exists.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from transact.errors import NonFiniteActivations
from transact.progress import NO_CHECK, Check
from transact.runtime.blockwise_algebra import add_product, cholesky, inverse, part_of, product, solve

RIDGE = 1e-3
"""λ as a share of the Gram matrix's mean diagonal."""
_ROUNDS = 64
"""Rounds in which all channels would be removed; within a round each is scored on its own."""
_SHRINK_AT = 0.875
"""Removed channels are dropped from the matrices once less than this share is left, as moving rows costs time too."""
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
        """From X^T X, Y^T X and W; None where all activations are zero, so that there is nothing to fit.

        `gram` and `products` are overwritten. Raises `NonFiniteActivations` for sums that are NaN or infinite.
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
        """Which `keep` channels to keep, by removing again and again those that cost least: see `removal_path`."""
        path = self.removal_path(keep, staying, going, check)
        return tuple(sorted(set(range(len(self.inner))).difference(path.order)))

    def removal_path(
        self, keep: int, staying: Sequence[int] = (), going: Sequence[int] = (), check: Check = NO_CHECK
    ) -> "RemovalPath":
        """In which order channels go until `keep` are left, and what the minimum has risen by after each.

        With Ŵ the solution for the channels that are left and P the inverse of `inner` for them, removing the
        channel u and solving again raises the minimum by |Ŵ_u|² / P_uu: the error that remains after repair, so a
        channel that others can stand in for goes early (optimal brain surgery, Hassibi and Stork 1993, with all
        outputs at once). Both Ŵ and P follow by one downdate. Channels go in small rounds; those of `going` go
        first, those of `staying` never. What a round costs is exact; within it, channels share it as they cost alone.
        """
        inverted = inverse(cholesky(self.inner, check), check)
        solution = product(self.outer, inverted, check)
        ids = torch.arange(len(inverted), device=inverted.device)  # the channel of each row; shrinks with the matrices
        may_go = torch.ones(len(ids), dtype=torch.bool, device=inverted.device)
        may_go[list(staying)] = False
        left = torch.ones_like(may_go)
        per_round = max(1, len(ids) // _ROUNDS)
        order: list[int] = []
        rises: list[torch.Tensor] = []

        def costs() -> torch.Tensor:
            return solution.square().sum(dim=0) / inverted.diagonal()

        def remove(rows: torch.Tensor) -> None:
            left[rows] = may_go[rows] = False
            alone = costs()[rows]
            together = _downdate(inverted, solution, rows, check)
            order.extend(ids[rows].tolist())
            rises.append(together * alone / alone.sum().clamp_min(torch.finfo(alone.dtype).tiny))

        if len(going):
            for rows in torch.tensor(list(going), device=inverted.device).split(_ROWS_AT_ONCE):
                remove(rows)
        while (excess := int(left.sum()) - keep) > 0:
            if int(left.sum()) < _SHRINK_AT * len(left):
                rows = left.nonzero()[:, 0]
                inverted, solution = _shrunk(inverted, rows, check), solution[:, rows]
                ids, may_go, left = ids[rows], may_go[rows], left[rows]
            check()
            remove(costs().masked_fill(~may_go, torch.inf).argsort(stable=True)[: min(per_round, excess)])
        rise = torch.cat(rises).cpu() if rises else torch.zeros(0, dtype=torch.float64)
        return RemovalPath(tuple(order), rise.numpy())


@dataclass(frozen=True, eq=False)
class RemovalPath:
    """The order in which channels go, and by how much each raises the minimum of the regression: float64 [removed]."""

    order: tuple[int, ...]
    rises: np.ndarray


def _downdate(inverted: torch.Tensor, solution: torch.Tensor, removed: torch.Tensor, check: Check) -> torch.Tensor:
    """Remove channels from both in place: their rows and columns become those of a unit matrix, and zeros.

    Returned is what that raises the minimum by: tr(Ŵ_R (P_RR)^-1 Ŵ_R^T) for the removed R.
    """
    removed = removed.sort().values
    columns = inverted[:, removed]  # [channel, removed]
    factor = cholesky(columns[removed], check)
    going = solution[:, removed]
    multipliers = solve(factor, going.T, check).T
    rise = (multipliers * going).sum()
    add_product(solution, multipliers, columns.T, check, scale=-1)
    add_product(inverted, solve(factor, columns.T, check).T, columns.T, check, scale=-1)
    solution[:, removed] = 0
    inverted[removed] = 0
    inverted[:, removed] = 0
    inverted[removed, removed] = 1
    return rise


def _shrunk(matrix: torch.Tensor, rows: torch.Tensor, check: Check) -> torch.Tensor:
    """Rows and columns `rows` (sorted) of a square matrix, moved together in its own memory: a view of it.

    A row moves up or stays, so those still to be read are never overwritten.
    """
    shrunk = matrix[: len(rows), : len(rows)]
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        check()
        block = rows[start : start + _ROWS_AT_ONCE]
        shrunk[start : start + len(block)] = matrix[block][:, rows]
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

    They are all that `solved` needs, so that the whole Gram matrix can be released between the two. None where
    the weights stay as they are: nothing is cut, or all activations are zero.
    """
    if len(kept) == weight.shape[1]:
        return None
    ridge = RIDGE * gram.diagonal().mean()
    if ridge == 0:
        return None
    outer = gram.new_empty(len(kept), len(weight))
    # in blocks, so that neither all of G[:, S] nor all of W in float64 is in memory beside the rest
    for indices, rows in zip(kept.split(_ROWS_AT_ONCE), outer.split(_ROWS_AT_ONCE), strict=True):
        sums = gram[indices]  # G is symmetric
        for part, block in zip(weight.split(_ROWS_AT_ONCE), rows.split(_ROWS_AT_ONCE, dim=1), strict=True):
            check()
            full = part.double()
            block.copy_(sums @ full.T + ridge * full[:, indices].T)
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
