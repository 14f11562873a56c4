"""Least-squares repair: the closed form by hand, its optimality, and the published figures."""

import importlib

import pytest
import torch

import transact as ta
from tests.tiers import FEW, PLAIN, cases
from tests.tiny_models import TINY, build, token_ids
from transact.layers.weights import matrix
from transact.repair.ridge import least_squares

pytestmark = pytest.mark.rounding

# groups, channels: TransAct metric and FLAP metric, each with one-pass least squares (development data, README)
REFERENCE_PERPLEXITIES = {
    (4, 137): (6.08, 6.03),
    (4, 86): (21.40, 18.58),
    (3, 172): (4.92, 4.72),
    (3, 137): (7.61, 7.36),
    (2, 86): (36.31, 28.92),
}


def test_a_copied_channel_is_taken_over_whole():
    """x_1 = 2 x_0 always: keeping x_0 alone can do all that both did, but for the ridge."""
    activations = torch.tensor([[1.0, 2.0], [2.0, 4.0], [-1.0, -2.0]], dtype=torch.float64)
    gram = activations.T @ activations  # [[6, 12], [12, 24]], mean diagonal 15, ridge 0.015
    weight = torch.tensor([[1.0, 1.0]], dtype=torch.float64)
    # (1·6 + 1·12 + 0.015·1) / (6 + 0.015)
    expected = torch.tensor([[18.015 / 6.015]], dtype=torch.float64)
    torch.testing.assert_close(least_squares(weight, gram, torch.tensor([0])), expected)


def test_it_minimises_its_objective():
    generator = torch.Generator().manual_seed(0)
    activations = torch.randn(50, 6, dtype=torch.float64, generator=generator)
    activations[:, 4] += activations[:, 1]
    weight = torch.randn(3, 6, dtype=torch.float64, generator=generator)
    kept, gram = torch.tensor([0, 1, 3]), activations.T @ activations
    ridge = 1e-3 * gram.diagonal().mean()

    def objective(new):
        error = activations @ weight.T - activations[:, kept] @ new.T
        return error.square().sum() + ridge * (new - weight[:, kept]).square().sum()

    solution = least_squares(weight, gram, kept).requires_grad_()
    objective(solution).backward()
    assert solution.grad.abs().max() < 1e-9


def test_nothing_removed_and_nothing_seen_change_nothing():
    weight = torch.randn(3, 4)
    everything = torch.arange(4)
    assert torch.equal(least_squares(weight, torch.eye(4).double(), everything), weight)
    unseen = torch.zeros(4, 4, dtype=torch.float64)
    assert torch.equal(least_squares(weight, unseen, everything[:2]), weight[:, :2])


@pytest.mark.parametrize("name", cases(TINY, test=PLAIN, check=FEW))
def test_repair_lowers_the_error_of_every_site_and_adds_no_tensor(name):
    dense = build(name)
    calibration = ta.CalibrationSet.from_token_ids(token_ids(dense, samples=20))
    statistics = ta.observe(dense, calibration, gram=True)
    target = ta.PruningTarget(keep_head_groups=2, keep_channels=25)
    plan = ta.make_plan(ta.score(dense, statistics), dense.spec, target)
    plain = ta.prune(dense, plan)
    repaired = ta.prune(dense, plan, compensation="least_squares", statistics=statistics)
    assert plain.model.state_dict().keys() == repaired.model.state_dict().keys()
    head_dim = dense.spec.head_dim
    for index, kept in enumerate(plan.layers):
        heads = [head * head_dim + offset for head in kept.kept_heads for offset in range(head_dim)]
        for site, role, chosen in (
            ("attention", dense.layout.output, heads),
            ("mlp", dense.layout.down, list(kept.kept_channels)),
        ):
            gram = getattr(statistics, site)[index].gram
            errors = [_error(dense, model, index, role, chosen, gram) for model in (repaired, plain)]
            assert errors[0] < errors[1]


@torch.no_grad()
def _error(dense, model, index, role, chosen, gram) -> float:
    """‖X W^T − X_S W'^T‖² from the Gram matrix: tr(D G D^T) with D the difference of the weights."""
    difference = matrix(dense.decoder_layers[index].get_submodule(role)).clone()
    difference[:, chosen] -= matrix(model.decoder_layers[index].get_submodule(role))
    return float(((difference @ gram) * difference).sum())


def test_repaired_weights_fit_the_dtype_of_the_base(tmp_path):
    """Loaded in float32 from bfloat16 files, repaired, saved as bfloat16: the weights that were measured."""
    ta.save(build("llama", torch.float32), tmp_path / "base", dtype="bfloat16")
    base = ta.load(str(tmp_path / "base"), dtype="float32")
    statistics = ta.observe(base, ta.CalibrationSet.from_token_ids(token_ids(base, samples=20)), gram=True)
    plan = ta.make_plan(ta.score(base, statistics), base.spec, ta.PruningTarget(2, 25))
    repaired = ta.prune(base, plan, compensation="least_squares", statistics=statistics)
    ta.save(repaired, tmp_path / "small", dtype=base.stored_dtype)
    again = ta.load(str(tmp_path / "small"), dtype="float32").model.state_dict()
    assert all(torch.equal(again[name], value) for name, value in repaired.model.state_dict().items())


def test_the_repair_is_part_of_the_models_identity():
    dense = build("llama")
    statistics = ta.observe(dense, ta.CalibrationSet.from_token_ids(token_ids(dense, samples=20)), gram=True)
    plan = ta.make_plan(ta.score(dense, statistics), dense.spec, ta.PruningTarget(2, 25))
    plain = ta.prune(dense, plan)
    repaired = ta.prune(dense, plan, compensation="least_squares", statistics=statistics)
    assert plain.fingerprint != repaired.fingerprint


def test_gram_matrices_count_real_tokens_alone_and_round_trip(tmp_path):
    dense = build("llama")
    ids = token_ids(dense, samples=3)
    mask = torch.ones_like(ids)
    mask[0, 6:] = 0
    padded = ta.observe(dense, ta.CalibrationSet.from_token_ids(ids, mask), gram=True)
    parts = (ids[:1, :6], ids[1:])
    alone = [ta.observe(dense, ta.CalibrationSet.from_token_ids(part), gram=True) for part in parts]
    for index in range(dense.spec.num_hidden_layers):
        torch.testing.assert_close(padded.mlp[index].gram, sum(part.mlp[index].gram for part in alone))
        torch.testing.assert_close(padded.attention[index].gram.diagonal(), padded.attention[index].square_sums)
    padded.save(tmp_path / "statistics.safetensors")
    again = ta.ActivationStatistics.load(tmp_path / "statistics.safetensors")
    assert torch.equal(again.mlp[0].gram, padded.mlp[0].gram)


@pytest.mark.parametrize("name", ["llama", "qwen2", "granite"])
def test_a_layer_at_a_time_gives_what_all_at_once_gives(name, tmp_path):
    dense = build(name)
    ids = token_ids(dense, samples=11)
    mask = torch.ones_like(ids)
    mask[3, 5:] = 0
    calibration = ta.CalibrationSet.from_token_ids(ids, mask)
    whole = ta.observe(dense, calibration, gram=True)
    by_layer = ta.observe(dense, calibration, gram="by_layer")
    assert all(moments.gram is None for moments in (*by_layer.attention, *by_layer.mlp))
    plan = ta.make_plan(ta.score(dense, whole), dense.spec, ta.PruningTarget(2, 20))
    steps = []
    pruned = [
        ta.prune(dense, plan, compensation="least_squares", statistics=each, progress=lambda *at: steps.append(at))
        for each in (whole, by_layer)
    ]
    count = dense.spec.num_hidden_layers
    # each figure again and again, so that the work can be stopped
    assert list(dict.fromkeys(steps)) == [(index, count, "layers") for index in range(count)]
    for one, other in zip(*(model.model.parameters() for model in pruned), strict=True):
        torch.testing.assert_close(one, other)
    by_layer.save(tmp_path / "statistics.safetensors")  # without the text, there is nothing to gather from
    with pytest.raises(ta.InvalidOption, match="gram=True"):
        again = ta.ActivationStatistics.load(tmp_path / "statistics.safetensors")
        ta.prune(dense, plan, compensation="least_squares", statistics=again)


def test_a_layer_at_a_time_says_what_it_needs(monkeypatch):
    dense = build("llama")
    statistics = ta.observe(dense, ta.CalibrationSet.from_token_ids(token_ids(dense)), gram="by_layer")
    plan = ta.make_plan(ta.score(dense, statistics), dense.spec, ta.PruningTarget(2, 20))
    monkeypatch.setattr(importlib.import_module("transact.repair.layer_grams"), "free_bytes", lambda device: 100)
    with pytest.raises(ta.NotEnoughMemory, match="widest layer"):
        ta.prune(dense, plan, compensation="least_squares", statistics=statistics)


def test_statistics_that_it_cannot_work_from_are_refused(monkeypatch):
    dense = build("llama")
    calibration = ta.CalibrationSet.from_token_ids(token_ids(dense))
    statistics = ta.observe(dense, calibration)
    plan = ta.make_plan(ta.score(dense, statistics), dense.spec, ta.PruningTarget(2, 20))
    for given in (None, statistics):
        with pytest.raises(ta.InvalidOption, match="gram=True"):
            ta.prune(dense, plan, compensation="least_squares", statistics=given)
    other = ta.observe(build("qwen2"), calibration, gram=True)
    with pytest.raises(ta.InvalidPlan, match="another model"):
        ta.prune(dense, plan, compensation="least_squares", statistics=other)
    with pytest.raises(ta.InvalidOption, match="none, bias, least_squares, best"):
        ta.prune(dense, plan, compensation="hope")
    # by its full name, as the package's attribute `observe` is the function
    monkeypatch.setattr(importlib.import_module("transact.observing.observe"), "free_bytes", lambda device: 100)
    with pytest.raises(ta.NotEnoughMemory, match='Gram matrices.*gram="by_layer"'):
        ta.observe(dense, calibration, gram=True)


@pytest.fixture(scope="module")
def reference(stories, calibration_texts, evaluation_texts) -> tuple[ta.ActivationStatistics, ta.EvaluationSet]:
    """What the reference table was made with."""
    calibration = ta.CalibrationSet.from_texts(calibration_texts, stories.tokenizer, seq_len=256, min_tokens=64)
    evaluation = ta.EvaluationSet.from_texts(evaluation_texts, stories.tokenizer, seq_len=256, min_tokens=64)
    return ta.observe(stories, calibration, gram=True), evaluation


@pytest.mark.parametrize("size", cases([(size,) for size in REFERENCE_PERPLEXITIES], test=[(3, 172)]))
def test_perplexities_of_the_reference_table(size, stories, reference):
    statistics, evaluation = reference
    for metric, expected in zip(("transact", "fluctuation"), REFERENCE_PERPLEXITIES[size], strict=True):
        target = ta.PruningTarget(*size)
        plan = ta.make_plan(ta.score(stories, statistics, metric=metric), stories.spec, target)
        pruned = ta.prune(stories, plan, compensation="least_squares", statistics=statistics)
        assert ta.perplexity(pruned, evaluation) == pytest.approx(expected, rel=0.03), metric


def test_the_bias_by_hand():
    """What a removed channel added on average is what the bias adds."""
    dense = build("llama-biased")
    statistics = ta.observe(dense, ta.CalibrationSet.from_token_ids(token_ids(dense, samples=5)))
    plan = ta.make_plan(ta.score(dense, statistics), dense.spec, ta.PruningTarget(2, 39))
    pruned = ta.prune(dense, plan, compensation="bias", statistics=statistics)
    for index, kept in enumerate(plan.layers):
        (gone,) = set(range(40)) - set(kept.kept_channels)
        down = dense.decoder_layers[index].mlp.down_proj
        mean = statistics.mlp[index].sums[gone] / statistics.num_tokens
        expected = down.bias + mean * down.weight[:, gone]
        torch.testing.assert_close(pruned.decoder_layers[index].mlp.down_proj.bias, expected)


def test_a_llama_without_biases_gets_them_and_stays_a_stock_checkpoint(tmp_path):
    dense = build("llama")
    statistics = ta.observe(dense, ta.CalibrationSet.from_token_ids(token_ids(dense, samples=9)))
    ids = token_ids(dense)
    for groups, expected in ((2, "LlamaForCausalLM"), (3, "GraniteForCausalLM")):
        plan = ta.make_plan(ta.score(dense, statistics), dense.spec, ta.PruningTarget(groups, 20))
        pruned = ta.prune(dense, plan, compensation="bias", statistics=statistics)
        assert pruned.spec.qkv_bias and pruned.spec.output_bias and pruned.spec.mlp_bias
        held = sum(parameter.numel() for parameter in pruned.model.parameters())
        assert held == pruned.spec.num_parameters
        assert not pruned.decoder_layers[0].self_attn.q_proj.bias.any()
        # the same numbers as adding the mean output behind a mask-equal cut
        plain = ta.prune(dense, plan)
        with torch.no_grad():
            assert not torch.allclose(plain.model(ids).logits, pruned.model(ids).logits)
            report = ta.save(pruned, tmp_path / expected)
            assert report.model_class == expected
            again = ta.load(str(tmp_path / expected), dtype="float64")
            torch.testing.assert_close(again.model(ids).logits, pruned.model(ids).logits)
    assert not dense.model.config.attention_bias


def test_only_the_biases_that_are_wanted_are_switched_on():
    dense = build("llama")
    statistics = ta.observe(dense, ta.CalibrationSet.from_token_ids(token_ids(dense)))
    plan = ta.make_plan(ta.score(dense, statistics), dense.spec, ta.PruningTarget(4, 20))
    spec = ta.prune(dense, plan, compensation="bias", statistics=statistics).spec
    assert spec.mlp_bias and not spec.qkv_bias and not spec.output_bias


@pytest.mark.parametrize("name", ["mistral", "qwen2"])
def test_classes_without_an_output_bias_refuse_one(name):
    dense = build(name)
    statistics = ta.observe(dense, ta.CalibrationSet.from_token_ids(token_ids(dense)))
    plan = ta.make_plan(ta.score(dense, statistics), dense.spec, ta.PruningTarget(2, 20))
    with pytest.raises(ta.InvalidOption, match="cannot hold"):
        ta.prune(dense, plan, compensation="bias", statistics=statistics)


def test_bias_repair_needs_statistics():
    dense = build("granite")
    plan = ta.make_plan(ta.ImportanceScores.random(dense.spec), dense.spec, ta.PruningTarget(2, 20))
    with pytest.raises(ta.InvalidOption, match="Pass statistics"):
        ta.prune(dense, plan, compensation="bias")


def test_grams_of_one_site_alone():
    dense = build("llama")
    calibration = ta.CalibrationSet.from_token_ids(token_ids(dense))
    both, one = ta.observe(dense, calibration, gram=True), ta.observe(dense, calibration, gram="attention")
    for whole, part in zip((*both.attention, *both.mlp), (*one.attention, *one.mlp), strict=True):
        assert torch.equal(whole.sums, part.sums)
    assert all(torch.equal(a.gram, b.gram) for a, b in zip(both.attention, one.attention, strict=True))
    assert all(moments.gram is None for moments in one.mlp)
    target = ta.PruningTarget(2, 20)
    assert ta.search_plan(dense, one, target).layers == ta.search_plan(dense, both, target).layers
    with pytest.raises(ta.InvalidOption, match="gram"):
        ta.observe(dense, calibration, gram="mlp")
