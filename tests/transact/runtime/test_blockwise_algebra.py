"""Block by block comes to what torch's own routines come to, and asks at every block whether to stop."""

import pytest
import torch

import transact as ta
from transact.repair.ridge import NormalEquations
from transact.runtime import blockwise_algebra

SIZE, COLUMNS = 37, 23
# a condition number of some tens, and as many additions: a few hundred units in the last place of float64
CLOSE = {"rtol": 1e-11, "atol": 1e-12}


@pytest.fixture(params=["whole", "in blocks"])
def checks(request, monkeypatch) -> list[int]:
    """How often the work was asked, in one element; blocks of eight rows, or matrices that are small enough whole."""
    if request.param == "in blocks":
        monkeypatch.setattr(blockwise_algebra, "_STEP", 2_000.0)
        monkeypatch.setattr(blockwise_algebra, "_BLOCK", 8)
        monkeypatch.setattr(blockwise_algebra, "_GRAM_BLOCK", 16)
    return [0]


@pytest.fixture
def check(checks):
    def count() -> None:
        checks[0] += 1

    return count


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def _positive(size: int) -> torch.Tensor:
    rows = _random(3 * size, size)
    return rows.T @ rows / size + torch.eye(size, dtype=torch.float64)


def test_factor_solution_and_inverse(checks, check):
    matrix, right = _positive(SIZE), _random(SIZE, COLUMNS, seed=1)
    kept = matrix.clone()
    factor = blockwise_algebra.cholesky(matrix, check)
    assert torch.equal(matrix, kept)
    torch.testing.assert_close(factor, torch.linalg.cholesky(matrix), **CLOSE)
    torch.testing.assert_close(matrix @ blockwise_algebra.solve(factor, right, check), right, **CLOSE)
    transposed = blockwise_algebra.solve(factor, _random(COLUMNS, SIZE, seed=1).T, check)
    torch.testing.assert_close(matrix @ transposed, _random(COLUMNS, SIZE, seed=1).T, **CLOSE)
    inverted = blockwise_algebra.inverse(factor, check)
    torch.testing.assert_close(inverted, inverted.T, **CLOSE)
    torch.testing.assert_close(matrix @ inverted, torch.eye(SIZE, dtype=torch.float64), **CLOSE)
    assert checks[0] >= 4


def test_products(checks, check):
    left, right, sums = _random(SIZE, 11), _random(11, COLUMNS, seed=1), _random(SIZE, COLUMNS, seed=2)
    torch.testing.assert_close(blockwise_algebra.product(left, right, check), left @ right, **CLOSE)
    expected = sums - 0.5 * left @ right
    torch.testing.assert_close(
        blockwise_algebra.add_product(sums.clone(), left, right, check, scale=-0.5), expected, **CLOSE
    )
    rows, other = _random(50, SIZE), _random(50, COLUMNS, seed=3)
    gram, crossed = _positive(SIZE), _random(SIZE, COLUMNS, seed=4)
    expected = gram + rows.T @ rows, crossed + rows.T @ other
    blockwise_algebra.add_gram(gram, rows, check)
    blockwise_algebra.add_products(crossed, rows, other, check)
    torch.testing.assert_close((gram, crossed), expected, **CLOSE)
    assert checks[0] >= 4


def test_part_of_a_matrix(monkeypatch, check):
    matrix, kept = _positive(SIZE), torch.tensor([1, 5, 8, 30, 31])
    assert torch.equal(blockwise_algebra.part_of(matrix, kept, check), matrix[kept][:, kept])


def test_a_matrix_that_is_not_positive_is_refused_either_way(checks, check):
    with pytest.raises(torch.linalg.LinAlgError):
        blockwise_algebra.cholesky(-_positive(SIZE), check)


def test_the_same_channels_are_missed_least_in_blocks(monkeypatch):
    normal = NormalEquations(_positive(SIZE), _random(COLUMNS, SIZE, seed=1))
    whole = normal.obs_select(12, staying=[3], going=[0, 36])
    monkeypatch.setattr(blockwise_algebra, "_STEP", 2_000.0)
    monkeypatch.setattr(blockwise_algebra, "_BLOCK", 8)
    assert normal.obs_select(12, staying=[3], going=[0, 36]) == whole
    assert 3 in whole and not {0, 36} & set(whole)


def test_a_search_is_stopped_in_any_of_its_steps(monkeypatch):
    monkeypatch.setattr(blockwise_algebra, "_STEP", 2_000.0)
    monkeypatch.setattr(blockwise_algebra, "_BLOCK", 8)
    normal = NormalEquations(_positive(SIZE), _random(COLUMNS, SIZE, seed=1))
    before = normal.inner.clone(), normal.outer.clone()
    calls = []
    normal.obs_select(12, check=lambda: calls.append(None))
    for place in range(0, len(calls), max(1, len(calls) // 25)):
        with pytest.raises(ta.Cancelled):
            normal.obs_select(12, check=stopping_after(place))
    assert torch.equal(normal.inner, before[0]) and torch.equal(normal.outer, before[1])


def stopping_after(calls: int):
    left = calls

    def stop() -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise ta.Cancelled

    return stop
