"""Every public function refuses, in one sentence, what is no whole number where it asks for one."""

import inspect

import numpy as np
import pytest

import transact as ta
from tests.tiny_models import build, token_ids
from transact.errors import MAX_SEED, is_whole_number, whole_number

TARGET = ta.PruningTarget(keep_head_groups=3, keep_channels=400)
TEXTS = ["One day a fox met a cat.", "The cat said hello to the fox.", "They were good friends."]
CHATS = [[{"role": "user", "content": text}] for text in TEXTS]


@pytest.fixture(scope="module")
def calibration(bundled):
    return ta.CalibrationSet.from_texts(TEXTS, bundled.tokenizer)


@pytest.fixture(scope="module")
def statistics(bundled, calibration):
    return ta.observe(bundled, calibration, samples=True, top_k=2)


@pytest.fixture(scope="module")
def call(bundled, chatting, calibration, statistics):
    """Call the public function of that name with one argument of the test's own."""
    tokenizer, spec = bundled.tokenizer, bundled.spec

    def reads(**wrong):
        return ta.reads(statistics, calibration, tokenizer, **{"layer": 0, "head": 0, **wrong})

    calls = {
        "CalibrationSet.batches": lambda **wrong: list(calibration.batches(**{"batch_size": 2, **wrong})),
        "CalibrationSet.first": lambda **wrong: calibration.first(**wrong),
        "CalibrationSet.up_to": lambda **wrong: calibration.up_to(**wrong),
        "CalibrationSet.from_chats": lambda **wrong: ta.CalibrationSet.from_chats(CHATS, chatting, **wrong),
        "CalibrationSet.from_document": lambda **wrong: ta.CalibrationSet.from_document(TEXTS[0], tokenizer, **wrong),
        "CalibrationSet.from_model": lambda **wrong: ta.CalibrationSet.from_model(bundled, **wrong),
        "CalibrationSet.from_texts": lambda **wrong: ta.CalibrationSet.from_texts(TEXTS, tokenizer, **wrong),
        "CalibrationSet.longest": lambda **wrong: calibration.longest(**wrong),
        "EvaluationSet.from_chats": lambda **wrong: ta.EvaluationSet.from_chats(CHATS, chatting, **wrong),
        "EvaluationSet.from_texts": lambda **wrong: ta.EvaluationSet.from_texts(TEXTS, tokenizer, **wrong),
        "ImportanceScores.random": lambda **wrong: ta.ImportanceScores.random(spec, **wrong),
        "PruningTarget": lambda **wrong: ta.PruningTarget(**{"keep_head_groups": 1, "keep_channels": 1, **wrong}),
        "PruningTarget.from_kv_bytes": lambda **wrong: ta.PruningTarget.from_kv_bytes(spec, 1e9, **wrong),
        "PruningTarget.from_sparsity": lambda **wrong: ta.PruningTarget.from_sparsity(spec, **wrong),
        "RecoverySettings": lambda **wrong: ta.RecoverySettings(**wrong),
        "StreamedText": lambda **wrong: ta.StreamedText(TEXTS, tokenizer, name="texts", **wrong),
        "attention_patterns": lambda **wrong: ta.attention_patterns(bundled, "One day", **wrong),
        "evaluate_tasks": lambda **wrong: ta.evaluate_tasks({"dense": bundled}, ["arc_easy"], **wrong),
        "generate": lambda **wrong: ta.generate(bundled, "One day", **wrong),
        "knocked_out": lambda **wrong: ta.knocked_out(bundled, **wrong).__enter__(),
        "measure_speed": lambda **wrong: ta.measure_speed((bundled,), **wrong),
        "next_tokens": lambda **wrong: ta.next_tokens(bundled, "One day", **wrong),
        "observe": lambda **wrong: ta.observe(bundled, calibration, **wrong),
        "probe_frontier": lambda **wrong: ta.probe_frontier(
            bundled, ta.ImportanceScores.random(spec), calibration, **wrong
        ),
        "reads": reads,
        "recovery_cost": lambda **wrong: ta.recovery_cost(spec, TARGET, ta.RecoverySettings(), **wrong),
        "run_probe": lambda **wrong: ta.run_probe(bundled, ta.load_probes()[0], **wrong),
        "sample_bytes": lambda **wrong: ta.sample_bytes(spec, **wrong),
        "score": lambda **wrong: ta.score(bundled, statistics, **wrong),
        "stability": lambda **wrong: ta.stability(bundled, statistics, TARGET, **wrong),
        "stream_observe": lambda **wrong: ta.stream_observe("bundled", calibration, **wrong),
    }
    return lambda name, **wrong: calls[name](**wrong)


PARAMETERS = {
    "CalibrationSet.batches": ("batch_size", "max_tokens"),
    "CalibrationSet.first": ("count",),
    "CalibrationSet.up_to": ("num_tokens",),
    "CalibrationSet.from_chats": ("num_samples", "seq_len", "seed", "min_tokens"),
    "CalibrationSet.from_document": ("seq_len", "num_samples", "seed"),
    "CalibrationSet.from_model": ("num_samples", "seq_len", "seed"),
    "CalibrationSet.from_texts": ("num_samples", "seq_len", "seed", "min_tokens"),
    "CalibrationSet.longest": ("count",),
    "EvaluationSet.from_chats": ("seq_len", "num_samples", "seed", "min_tokens"),
    "EvaluationSet.from_texts": ("seq_len", "num_samples", "seed", "min_tokens"),
    "ImportanceScores.random": ("seed",),
    "PruningTarget": (
        "keep_head_groups", "keep_channels", "keep_heads_per_group", "keep_query_key_dim", "keep_value_dim",
    ),
    "PruningTarget.from_kv_bytes": ("multiple_of", "groups_multiple_of"),
    "PruningTarget.from_sparsity": ("multiple_of", "groups_multiple_of"),
    "RecoverySettings": (
        "shots", "shot_tokens", "recovery_tokens", "batch_size", "micro_batch_size", "lora_rank", "save_every",
        "evaluate_every", "log_every", "seed",
    ),
    "StreamedText": ("seq_len",),
    "attention_patterns": ("seq_len",),
    "evaluate_tasks": ("limit", "num_fewshot", "batch_size"),
    "generate": ("max_new_tokens", "seed"),
    "knocked_out": ("layer",),
    "measure_speed": ("prefill_tokens", "decode_tokens", "repeats"),
    "next_tokens": ("count",),
    "observe": ("top_k", "batch_size"),
    "reads": ("layer", "head", "channel", "k", "context"),
    "recovery_cost": ("seq_len",),
    "probe_frontier": ("num_tokens",),
    "run_probe": ("limit",),
    "sample_bytes": ("num_samples",),
    "score": ("seed",),
    "stability": ("resamples", "seed"),
    "stream_observe": ("top_k", "batch_size"),
}  # fmt: skip
INHERITED = {f"EvaluationSet.{name}" for name in ("batches", "first", "from_document", "longest", "up_to")}
ELSEWHERE = {
    "CalibrationSet.from_sequences", "EvaluationSet.from_sequences",  # a label, which is kept as it is
    "CalibrationSet.check_vocabulary", "EvaluationSet.check_vocabulary",  # sizes and places that the library counts
    "ImportanceScores.value_channels", "LayerPlan.with_heads", "LoadedModel.device_of_layer", "LoadedModel.layer",
    "NO_PROGRESS", "Savepoints.keep", "StreamedModel.check_hidden",
    "StreamedModel.device_of_layer", "StreamedModel.layer", "StreamedModel.layer_as",
    # amounts, which may be parts of something; tests/transact/spec/test_target.py refuses what is none
    "PruningTarget.from_memory", "PruningTarget.from_parameters", "PruningTarget.splits", "search_split",
    "trim_hub_cache",
    "best_bytes", "evaluation_bytes", "search_bytes", "widths_bytes",  # formulas, which hold for any number
    "StreamedText.from_hub",  # asks the hub first, and makes a `StreamedText`
}  # fmt: skip


@pytest.mark.parametrize(
    ("function", "parameter"), [(name, parameter) for name, each in PARAMETERS.items() for parameter in each]
)
def test_what_is_no_whole_number_is_refused(call, function, parameter):
    error = ta.InvalidTarget if function.startswith("PruningTarget") else ta.InvalidOption
    wrong = [2.5, "3", True] + ([2**70, MAX_SEED + 1, -1] if parameter == "seed" else [])
    for value in wrong:
        more = {"head": None} if parameter == "channel" else {}
        with pytest.raises(error, match=rf"{parameter} (is )?{value!r}[;,]"):
            call(function, **{parameter: value}, **more)


@pytest.mark.parametrize(
    ("function", "parameter"),
    [("generate", "max_new_tokens"), ("observe", "batch_size"), ("observe", "top_k"), ("stability", "resamples")],
)
def test_numpys_whole_numbers_are_as_good(call, function, parameter):
    call(function, **{parameter: np.int64(2)})


def test_every_public_function_is_in_the_table():
    def asks(function) -> bool:
        annotations = [parameter.annotation for parameter in inspect.signature(function).parameters.values()]
        return any(annotation in (int, int | None) for annotation in annotations)

    found = set()
    for name in ta.__all__:
        public = getattr(ta, name)
        if inspect.isclass(public) and not issubclass(public, Exception):
            methods = inspect.getmembers(public, lambda member: inspect.isfunction(member) or inspect.ismethod(member))
            methods = [(method, it) for method, it in methods if not method.startswith("_")]
            # those of a spec are formulas, which hold for any number
            found |= {f"{name}.{method}" for method, it in methods if asks(it) and public is not ta.ModelSpec}
        elif inspect.isfunction(public) and asks(public):
            found.add(name)
    assert found - ELSEWHERE - INHERITED == set(PARAMETERS) - {"PruningTarget", "RecoverySettings", "StreamedText"}


def test_the_sentence_by_hand():
    assert whole_number(np.int32(3), "shots", least=1) == 3 and type(whole_number(np.int32(3), "shots")) is int
    assert not is_whole_number(True) and not is_whole_number(np.bool_(True)) and not is_whole_number(2.0)
    with pytest.raises(ta.InvalidOption, match=r"^shots is 0; give a whole number from 1\.$"):
        whole_number(0, "shots", least=1)
    with pytest.raises(ta.InvalidTarget, match=r"^places is 9; give a whole number from 0 to 8\.$"):
        whole_number(9, "places", most=8, error=ta.InvalidTarget)
    with pytest.raises(ta.InvalidOption, match="shots is a number of many digits"):
        whole_number(10**5000, "shots")


def test_the_largest_seed_is_taken_by_every_generator():
    spec = build("llama").spec
    assert ta.ImportanceScores.random(spec, seed=MAX_SEED).heads[0].shape == (8,)
    dense = build("llama")
    calibration = ta.CalibrationSet.from_token_ids(token_ids(dense, samples=4))
    statistics = ta.observe(dense, calibration, samples=True)
    ta.stability(dense, statistics, ta.PruningTarget(2, 20), resamples=2, seed=MAX_SEED)
    settings = ta.RecoverySettings(shots=1, recovery_tokens=24, batch_size=2, seed=MAX_SEED)
    ta.recover(dense, calibration, ta.PruningTarget(2, 20), settings)
