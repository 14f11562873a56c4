"""Plan files: whatever they hold, a plan that can be used or one sentence."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import transact as ta
from tests.fuzz.strategies import INPUTS, JUNK, fuzzing, one_sentence, spoiled_bytes, spoiled_json
from tests.tiny_models import build
from transact.errors import InvalidPlan, TransactError

DENSE = {name: build(name) for name in ("llama", "gpt2", "opt")}
PLANS = [
    ta.make_plan(ta.ImportanceScores.random(loaded.spec), loaded.spec, ta.PruningTarget(3, 7))
    for loaded in DENSE.values()
]
PLANS += [replace(plan, kept_layers=(0, 2)) for plan in PLANS]
WRITTEN = [plan.to_json() for plan in PLANS]


def use(text: str) -> None:
    """Read a plan and do with it what the app and the shell do."""
    try:
        plan = ta.PruningPlan.from_json(text)
    except InvalidPlan as error:
        one_sentence(error)
        return
    assert ta.PruningPlan.from_json(plan.to_json()) == plan
    json.dumps(plan.summary())
    assert plan.spec.stored.num_parameters > 0
    for loaded in DENSE.values():
        try:
            plan.check_fits(loaded.fingerprint)
            ta.prune(loaded, plan)
        except TransactError as error:
            one_sentence(error)


def test_there_are_ten_thousand_inputs():
    assert sum(INPUTS.values()) >= 10_000


@fuzzing("plans", 0.6)
@given(st.sampled_from([json.loads(text) for text in WRITTEN]).flatmap(spoiled_json))
def test_spoiled_plans(text):
    use(text)


@fuzzing("plans", 0.25)
@given(st.sampled_from(WRITTEN).flatmap(lambda text: spoiled_bytes(text.encode())))
def test_spoiled_files(content):
    use(content.decode(errors="replace"))


@fuzzing("plans", 0.15)
@given(JUNK)
def test_something_else(value):
    use(json.dumps(value))


@pytest.mark.parametrize("text", ["", "[" * 100_000, '{"format": ' * 5_000, "1" * 10_000, "null", '"plan"'])
def test_what_is_no_plan_at_all(text):
    with pytest.raises(InvalidPlan) as caught:
        ta.PruningPlan.from_json(text)
    one_sentence(caught.value)
