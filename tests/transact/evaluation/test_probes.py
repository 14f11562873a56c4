"""Probes read by hand-made models, whose right answers are known."""

import pytest
import torch

import transact as ta
from transact.evaluation.probes import ExactMatch, MinimalPair, Probe


def test_the_bundled_probes_are_there():
    probes = {probe.kind: probe for probe in ta.load_probes()}
    assert set(probes) == {"stories", "addition", "recall", "brackets", "code"}
    assert all(len(probe.items) >= 100 for probe in probes.values())


def test_exact_match_is_the_greedy_continuation(stories):
    prompt = "Once upon a time"
    greedy = ta.generate(stories, prompt, max_new_tokens=8)
    items = (ExactMatch(prompt, greedy), ExactMatch(prompt, " zebra"), ExactMatch(prompt, greedy[:7]))
    result = ta.run_probe(stories, Probe("story", "", items))
    assert (result.correct, result.total, result.accuracy) == (2, 3, 2 / 3)


def test_minimal_pairs_compare_likelihoods(stories):
    prompt = "Once upon a time, there was a little"
    items = (MinimalPair(prompt, " girl", " xylophone"), MinimalPair(prompt, " xylophone", " girl"))
    calls = []
    result = ta.run_probe(stories, Probe("story", "", items), progress=lambda *call: calls.append(call))
    assert (result.correct, result.total) == (1, 2)
    assert calls[-1] == (4, 4, "probe items")


def test_a_batch_reads_as_one_at_a_time(stories):
    items = tuple(MinimalPair("The boy" + " was very" * count, " happy", " sad") for count in (0, 3, 11, 30, 1, 7))
    together = ta.run_probe(stories, Probe("all", "", items)).correct
    alone = sum(ta.run_probe(stories, Probe("one", "", (item,))).correct for item in items)
    assert together == alone


def test_a_broken_model_solves_nothing_by_luck(stories):
    target = ta.PruningTarget(keep_head_groups=1, keep_channels=1)
    plan = ta.make_plan(ta.ImportanceScores.random(stories.spec), stories.spec, target)
    greedy = ta.generate(stories, "Once upon a time", max_new_tokens=8)
    probe = Probe("story", "", (ExactMatch("Once upon a time", greedy),))
    assert ta.run_probe(ta.prune(stories, plan), probe).accuracy == 0
    assert torch.is_grad_enabled()


@pytest.mark.parametrize(("prompt", "answer"), [("Once upon a ti", "me"), ("Once up", "on"), ("the litt", "le")])
def test_a_broken_model_gains_nothing_where_prompt_and_answer_melt_into_one_token(stories, prompt, answer):
    target = ta.PruningTarget(keep_head_groups=1, keep_channels=1)
    plan = ta.make_plan(ta.ImportanceScores.random(stories.spec), stories.spec, target)
    probe = Probe("story", "", (ExactMatch(prompt, answer),))
    assert ta.run_probe(ta.prune(stories, plan), probe).correct == 0


def test_answers_are_what_the_model_writes(stories):
    prompts = ("Once upon a time", "The boy was very happy because he found a", "One day")
    greedy = [ta.generate(stories, prompt, max_new_tokens=8) for prompt in prompts]
    items = (ExactMatch(prompts[0], greedy[0]), *(ExactMatch(prompt, " xylophone" * 3) for prompt in prompts))
    found = ta.run_probe(stories, Probe("story", "", items), answers=True)
    assert [answer.is_right for answer in found.answers] == [True, False, False, False]
    assert found.answers[0].given == found.answers[0].right == greedy[0]
    for answer, text in zip(found.answers[1:], greedy, strict=True):  # of rows of several lengths, written together
        assert answer.given and (answer.given.startswith(text) or text.startswith(answer.given))
    assert ta.run_probe(stories, Probe("story", "", items)).answers == ()


def test_a_line_is_read_to_its_end(bundled):
    (addition,) = (probe for probe in ta.load_probes() if probe.kind == "addition")
    wrong = Probe("addition", "", tuple(ExactMatch(item.prompt, "<" + item.answer[1:]) for item in addition.items[:40]))
    lines = ta.run_probe(bundled, wrong, answers=True).answers  # more than a batch
    assert [line.given for line in lines] == [item.answer for item in addition.items[:40]]


def test_the_answer_to_a_pair_is_the_likelier(stories):
    prompt = "Once upon a time, there was a little"
    items = (MinimalPair(prompt, " girl", " xylophone"), MinimalPair(prompt, " xylophone", " girl"))
    answers = ta.run_probe(stories, Probe("story", "", items), answers=True).answers
    assert [(answer.right, answer.given, answer.is_right) for answer in answers] == [
        (" girl", " girl", True),
        (" xylophone", " girl", False),
    ]


def test_a_probe_without_items_is_refused(stories):
    with pytest.raises(ta.InvalidText, match="no items"):
        ta.run_probe(stories, ta.load_probes()[0], limit=0)
