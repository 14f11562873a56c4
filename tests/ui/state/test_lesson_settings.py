"""What a lesson sets is one step that undo takes back, on any model."""

from dataclasses import replace

import pytest
from transformers import LlamaConfig

import transact as ta
from ui.errors import NotYet
from ui.state import plan_of_choice
from ui.state.lesson_settings import Press, pressed
from ui.state.session import BUNDLED, Choice, ModelKey, Sampling, Scored, Session
from ui.state.view import Selection
from ui.text_sources.text_source import TextSource


def scored_of(spec: ta.ModelSpec, name: str) -> Scored:
    scores = {metric: ta.ImportanceScores.random(spec) for metric in ("transact", "random")}
    return Scored(BUNDLED, spec, TextSource(name, ("x",), "sample"), Sampling(), None, None, 0.1, None, scores)


@pytest.fixture
def session() -> Session:
    spec = ta.ModelSpec.from_config(
        LlamaConfig(
            hidden_size=16, num_attention_heads=4, head_dim=4, num_hidden_layers=2, intermediate_size=8, vocab_size=32
        )
    )
    choice = Choice(metric="random", mlp=0.7, locks=ta.Locks(keep_channels=frozenset({(0, 1)})))
    return plan_of_choice.planned(Session("me", BUNDLED, spec, scored_of(spec, "own"), choice))


def test_the_choice_is_the_standard_one_and_undo_brings_back_the_visitors(session):
    first = scored_of(session.spec, "mixed")
    after = pressed(session, Press(0.25, 0.5, head=(1, 2)), first)
    assert after.choice == replace(Choice(), attention=0.25, mlp=0.5)
    assert after.scored is first and after.plan.spec.layers[0].intermediate_size == 4
    assert after.view.selection == Selection(1, head=2)
    back = plan_of_choice.undone(after)
    assert (back.choice, back.scored) == (session.choice, session.scored)


def test_another_model_keeps_its_scores_and_takes_the_nearest_step(session):
    other = replace(session, key=ModelKey("another"))
    after = pressed(other, Press(0.3, 0.5, head=(5, 7)), scored_of(session.spec, "mixed"))
    assert after.scored is session.scored and after.choice.attention == 0.25
    assert after.view.selection == Selection(1, head=3)


def test_without_a_model_nothing_is_set(session):
    with pytest.raises(NotYet, match="load one first"):
        pressed(replace(session, spec=None), Press(), None)
