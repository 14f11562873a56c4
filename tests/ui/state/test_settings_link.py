"""The link holds every setting that a result depends on: a new one that it forgets fails here."""

from dataclasses import fields, replace
from urllib.parse import parse_qsl

import gradio as gr
import pytest
from transformers import LlamaConfig

import transact as ta
from ui.errors import WrongInput
from ui.pages import calibration, cut, goal, maps, model, rules
from ui.state import settings_link
from ui.state.choice import Budget
from ui.state.options import FULL, HELD_OUT, PASTE, Options
from ui.state.session import Choice, ModelKey, Sampling, Scored, Session
from ui.text_sources.text_source import TextSource

SPEC = ta.ModelSpec.from_config(
    LlamaConfig(
        hidden_size=16, num_attention_heads=4, head_dim=4, num_hidden_layers=2, intermediate_size=8, vocab_size=32
    )
)
SCORED = Scored(
    ModelKey("org/model"), SPEC, TextSource("stories", ("x",), "sample"), Sampling(), None, None, 1, None, {}
)
OTHERS = {
    ModelKey: ({"source": "org/other"}, {"revision": "abc"}, {"dtype": "bfloat16"}),
    Sampling: (
        {"num_samples": 64}, {"seq_len": 128}, {"seed": 7}, {"taylor": True}, {"held_out": 0.07},
    ),
    Choice: (
        {"metric": "wanda"}, {"attention": 0.5}, {"mlp": 0.37}, {"allocation": "global"}, {"granularity": "heads"},
        {"budget": Budget("memory", 0.62)}, {"keep_head_groups": (1, 2), "keep_channels": (8, 3)},
        *({"locks": replace(ta.Locks(), **{field.name: frozenset({(0, 1), (1, 3)})})} for field in fields(ta.Locks)),
    ),
    Options: (
        {"repair": "bias"}, {"search": False}, {"measure_on": HELD_OUT}, {"measure_on": "code"}, {"size": FULL},
        {"smaller_by": 35.5}, {"minutes": 0.5}, {"differ": True},
    ),
}  # fmt: skip
"""For every field of what a result depends on, a value that is not the default."""
KEPT_ELSEWHERE = {
    "text", "file", "column", "dataset", "config", "split", "dataset_column",  # a text of one's own, which no link has
    "pasted", "normalisation",  # and how maps are coloured changes no result
    "select", "source",  # the model and the calibration text, which a link has
    "kind", "share",  # a limit
}  # fmt: skip


def there_and_back(session: Session):
    query = settings_link.query(session)
    assert query.startswith("?model=")
    return settings_link.settings(dict(parse_qsl(query.removeprefix("?"), keep_blank_values=True)))


def changed(kind: type, values: dict) -> Session:
    start = Session("visitor", SCORED.key, SPEC, SCORED)
    if kind is ModelKey:
        return replace(start, key=replace(start.key, **values))
    if kind is Sampling:
        return replace(start, scored=replace(SCORED, sampling=replace(SCORED.sampling, **values)))
    name = {Choice: "choice", Options: "options"}[kind]
    return replace(start, **{name: replace(getattr(start, name), **values)})


@pytest.mark.parametrize("kind", OTHERS)
def test_every_setting_comes_back(kind):
    assert {name for values in OTHERS[kind] for name in values} == {field.name for field in fields(kind)}
    for values in OTHERS[kind]:
        session = changed(kind, values)
        found = there_and_back(session)
        here = (session.key, session.scored.text.name, session.scored.sampling, session.choice, session.options)
        assert (found.key, found.text, found.sampling, found.choice, found.options) == here
        assert settings_link.query(session) != settings_link.query(changed(Options, {}))


def test_every_field_beside_the_plan_is_a_setting():
    """A control that somebody adds to these parts belongs into one of the classes above, or into `KEPT_ELSEWHERE`."""
    known = {field.name for kind in OTHERS for field in fields(kind)}
    controls = (gr.Dropdown, gr.Checkbox, gr.Slider, gr.Number, gr.Radio, gr.Textbox, gr.File)
    panels = (
        model.ModelPanel, calibration.CalibrationPanel, goal.GoalPanel, rules.RulesPanel, maps.MapsPanel, cut.CutPanel,
    )  # fmt: skip
    for panel in panels:
        names = {field.name for field in fields(panel) if field.type in controls}
        assert names <= known | KEPT_ELSEWHERE, panel


def test_a_text_of_ones_own_to_measure_on_is_left_out():
    session = changed(Options, {"measure_on": PASTE, "repair": "none"})
    assert there_and_back(session).options == Options(repair="none")


@pytest.mark.parametrize(
    ("name", "value"),
    [("repair", "glue"), ("search", "maybe"), ("measure", "moon"), ("amount", "some"), ("smaller", "100"),
     ("minutes", "0"), ("minutes", "nan"), ("heldout", "2"), ("differ", "inf x")],
)  # fmt: skip
def test_what_cannot_be_is_refused(name, value):
    with pytest.raises(WrongInput):
        settings_link.settings({"model": "bundled", name: value})
