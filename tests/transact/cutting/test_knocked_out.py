"""Single units switched off: the same as their columns being zero, and nothing stays behind."""

import pytest
import torch

import transact as ta
from tests.tiers import LAYOUTS, cases
from tests.tiny_models import build, token_ids
from transact.layers.slicing import reading_role
from transact.layers.weights import matrix


@pytest.mark.parametrize("name", cases(LAYOUTS, test=LAYOUTS, check=("llama", "gpt2")))
def test_a_unit_that_is_knocked_out_is_one_whose_columns_are_zero(name):
    loaded, by_hand = build(name, torch.float64), build(name, torch.float64)
    ids, width = token_ids(loaded), loaded.spec.value_dim
    with torch.no_grad():
        whole = loaded.model(ids).logits
        with ta.knocked_out(loaded, 1, heads=(2,), channels=(0, 7)):
            without = loaded.model(ids).logits
        layer = by_hand.decoder_layers[1]
        for site, columns in (("attention", range(2 * width, 3 * width)), ("mlp", (0, 7))):
            module = layer.get_submodule(reading_role(by_hand.spec, site))
            matrix(module)[:, list(columns)] = 0
        expected = by_hand.model(ids).logits
        assert (without - expected).abs().max() < 1e-6  # some norms compute in float32
        assert (without - whole).abs().max() > 1e-6
        assert torch.equal(loaded.model(ids).logits, whole)


@pytest.mark.parametrize(
    ("layer", "units", "said"),
    [(9, {}, "layer is 9"), (0, {"heads": (99,)}, "head is 99"), (0, {"channels": (-1,)}, "channel is -1")],
)
def test_units_that_there_are_not(layer, units, said):
    with pytest.raises(ta.InvalidOption, match=said), ta.knocked_out(build("llama"), layer, **units):
        pass
