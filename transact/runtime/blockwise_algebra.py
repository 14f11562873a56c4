"""Linear algebra on matrices so large that it takes minutes, a block at a time, with cancellation checked in between.

Between two checks a processor core works for a fraction of a second, or about a second where it is shared. Matrices
that torch's own routine handles in that time are passed to it whole.
"""

from collections.abc import Iterator

import torch

from transact.progress import NO_CHECK, Check

_STEP = 5e9
"""Floating-point operations between two checks."""
_BLOCK = 512
"""Rows of a block of a triangular matrix."""
_GRAM_BLOCK = 256
"""Of a Gram matrix's rows: fewer leave less to multiply, and are multiplied more slowly (measured)."""


def _is_small(size: int) -> bool:
    return size**3 <= _STEP


def _slices(length: int, operations: float) -> Iterator[slice]:
    """Slices of `length` rows that make a step each, where a row takes `operations` operations."""
    rows = max(1, int(_STEP // max(operations, 1)))
    return (slice(start, start + rows) for start in range(0, length, rows))


def part_of(matrix: torch.Tensor, kept: torch.Tensor, check: Check = NO_CHECK) -> torch.Tensor:
    """Those rows and columns of a square matrix, [kept, kept]."""
    part = matrix.new_empty(len(kept), len(kept))
    for block in torch.arange(len(kept)).split(_BLOCK):
        check()
        part[block] = matrix[kept[block]][:, kept]
    return part


def cholesky(matrix: torch.Tensor, check: Check = NO_CHECK) -> torch.Tensor:
    """The lower triangular L with L L^T = `matrix`, [row, row]."""
    check()
    size = len(matrix)
    if _is_small(size):
        return torch.linalg.cholesky(matrix)
    factor = matrix.tril()
    for start in range(0, size, _BLOCK):
        check()
        panel, before = factor[start:, start : start + _BLOCK], factor[start:, :start]
        add_product(panel, before, before[:_BLOCK].T, check, scale=-1)
        corner = panel[:_BLOCK].copy_(torch.linalg.cholesky(panel[:_BLOCK]))
        panel[_BLOCK:] = torch.linalg.solve_triangular(corner, panel[_BLOCK:].T, upper=False).T
    return factor


def solve(factor: torch.Tensor, right: torch.Tensor, check: Check = NO_CHECK) -> torch.Tensor:
    """X with L L^T X = `right`, [row, column], of the factor L."""
    check()
    size, columns = right.shape
    if 2 * size**2 * columns <= _STEP:
        return torch.cholesky_solve(right, factor)
    solution = right.clone(memory_format=torch.contiguous_format)
    starts = range(0, size, _BLOCK)
    for block in _slices(columns, 2 * _BLOCK * size):
        part = solution[:, block]
        for start in starts:  # L Y = B from the top
            check()
            rows = slice(start, start + _BLOCK)
            part[rows].addmm_(factor[rows, :start], part[:start], alpha=-1)
            part[rows] = torch.linalg.solve_triangular(factor[rows, rows], part[rows], upper=False)
        for start in reversed(starts):  # L^T X = Y from the bottom
            check()
            rows = slice(start, start + _BLOCK)
            part[rows].addmm_(factor[rows.stop :, rows].T, part[rows.stop :], alpha=-1)
            part[rows] = torch.linalg.solve_triangular(factor[rows, rows].T, part[rows], upper=True)
    return solution


def inverse(factor: torch.Tensor, check: Check = NO_CHECK) -> torch.Tensor:
    """(L L^T)^-1, [row, row]; a large `factor` is overwritten."""
    check()
    size = len(factor)
    if _is_small(size):
        return torch.cholesky_inverse(factor)
    starts = range(0, size, _BLOCK)
    for start in reversed(starts):  # L becomes L^-1, its last columns first
        check()
        end = min(start + _BLOCK, size)
        unit = torch.eye(end - start, dtype=factor.dtype, device=factor.device)
        corner = torch.linalg.solve_triangular(factor[start:end, start:end], unit, upper=False)
        below = factor[end:, start:end] @ corner
        for block in _slices(size - end, 2 * (size - end) * (end - start)):
            check()
            last = min(block.stop, size - end)
            factor[end:, start:end][block] = factor[end:, end:][block, :last] @ below[:last].neg()
        factor[start:end, start:end] = corner
    for start in starts:  # and then L^-T L^-1, whose upper rows need none of the rows above
        end = min(start + _BLOCK, size)
        rows = product(factor[start:, start:end].T, factor[start:, :end], check)
        factor[start:end, :end] = rows
        factor[:start, start:end] = rows[:, :start].T
    return factor


def product(left: torch.Tensor, right: torch.Tensor, check: Check = NO_CHECK) -> torch.Tensor:
    """`left` @ `right`."""
    result = left.new_empty(len(left), right.shape[1])
    for block in _slices(len(left), 2 * right.numel()):
        check()
        torch.mm(left[block], right, out=result[block])
    return result


def add_product(
    sums: torch.Tensor, left: torch.Tensor, right: torch.Tensor, check: Check = NO_CHECK, *, scale: float = 1.0
) -> torch.Tensor:
    """`sums` becomes `sums` + `scale` · `left` @ `right`."""
    for block in _slices(len(sums), 2 * right.numel()):
        check()
        sums[block].addmm_(left[block], right, alpha=scale)
    return sums


def add_gram(gram: torch.Tensor, rows: torch.Tensor, check: Check = NO_CHECK) -> None:
    """Add X^T X of X [token, channel], summed in its own precision, to `gram` [channel, channel].

    Half of it is multiplied, and mirrored.
    """
    for start in range(0, len(gram), _GRAM_BLOCK):
        left = rows[:, start : start + _GRAM_BLOCK]
        for block in _slices(len(gram) - start, 2 * left.numel()):
            check()
            columns = slice(start + block.start, start + block.stop)
            part = left.T @ rows[:, columns]  # [channel of the block, channel]
            gram[start : start + _GRAM_BLOCK, columns] += part
            after = max(columns.start, start + _GRAM_BLOCK)
            gram[after : columns.stop, start : start + _GRAM_BLOCK] += part[:, after - columns.start :].T


def add_products(sums: torch.Tensor, left: torch.Tensor, right: torch.Tensor, check: Check = NO_CHECK) -> None:
    """Add Y^T X of Y [token, row] and X [token, column], summed in their own precision, to `sums` [row, column]."""
    for block in _slices(len(sums), 2 * right.numel()):
        check()
        sums[block] += left[:, block].T @ right
