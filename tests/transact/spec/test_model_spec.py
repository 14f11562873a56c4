"""The cost model against published sizes and against real models."""

from pathlib import Path

import pytest
from transformers import AutoConfig

import transact as ta
from tests.tiers import PLAIN, cases
from tests.tiny_models import TINY, build
from transact.spec.families import FAMILIES


@pytest.fixture(scope="module")
def llama2_7b() -> ta.ModelSpec:
    config = AutoConfig.for_model(
        "llama",
        vocab_size=32000,
        hidden_size=4096,
        intermediate_size=11008,
        num_hidden_layers=32,
        num_attention_heads=32,
    )
    return ta.ModelSpec.from_config(config)


@pytest.mark.parametrize(
    ("groups", "channels", "billions", "kibibytes"),
    [(32, 11008, 6.738, 512), (6, 1536, 1.269, 96), (16, 3072, 2.544, 256)],
)
def test_llama2_7b_and_its_transact_forms(llama2_7b, groups, channels, billions, kibibytes):
    spec = llama2_7b.with_layers((ta.LayerShape(groups, groups, channels),) * 32)
    assert round(spec.num_parameters / 1e9, 3) == billions
    assert spec.kv_bytes_per_token() == kibibytes * 1024


@pytest.mark.parametrize("name", cases(TINY, test=TINY, check=PLAIN))
def test_parameters_are_those_of_the_real_model(name):
    loaded = build(name)
    assert loaded.spec.num_parameters == loaded.model.num_parameters()


def test_flops_by_hand():
    # hidden 4, 2 heads of 2 on 1 key/value head, 3 channels, vocabulary 5, one layer, context 10:
    # q 4·4 + k 4·2 + v 4·2 + o 4·4 = 48, MLP 3·4·3 = 36, head 5·4 = 20 -> 2 · 104; attention 4·10·2·2 = 160
    spec = ta.ModelSpec.from_config(
        AutoConfig.for_model(
            "llama",
            vocab_size=5,
            hidden_size=4,
            intermediate_size=3,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
        )
    )
    assert spec.flops_per_token(context=10) == 2 * 104 + 160
    assert spec.kv_bytes_per_token(bytes_per_element=4) == 2 * 1 * 2 * 4


def test_round_trip_and_fingerprint(llama2_7b):
    again = ta.ModelSpec.from_dict(llama2_7b.to_dict())
    assert again == llama2_7b
    assert again.fingerprint == llama2_7b.fingerprint
    smaller = llama2_7b.with_layers((ta.LayerShape(32, 32, 11007),) + llama2_7b.layers[1:])
    assert smaller.fingerprint != llama2_7b.fingerprint


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"model_type": "gpt_bigcode"}, "not supported"),
        ({"model_type": "bert", "architectures": ["BertForMaskedLM"]}, "encoder"),
        ({"model_type": "t5", "is_encoder_decoder": True}, "encoder-decoder"),
        ({"model_type": "mixtral", "num_local_experts": 8}, "mixture-of-experts"),
        ({"model_type": "llama", "quantization_config": {"quant_method": "gptq"}}, "quantised (gptq)"),
        ({"model_type": "llama", "architectures": ["LlamaForSequenceClassification"]}, "no language-model head"),
        ({}, "names no model_type"),
    ],
)
def test_refusals_name_the_reason(config, reason):
    from transact.spec.config_family import family_of

    with pytest.raises(ta.ModelUnsupported) as caught:
        family_of(config)
    assert reason in str(caught.value)


def test_one_expert_is_a_dense_mlp():
    """As HunYuan's dense models say of themselves."""
    from transact.spec.config_family import family_of

    assert family_of({"model_type": "hunyuan_v1_dense", "num_experts": 1}).label == "HunYuan (dense)"
    with pytest.raises(ta.ModelUnsupported, match="mixture-of-experts"):
        family_of({"model_type": "hunyuan_v1_dense", "num_experts": 2})


def test_readme_names_every_family():
    readme = (Path(__file__).parents[3] / "README.md").read_text(encoding="utf-8")
    (row,) = [line for line in readme.splitlines() if line.startswith("| families |")]
    assert [family.label for family in FAMILIES.values() if family.label not in row] == []


@pytest.mark.parametrize("name", ["query_key_dim", "value_dim"])
def test_a_width_of_nothing_is_not_taken_for_one_that_is_not_given(name):
    config = AutoConfig.for_model("llama", **{name: 0})
    with pytest.raises(ta.ModelUnsupported, match="both are whole numbers"):
        ta.ModelSpec.from_config(config)
    spec = ta.ModelSpec.from_config(AutoConfig.for_model("llama"))
    assert getattr(spec.with_heads(**{name: 0}), name) == 0


@pytest.mark.parametrize(
    ("family", "changes", "reason"),
    [
        ("opt", {"do_layer_norm_before": False}, "norms the residual stream itself"),
        ("phi", {"qk_layernorm": True}, "follows from the number of heads"),
        ("olmo", {"attention_bias": True}, "give Taylor no gradients"),
    ],
)
def test_layouts_that_cannot_be_cut_exactly_are_refused_with_the_reason(family, changes, reason):
    config = AutoConfig.for_model(family, **changes)
    with pytest.raises(ta.ModelUnsupported, match=reason):
        ta.ModelSpec.from_config(config)
