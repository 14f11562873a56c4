"""What clicks and keys point at, and what locks do, by hand."""

import pytest
import torch
from transformers import LlamaConfig

import transact as ta
from ui.errors import NotYet
from ui.state import selection
from ui.state.score_bins import Landscape
from ui.state.view import Selection

SPEC = ta.ModelSpec.from_config(
    LlamaConfig(
        hidden_size=16, num_attention_heads=4, num_key_value_heads=2, head_dim=4, num_hidden_layers=3,
        intermediate_size=1100, vocab_size=32,
    )
)  # fmt: skip
START = Selection()


@pytest.fixture(scope="module")
def landscape() -> Landscape:
    """Channel scores fall with the index, so that rank and index are the same; two or three channels share a bin."""
    channels = torch.arange(1100, 0, -1, dtype=torch.float64)
    heads = torch.ones(16, dtype=torch.float64)
    scores = ta.ImportanceScores.from_channels(
        "wanda", (heads,) * 3, (channels,) * 3, SPEC, fingerprint=SPEC.fingerprint, calibration="by hand"
    )
    return Landscape.of(scores, SPEC)


def click(plot: str, landscape: Landscape, now: Selection = START, **point) -> Selection:
    return selection.pointed(plot, {"row": 0, "column": 0, "x": 0, **point}, landscape, now)


def test_a_cell_selects_its_head_or_all_channels_of_its_bin(landscape):
    assert click("heads-plot", landscape, row=2, column=3) == Selection(2, head=3)
    assert click("difference-heads", landscape, row=1, column=0) == Selection(1, head=0)
    first = click("channels-plot", landscape, row=1, column=0)
    assert first == Selection(1, channels=(0, 1))
    last = click("difference-channels", landscape, row=0, column=511)
    assert last.channels[-1] == 1099


def test_close_ups_select_within_the_layer_in_view(landscape):
    assert click("layer-heads-plot", landscape, Selection(2), x=1) == Selection(2, head=1)
    assert click("layer-channels-plot", landscape, Selection(2, head=1), x=7) == Selection(2, channels=(6,))
    assert click("correlation-plot", landscape, Selection(0, head=1), x=2) == Selection(2)


def test_what_lies_outside_is_drawn_in(landscape):
    assert click("heads-plot", landscape, row=99, column=-4) == Selection(2, head=0)


@pytest.mark.parametrize(
    ("key", "before", "after"),
    [
        ("ArrowDown", Selection(0, head=1), Selection(1, head=1)),
        ("ArrowUp", Selection(0, head=1), Selection(0, head=1)),
        ("ArrowRight", Selection(0, head=3), Selection(0, head=3)),
        ("ArrowLeft", Selection(0, head=3), Selection(0, head=2)),
        ("ArrowRight", Selection(1), Selection(1, head=0)),
    ],
)
def test_arrows_move_among_heads(landscape, key, before, after):
    assert selection.moved("heads-plot", key, landscape, before) == after


def test_arrows_move_among_bins(landscape):
    first = selection.moved("channels-plot", "ArrowRight", landscape, Selection(1))
    assert first == Selection(1, channels=(0, 1))
    second = selection.moved("channels-plot", "ArrowRight", landscape, first)
    assert second.channels[0] == 2
    assert selection.moved("channels-plot", "ArrowLeft", landscape, second) == first
    assert selection.moved("channels-plot", "ArrowDown", landscape, second).layer == 2


def test_every_channel_lies_in_the_bin_that_names_it(landscape):
    for bin in (0, 1, 200, 511):
        assert {landscape.bin_of(0, channel) for channel in landscape.members(0, bin)} == {bin}


def test_locks_take_the_group_and_replace_each_other():
    kept = selection.locked(ta.Locks(), Selection(1, head=3), selection.KEEP, 2)
    assert kept == ta.Locks(keep_head_groups=frozenset({(1, 1)}))
    removed = selection.locked(kept, Selection(1, head=2), selection.REMOVE, 2)
    assert removed == ta.Locks(remove_head_groups=frozenset({(1, 1)}))
    assert selection.lock_of(removed, Selection(1, head=3), 2) == selection.REMOVE
    assert selection.locked(removed, Selection(1, head=2), selection.FREE, 2) == ta.Locks()


def test_locks_of_channels_are_counted():
    locks = selection.locked(ta.Locks(), Selection(0, channels=(4, 9)), selection.REMOVE, 2)
    assert selection.count(locks) == 2
    assert selection.lock_of(locks, Selection(0, channels=(4,)), 2) == selection.REMOVE
    assert selection.lock_of(locks, Selection(0, channels=(4, 5)), 2) == selection.FREE


def test_a_layer_alone_cannot_be_locked():
    with pytest.raises(NotYet, match="click a head or a channel"):
        selection.locked(ta.Locks(), Selection(2), selection.KEEP, 2)


@pytest.mark.parametrize(("label", "number"), [("#12", 12), ("dense", None), (None, None)])
def test_the_number_in_a_label(label, number):
    assert selection.result_number(label) == number
