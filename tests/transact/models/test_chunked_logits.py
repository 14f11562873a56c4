"""Predictions made block by block are those of whole logits: every family's head, losses, gradients, training."""

import copy
import math

import pytest
import torch

import transact as ta
from tests.tiers import PLAIN, cases
from tests.tiny_models import TINY, build, token_ids
from tests.transact.cutting.test_exactness import stay_in_float64
from transact.models import chunked_logits
from transact.models.loaded_model import Batch, LoadedModel
from transact.observing.gradients import drawn_losses, output_gradients
from transact.planning.search import fisher_losses
from transact.recovery.trainer import _Student
from transact.recovery.training_text import collate
from transact.runtime.random_numbers import random_numbers

CLOSE = {"rtol": 1e-12, "atol": 1e-14}
"""Float64; between one block and many only the order of sums differs."""


@pytest.fixture(params=[1, 3])
def rows_at_once(request, monkeypatch):
    """Blocks of so few rows that every batch has many; float64 over the 48 words of the tiny models."""
    monkeypatch.setattr(chunked_logits, "BLOCK_BYTES", request.param * 48 * 8)
    return request.param


def _texts(kind: type = ta.CalibrationSet, samples: int = 5):
    rows = [ids[: 4 + 2 * index].tolist() for index, ids in enumerate(token_ids(build("llama"), samples, 16))]
    return kind.from_sequences(rows, name="ids")


@pytest.mark.parametrize("name", cases(TINY, test=TINY, check=PLAIN))
@torch.no_grad()
def test_every_familys_head_is_that_of_its_stock_class(name, rows_at_once):
    loaded = build(name)
    ids = token_ids(loaded)
    expected = loaded.model(input_ids=ids, use_cache=False).logits.flatten(0, 1)
    (hidden,) = loaded.final_hidden([Batch(ids, torch.ones_like(ids, dtype=torch.bool), (0, 1))])
    rows, head = hidden.flatten(0, 1), chunked_logits.output_head(loaded)
    blocks = list(chunked_logits.row_blocks(len(rows), loaded.spec.vocab_size, torch.float64))
    assert [block.stop - block.start for block in blocks] == [rows_at_once] * (24 // rows_at_once)
    torch.testing.assert_close(torch.cat([head(rows[block]) for block in blocks]), expected, **CLOSE)


def test_blocks_of_rows():
    blocks = chunked_logits.row_blocks
    assert list(blocks(0, 10, torch.float32)) == []
    # 34 MiB / (262,144 words · 4 bytes) = 34 rows, as many in bfloat16, whose losses are taken in float32
    for dtype in (torch.float32, torch.bfloat16):
        assert list(blocks(70, 262_144, dtype)) == [slice(0, 34), slice(34, 68), slice(68, 70)]
    assert list(blocks(2, 262_144, torch.float64)) == [slice(0, 2)]
    assert list(blocks(2, 10**8, torch.float32)) == [slice(0, 1), slice(1, 2)]


@pytest.mark.parametrize("name", ["llama-tied", "gemma2", "granite", "opt"])
def test_measures_are_those_of_whole_logits(name, rows_at_once, monkeypatch):
    stay_in_float64(monkeypatch)  # texts of one length at a time or together: Gemma 2's softmax would differ by 1e-8
    dense = build(name)
    evaluation = _texts(ta.EvaluationSet)
    plan = ta.make_plan(ta.ImportanceScores.random(dense.spec), dense.spec, ta.PruningTarget(2, 20))
    pruned = ta.prune(dense, plan)
    losses, reference, agreed, divergence = [], [], [], []
    for row in evaluation.rows():
        ids = torch.tensor([row])
        with torch.no_grad():
            own, other = (model.model(ids).logits[0, :-1].log_softmax(-1) for model in (pruned, dense))
        for log_probabilities, found in ((own, losses), (other, reference)):
            found += (-log_probabilities.gather(1, ids[0, 1:, None])).flatten().tolist()
        agreed += (own.argmax(-1) == other.argmax(-1)).tolist()
        divergence += (other.exp() * (other - own)).sum(-1).tolist()
    report = ta.evaluate(pruned, evaluation, reference=dense, speed=False)
    count = len(losses)
    assert report.num_predictions == count
    assert report.perplexity == pytest.approx(math.exp(sum(losses) / count), rel=1e-12)
    assert report.reference_perplexity == pytest.approx(math.exp(sum(reference) / count), rel=1e-12)
    assert report.top1_agreement == sum(agreed) / count
    assert report.kl_divergence == pytest.approx(sum(divergence) / count, rel=1e-12)
    assert ta.perplexity(pruned, evaluation) == pytest.approx(report.perplexity, rel=1e-12)


@pytest.mark.parametrize("name", ["llama-tied", "gemma2", "granite", "gpt2", "opt"])
def test_gradients_and_draws_are_those_of_whole_logits(name, rows_at_once):
    """Against one backward pass per loss through all logits of a batch, and one random number a token in its order."""
    loaded, tokens = build(name), _texts()
    key = (1, "output")
    modules = {key: loaded.decoder_layers[1].get_submodule(loaded.layout.output)}
    found: dict[int, torch.Tensor] = {}
    generator = torch.Generator().manual_seed(0)

    def losses(targets):
        draws = [random_numbers(len(targets), loaded.dtype, generator) for _ in range(2)]

        def of_block(own, block):
            text = -own.gather(1, targets[block, None]).sum() / len(targets)
            return (text, *drawn_losses(own, [each[block] for each in draws]))

        return of_block

    def add(loss, key, read, gradient, real):
        rows = gradient[real]
        found[loss] = found.get(loss, 0) + rows.T @ read[real]

    output_gradients(loaded, modules, tokens, losses, add, ta.NO_PROGRESS)

    (batch,) = tokens.batches(batch_size=16)
    rows = torch.zeros_like(batch.mask)
    rows[:, :-1] = batch.mask[:, 1:]
    own = loaded.model(batch.input_ids, use_cache=False).logits[rows].log_softmax(-1)
    targets = batch.input_ids[:, 1:][batch.mask[:, 1:]]
    expected = [-own.gather(1, targets[:, None]).mean()]
    again = torch.Generator().manual_seed(0)
    for _ in range(2):
        where = torch.rand(len(own), 1, generator=again, dtype=torch.float64)
        cumulative = own.detach().exp().cumsum(1)
        drawn = (cumulative <= where * cumulative[:, -1:]).sum(1, keepdim=True).clamp(max=own.shape[1] - 1)
        expected.append(-own.gather(1, drawn).sum())
    weight = modules[key].weight
    for number, loss in enumerate(expected):
        (of_weight,) = torch.autograd.grad(loss, weight, retain_graph=True)
        of_weight = of_weight.T if loaded.layout.transposed else of_weight
        scale = float(of_weight.abs().max())
        torch.testing.assert_close(found[number], of_weight, rtol=1e-9, atol=1e-12 * scale)


def _searched_and_repaired(dense: LoadedModel, tokens: ta.CalibrationSet):
    statistics = ta.observe(dense, tokens, gram="attention", taylor=True)
    plan = ta.search_plan(dense, statistics, ta.PruningTarget(2, 20))
    taylor = [layer.taylor for layer in statistics.attention]
    losses = fisher_losses(dense, statistics, tokens, 1)
    return plan, taylor, losses, ta.prune(dense, plan, compensation="best", statistics=statistics).model.state_dict()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt2"])
def test_scores_plans_and_repairs_do_not_depend_on_the_blocks(name, monkeypatch):
    dense, tokens = build(name), _texts(samples=9)
    plan, taylor, losses, weights = _searched_and_repaired(dense, tokens)
    monkeypatch.setattr(chunked_logits, "BLOCK_BYTES", 5 * 48 * 8)
    again = _searched_and_repaired(dense, tokens)
    assert again[0] == plan
    torch.testing.assert_close(again[1], taylor, rtol=1e-11, atol=0)
    torch.testing.assert_close(again[2], losses, rtol=1e-10, atol=1e-14)
    for key, value in weights.items():  # two systems of equations amplify what sums in another order differ by
        torch.testing.assert_close(again[3][key], value, rtol=1e-7, atol=1e-9 * float(value.abs().max()))


@pytest.mark.parametrize("loss", ["language_model", "distillation"])
@pytest.mark.parametrize("name", ["llama", "llama-tied", "gemma2", "granite", "gpt2", "opt"])
def test_training_losses_and_gradients_are_those_of_whole_logits(name, loss, rows_at_once):
    loaded, teacher = build(name), build(name, seed=1)
    batch = collate([list(row) for row in _texts().rows()])
    student = _Student(loaded.model, teacher if loss == "distillation" else None, 2.0, loaded.layout)
    value = student(**batch)["loss"]
    (3 * value).backward()
    found = {key: parameter.grad.clone() for key, parameter in loaded.model.named_parameters()}

    whole = copy.deepcopy(loaded.model)
    whole.zero_grad()
    counted = batch["labels"][:, 1:] >= 0
    logits = whole(input_ids=batch["input_ids"]).logits[:, :-1][counted]
    if loss == "language_model":
        expected = torch.nn.functional.cross_entropy(logits, batch["labels"][:, 1:][counted])
    else:
        with torch.no_grad():
            wanted = (teacher.model(input_ids=batch["input_ids"]).logits[:, :-1][counted] / 2).log_softmax(-1)
        expected = 4 * (wanted.exp() * (wanted - (logits / 2).log_softmax(-1))).sum(-1).mean()
    (3 * expected).backward()
    assert value.item() == pytest.approx(expected.item(), rel=1e-12)
    scale = max(float(parameter.grad.abs().max()) for parameter in whole.parameters())
    for key, parameter in whole.named_parameters():  # some are zero but for rounding, as that of a key's bias
        torch.testing.assert_close(found[key], parameter.grad, rtol=1e-9, atol=1e-12 * scale)


def test_a_replica_of_several_gpus_trains_its_head_too():
    """`torch.nn.DataParallel` gives its replicas tensors that `parameters()` does not name."""
    loaded = build("llama")
    face = chunked_logits.without_decoder(loaded.model, loaded.layout)
    weight = loaded.model.lm_head.weight
    replica = loaded.model.lm_head._replicate_for_data_parallel()
    replica.weight = weight * 1  # what a broadcast gives: no parameter, but on the way to one
    replica._former_parameters = {"weight": replica.weight}
    replica._parameters["bias"] = None
    face._modules["lm_head"] = replica
    assert list(face.parameters()) == []
    hidden = torch.randn(4, 32, dtype=torch.float64)
    chunked_logits.summed_loss(face, hidden, 48, lambda logits, block: logits.square().sum()).backward()
    expected = 2 * (hidden @ weight.detach().T).T @ hidden
    torch.testing.assert_close(weight.grad, expected)
