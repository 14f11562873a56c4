"""Limits, links and undo: the values behind the controls."""

import math
from dataclasses import replace

import pytest
from transformers import LlamaConfig

import transact as ta
from ui.errors import NotYet, WrongInput
from ui.state import budgets, plan_of_choice, session, settings_link, slider_steps
from ui.state.choice import Budget
from ui.state.session import BUNDLED, Choice, ModelKey, Sampling, Scored, Session
from ui.text_sources.text_source import TextSource

SPEC = ta.ModelSpec.from_config(
    LlamaConfig(
        hidden_size=64, num_attention_heads=8, num_key_value_heads=4, head_dim=8, num_hidden_layers=5,
        intermediate_size=172, vocab_size=512, tie_word_embeddings=True,
    )
)  # fmt: skip


def scored(seed: int = 0, name: str = "stories") -> Scored:
    scores = {metric: ta.ImportanceScores.random(SPEC, seed) for metric in ta.METRICS}
    text = TextSource(name, ("x",), "sample")
    return Scored(BUNDLED, SPEC, text, Sampling(64, 128, 7), None, None, 0.1, None, scores)


@pytest.fixture
def start() -> Session:
    return plan_of_choice.planned(Session("visitor", BUNDLED, SPEC, scored()))


class TestBudgets:
    @pytest.mark.parametrize("kind", budgets.BUDGETS)
    @pytest.mark.parametrize("share", [0.95, 0.8, 0.6, 0.5])
    def test_the_result_keeps_within_and_near_the_limit(self, start, kind, share):
        amount = budgets.BUDGETS[kind].amount
        choice = budgets.with_budget(SPEC, start.choice, Budget(kind, share))
        plan = plan_of_choice.chosen(start, choice).plan
        assert amount(plan.spec) <= round(amount(SPEC) * share)
        # a step of one group, the coarsest, is a quarter of the KV cache
        assert amount(plan.spec) >= amount(SPEC) * (share - (0.02 if kind == "parameters" else 0.25))
        assert plan.spec.is_uniform

    @pytest.mark.parametrize("kind", budgets.BUDGETS)
    def test_the_least_share_can_be_reached(self, kind):
        shape = budgets.target(SPEC, Budget(kind, budgets.least_share(SPEC, kind))).per_layer(SPEC)[0]
        assert shape.num_key_value_heads == 1

    def test_both_sliders_follow(self, start):
        choice = budgets.with_budget(SPEC, start.choice, Budget("parameters", 0.6))
        shape = plan_of_choice.chosen(start, choice).plan.spec.layers[0]
        assert choice.attention == pytest.approx(1 - shape.num_key_value_heads / 4)
        assert choice.mlp == pytest.approx(1 - shape.intermediate_size / 172, abs=0.005)

    def test_a_limit_begins_where_the_sliders_stand(self, start):
        share = budgets.current_share(SPEC, start.plan, "parameters")
        assert share - 0.01 < start.plan.spec.num_parameters / SPEC.num_parameters <= share


class TestUndo:
    def test_there_and_back(self, start):
        changed = plan_of_choice.chosen(start, replace(start.choice, mlp=0.75))
        locked = plan_of_choice.chosen(changed, replace(changed.choice, locks=ta.Locks(frozenset({(0, 0)}))))
        other = plan_of_choice.rescored(locked, scored(seed=1, name="addition"))
        back = plan_of_choice.undone(plan_of_choice.undone(plan_of_choice.undone(other)))
        assert (back.plan, back.choice, back.scored) == (start.plan, start.choice, start.scored)
        forth = plan_of_choice.redone(plan_of_choice.redone(plan_of_choice.redone(back)))
        assert (forth.plan, forth.choice, forth.scored) == (other.plan, other.choice, other.scored)
        with pytest.raises(NotYet, match="nothing to undo"):
            plan_of_choice.undone(back)
        with pytest.raises(NotYet, match="nothing to redo"):
            plan_of_choice.redone(forth)

    def test_a_drag_is_one_step_and_a_pause_begins_another(self, start, monkeypatch):
        now = [100.0]
        monkeypatch.setattr(session.time, "monotonic", lambda: now[0])
        dragged = start
        for mlp in (0.55, 0.6, 0.65):
            dragged = plan_of_choice.chosen(dragged, replace(dragged.choice, mlp=mlp), control="sliders")
            now[0] += 0.1
        assert plan_of_choice.undone(dragged).choice == start.choice
        now[0] += 10
        later = plan_of_choice.chosen(dragged, replace(dragged.choice, mlp=0.9), control="sliders")
        assert plan_of_choice.undone(later).choice == dragged.choice

    def test_a_new_change_ends_what_could_be_redone(self, start):
        changed = plan_of_choice.chosen(start, replace(start.choice, mlp=0.75))
        other = plan_of_choice.chosen(plan_of_choice.undone(changed), replace(start.choice, mlp=0.1))
        with pytest.raises(NotYet):
            plan_of_choice.redone(other)

    def test_other_scores_and_another_choice_are_one_step(self, start):
        there = session.Moment(scored(seed=1), replace(start.choice, mlp=0.8))
        moved = plan_of_choice.moved_to(start, there)
        assert (moved.scored, moved.choice) == (there.scored, there.choice)
        assert plan_of_choice.undone(moved).plan == start.plan
        assert plan_of_choice.moved_to(moved, there) is moved

    def test_it_is_bounded(self, start):
        changed = start
        for step in range(session.MAX_UNDO + 20):
            changed = plan_of_choice.chosen(changed, replace(changed.choice, mlp=0.9 if step % 2 else 0.1))
        assert len(changed.timeline.past) == session.MAX_UNDO

    def test_scores_that_lack_the_metric_fall_back(self, start):
        with_gradients = plan_of_choice.chosen(start, replace(start.choice, metric="taylor"))
        plain = scored(seed=1)
        del plain.scores["taylor"]
        again = plan_of_choice.rescored(with_gradients, plain)
        assert again.choice.metric == again.plan.metric.replace("random", "transact") == "transact"
        assert plan_of_choice.undone(again).choice.metric == "taylor"

    def test_the_plan_that_was_cut_stays_in_view_until_a_control_moves(self, start):
        searched = replace(start.plan, metric="search", layers=start.plan.layers[::-1])
        result = session.Result(1, start.scored, start.choice, searched, "best")
        after = start.with_result(result)
        assert after.plan is searched
        moved = plan_of_choice.chosen(after, replace(after.choice, mlp=0.25))
        assert moved.plan.metric != "search"
        assert moved.with_result(result).plan is moved.plan

    def test_locks_that_contradict_the_sliders_change_nothing(self, start):
        keep_all = ta.Locks(keep_head_groups=frozenset((0, group) for group in range(4)))
        with pytest.raises(ta.InvalidTarget, match="locked to stay"):
            plan_of_choice.chosen(start, replace(start.choice, locks=keep_all))


class TestLink:
    @pytest.mark.parametrize(
        "choice",
        [
            Choice(metric="wanda", attention=0.5, mlp=0.37),
            Choice(budget=Budget("memory", 0.62)),
            Choice(allocation="global"),
            Choice(metric="flap", allocation="flap"),
            Choice(granularity="heads", attention=0.5),
            Choice(keep_head_groups=(1, 2, 3, 4, 1), keep_channels=(172, 1, 3, 4, 5)),
            Choice(locks=ta.Locks(frozenset({(0, 1), (4, 3)}), frozenset(), frozenset({(2, 171)}))),
        ],
    )
    def test_there_and_back(self, start, choice):
        from urllib.parse import parse_qsl

        query = settings_link.query(replace(start, choice=choice, key=ModelKey("org/model", "abc", "bfloat16")))
        found = settings_link.settings(dict(parse_qsl(query.removeprefix("?"))))
        assert found.choice == choice
        assert found.key == ModelKey("org/model", "abc", "bfloat16")
        assert (found.text, found.sampling) == ("stories", Sampling(64, 128, 7))

    def test_gradients_are_taken_again(self, start):
        from urllib.parse import parse_qsl

        taken = replace(start.scored, sampling=Sampling(8, 16, 1, taylor=True))
        query = settings_link.query(replace(start, scored=taken, choice=Choice(metric="taylor")))
        found = settings_link.settings(dict(parse_qsl(query.removeprefix("?"))))
        assert found.sampling == taken.sampling and found.choice.metric == "taylor"
        assert settings_link.settings({"model": "bundled", "metric": "taylor"}).sampling.taylor

    def test_a_text_of_ones_own_is_left_out(self, start):
        own = replace(start.scored, text=TextSource("secret.txt", ("x",), "file"))
        assert "secret" not in settings_link.query(replace(start, scored=own))

    def test_without_a_model_there_is_no_link(self, start):
        assert settings_link.settings({"__theme": "dark"}) is None
        assert settings_link.query(replace(start, scored=None)) == ""

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("text", "nothing"), ("metric", "luck"), ("allocation", "fair"), ("granularity", "pairs"),
            ("limit", "money:0.5"),
            ("limit", "memory:much"), ("mlp", "half"), ("samples", "1.5"), ("groups", "1,2"),
            ("keep_channels", "1-2"), ("seed", ""),
        ],
    )  # fmt: skip
    def test_a_damaged_link_is_told(self, name, value):
        with pytest.raises(WrongInput, match="link"):
            settings_link.settings({"model": "bundled", name: value})


class TestRoomForWhatIsLockedToGo:
    def locked(self, **units) -> ta.Locks:
        return ta.Locks(**{name: frozenset(pairs) for name, pairs in units.items()})

    def test_a_slider_at_nothing_is_raised_as_far_as_needed(self, start):
        spec = start.spec
        groups, channels = spec.layers[0].num_key_value_heads, spec.layers[0].intermediate_size
        choice = replace(start.choice, attention=0.0, mlp=0.0, locks=self.locked(remove_head_groups=[(0, 1), (2, 0)]))
        raised = slider_steps.with_room(spec, choice)
        assert raised.attention == slider_steps.nearest_attention(spec, 1 / groups) and raised.mlp == 0
        plan = plan_of_choice.chosen(start, raised).plan
        assert 1 not in plan.layers[0].kept_head_groups and 0 not in plan.layers[2].kept_head_groups
        assert all(len(layer.kept_head_groups) == groups - 1 for layer in plan.layers)

        choice = replace(choice, locks=self.locked(remove_channels=[(1, index) for index in range(5)]))
        raised = slider_steps.with_room(spec, choice)
        assert (raised.attention, raised.mlp) == (0, round(math.ceil(5 / channels * 100) / 100, 2))
        assert not {*range(5)} & {*plan_of_choice.chosen(start, raised).plan.layers[1].kept_channels}

    def test_what_has_room_stays_and_counts_by_hand_follow(self, start):
        choice = replace(start.choice, attention=0.5, mlp=0.5, locks=self.locked(remove_head_groups=[(0, 1)]))
        assert slider_steps.with_room(start.spec, choice) == choice
        limit = replace(choice, budget=Budget("memory", 0.9), attention=0.0)
        assert slider_steps.with_room(start.spec, limit).budget is None
        layers = start.spec.num_hidden_layers
        hand = replace(choice, keep_head_groups=(4,) * layers, keep_channels=(9,) * layers)
        assert slider_steps.with_room(start.spec, hand).keep_head_groups == (3, *(4,) * (layers - 1))


def test_gentler_steps_are_offered_where_heads_are_few(start):
    spec = start.spec
    next_one = "heads" if spec.group_size > 1 else "head_dims"
    assert slider_steps.gentler(spec, "head_groups", streamed=False) == next_one
    assert slider_steps.gentler(spec, "heads", streamed=True) is None
    assert slider_steps.gentler(spec, "head_dims", streamed=False) is None
    many = spec.with_layers(tuple(ta.LayerShape(16, 16, 8) for _ in spec.layers))
    assert slider_steps.gentler(many, "head_groups", streamed=False) is None
