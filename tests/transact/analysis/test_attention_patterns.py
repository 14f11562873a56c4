"""Attention patterns: times the values they are what the model's own attention passes on, in every family."""

import threading

import pytest
import torch

import transact as ta
from tests.tiers import cases
from tests.tiny_models import TINY, build
from transact.layers.hooks import on_calls, on_inputs
from transact.layers.slicing import written_rows

pytestmark = pytest.mark.rounding
TEXT = "One day a fox met a crow"
FAMILIES = ("llama", "gemma2", "phi3", "gpt-neox", "gpt2", "olmo2", "smollm3", "opt", "mistral")


@pytest.fixture(scope="module")
def tokenizer():
    return ta.load("bundled").tokenizer


def _readable(name: str, tokenizer, **changes) -> ta.LoadedModel:
    """A tiny model of that family that can read text."""
    model_type, own = TINY[name]
    TINY["readable"] = (model_type, {**own, "vocab_size": len(tokenizer), **changes})
    try:
        return ta.LoadedModel.from_model(build("readable").model, tokenizer, source=name)
    finally:
        del TINY["readable"]


def _seen(loaded: ta.LoadedModel, ids: torch.Tensor) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Per layer what stock attention passes on and the values it weighs, as [head, seq, dim] and [group, seq, dim]."""
    passed, values, functions, calls = [], [], [], []
    spec = loaded.spec
    for layer, shape in zip(loaded.decoder_layers, spec.layers, strict=True):
        own = next(each for each in written_rows(spec, shape, "attention") if each.role == "value")

        def keep_value(inputs, output, rows=own.rows):
            values.append(output[0, :, rows].unflatten(-1, (-1, spec.value_dim)).transpose(0, 1))

        def keep_passed(inputs):
            passed.append(inputs.reshape(ids.shape[1], -1, spec.value_dim).transpose(0, 1))

        calls.append((layer.get_submodule(own.module), keep_value))
        functions.append((layer.get_submodule(spec.layout.output), keep_passed))
    with on_calls(calls), on_inputs(functions), torch.inference_mode():
        loaded.model(ids, use_cache=False)
    return passed, values


@pytest.mark.parametrize("name", cases(TINY, test=FAMILIES, check=("llama", "gemma2", "gpt2")))
def test_pattern_times_values_is_what_the_stock_model_passes_on(name, tokenizer):
    loaded = _readable(name, tokenizer)
    before = loaded.model.config._attn_implementation
    patterns = ta.attention_patterns(loaded, TEXT)
    assert loaded.model.config._attn_implementation == before
    ids = torch.tensor([tokenizer(TEXT)["input_ids"]])
    assert patterns.num_tokens == ids.shape[1] > 8 and "".join(patterns.tokens).endswith("a fox met a crow")
    clip = getattr(loaded.model.config, "clip_qkv", None) or float("inf")
    for pattern, passed, values in zip(patterns.layers, *_seen(loaded, ids), strict=True):
        assert torch.allclose(pattern.sum(dim=-1), torch.ones(()), atol=1e-5)
        assert not pattern.triu(1).any()
        of_heads = values.clamp(-clip, clip).repeat_interleave(len(pattern) // len(values), dim=0)
        # stock attention takes the softmax in float32
        assert torch.allclose(pattern.double() @ of_heads, passed, atol=1e-5 * float(passed.abs().max()))


def test_a_window_ends_what_is_seen(tokenizer):
    loaded = _readable("mistral", tokenizer, sliding_window=3)
    (first, *_) = ta.attention_patterns(loaded, TEXT).layers
    places = torch.arange(first.shape[1])
    inside = (places[:, None] - places).clamp(min=-1)
    assert not first[:, inside >= 3].any() and (first[:, (inside >= 0) & (inside < 3)] > 0).all()


def test_behind_a_mask_the_patterns_are_those_of_the_cut_model(tokenizer):
    loaded = _readable("llama", tokenizer)
    scores = ta.ImportanceScores.random(loaded.spec)
    plan = ta.make_plan(scores, loaded.spec, ta.PruningTarget(keep_head_groups=2, keep_channels=20))
    whole = ta.attention_patterns(loaded, TEXT)
    with ta.masked(loaded, plan):
        behind = ta.attention_patterns(loaded, TEXT)
    cut = ta.attention_patterns(ta.prune(loaded, plan), TEXT)
    for kept, masked, pruned in zip(plan.layers, behind.layers, cut.layers, strict=True):
        assert torch.allclose(masked[list(kept.kept_heads)], pruned, atol=1e-6)
    assert not torch.allclose(whole.layers[-1], behind.layers[-1], atol=1e-3)
    again = ta.attention_patterns(loaded, TEXT)
    assert all(torch.equal(one, other) for one, other in zip(whole.layers, again.layers, strict=True))


def test_another_thread_sees_nothing_of_it(tokenizer):
    """The copy has its own settings: meanwhile the model computes with the attention it was loaded with."""
    loaded = _readable("llama", tokenizer)
    used, at_work, seen = [], threading.Event(), threading.Event()

    def progress(done, total, unit):
        at_work.set()
        assert seen.wait(20)

    worker = threading.Thread(target=lambda: ta.attention_patterns(loaded, TEXT, progress=progress))
    worker.start()
    assert at_work.wait(20)
    used.append(loaded.model.config._attn_implementation)
    seen.set()
    worker.join()
    assert used == ["sdpa"] and loaded.decoder_layers[0].self_attn.config._attn_implementation == "sdpa"


def test_long_texts_are_cut_and_what_cannot_be_read_is_refused(tokenizer):
    loaded = _readable("llama", tokenizer)
    cut, whole = ta.attention_patterns(loaded, TEXT, seq_len=4), ta.attention_patterns(loaded, TEXT)
    assert cut.tokens == whole.tokens[:4]
    assert torch.allclose(cut.layers[2], whole.layers[2][:, :4, :4], atol=1e-6)
    with pytest.raises(ta.InvalidPrompt, match="empty"):
        ta.attention_patterns(loaded, "  ")
    with pytest.raises(ta.InvalidPrompt, match="without a tokenizer"):
        ta.attention_patterns(build("llama"), TEXT)


def test_a_streamed_model_is_refused_in_one_sentence(tmp_path):
    ta.save(ta.load("bundled"), tmp_path / "saved")
    with pytest.raises(ta.InvalidOption, match="an attention pattern needs that"):
        ta.attention_patterns(ta.load_streamed(str(tmp_path / "saved")), TEXT)
