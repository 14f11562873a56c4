"""Files of the gallery: what is written is read back, and what anybody else wrote is checked first."""

import json
import math
import os
import pickle
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import transact as ta
from tests.fuzz.strategies import one_sentence
from tests.gallery_files import RECORD, facts, spec_of


@pytest.fixture
def file(tmp_path):
    facts().save(path := tmp_path / "Small-4L.safetensors")
    return path


def changed(file, header=None, **tensors):
    """The file again, with other values in its header (by path, `a.b`) and other tensors; None leaves one out."""
    with safe_open(file, framework="pt") as opened:
        values = json.loads(opened.metadata()["transact"])
        held = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118, an open file is no dictionary
    for path, value in (header or {}).items():
        *parts, last = path.split(".")
        place = values
        for part in parts:
            place = place[int(part) if isinstance(place, list) else part]
        place[int(last) if isinstance(place, list) else last] = value
    for name, tensor in tensors.items():
        held.pop(name.replace("__", "."), None)
        if tensor is not None:
            held[name.replace("__", ".")] = tensor
    save_file(held, file, metadata={"transact": json.dumps(values)})


def test_what_is_written_is_read_back(file):
    written, read = facts(), ta.GalleryModel.load(file)
    for name in ("name", "spec", "fingerprint", "origin", "dtype", "sweep", "versions"):
        assert getattr(read, name) == getattr(written, name), name
    assert vars(read.calibration) == vars(RECORD)
    assert list(read.scores) == ["transact", "magnitude", "random"]
    for metric, scores in read.scores.items():
        exact = written.scores[metric]
        assert (scores.metric, scores.fingerprint, scores.calibration) == (metric, exact.fingerprint, "Some text")
        torch.testing.assert_close(scores.heads, exact.heads, rtol=0, atol=0)
        torch.testing.assert_close(scores.head_groups, exact.head_groups, rtol=1e-15, atol=0)
        torch.testing.assert_close(scores.mlp_channels, exact.mlp_channels, rtol=2**-11, atol=0)
        torch.testing.assert_close(scores.attention_channels, exact.attention_channels, rtol=2**-11, atol=0)
        torch.testing.assert_close(scores.rotary_pairs, exact.rotary_pairs, rtol=2**-23, atol=0)
        torch.testing.assert_close(scores.layers, exact.layers, rtol=0, atol=0)


def test_scores_of_every_size_survive_float16(tmp_path):
    """Squares of variances lie many powers of ten apart, and float16 ends at 65,504."""
    spec = spec_of(layers=1)
    sizes = 10.0 ** torch.linspace(-40, 8, 48, dtype=torch.float64)
    scores = ta.ImportanceScores.from_channels(
        "flap", (torch.zeros(32, dtype=torch.float64),), (sizes,), spec, fingerprint=spec.fingerprint, calibration="x"
    )
    model = facts(spec)
    replace(model, scores={"flap": scores}).save(tmp_path / "wide.safetensors")
    read = ta.GalleryModel.load(tmp_path / "wide.safetensors").scores["flap"]
    near = sizes > 1.0
    torch.testing.assert_close(read.mlp_channels[0][near], sizes[near], rtol=2**-10, atol=0)
    assert bool((read.mlp_channels[0].diff() >= 0).all()) and not bool(read.attention_channels[0].any())


def test_plans_need_no_more_than_the_file(file):
    read = ta.GalleryModel.load(file)
    target = ta.PruningTarget.from_sparsity(read.spec, attention=0.5, mlp=0.5)
    plan = ta.make_plan(read.scores["transact"], read.spec, target)
    assert plan.layers == ta.make_plan(facts().scores["transact"], read.spec, target).layers
    assert ta.PruningPlan.from_json(plan.to_json()) == plan


def test_what_a_size_may_cost_lies_between_measured_ones():
    sweep = facts().sweep
    dense, first, last = (point for point in sweep.points if point.measured)
    assert sweep.perplexity_at(dense.parameters) == pytest.approx(10.0)
    middle = (dense.parameters + first.parameters) / 2
    assert sweep.perplexity_at(middle) == pytest.approx(math.sqrt(10.0 * 13.0))
    assert sweep.perplexity_at(last.parameters - 1) is None and sweep.perplexity_at(dense.parameters + 1) is None


HOSTILE = {
    "another format": ({"format": "pickle"}, {}),
    "a later version": ({"version": 2}, {}),
    "a huge layer": ({"spec.layers.0": {"num_attention_heads": 4, "num_key_value_heads": 2,
                                        "intermediate_size": 10**12}}, {}),
    "other shapes": ({"spec.hidden_size": 64}, {}),
    "a number of many digits": ({"calibration.num_tokens": 10**200}, {}),
    "a negative count": ({"calibration.num_samples": -1}, {}),
    "a fraction of a token": ({"calibration.num_tokens": 1.5}, {}),
    "an unknown metric": ({"metrics": ["transact", "../../x"]}, {}),
    "no metric": ({"metrics": []}, {}),
    "metrics that are no list": ({"metrics": {"transact": 1}}, {}),
    "a metric that is a list": ({"metrics": [[]]}, {}),
    "a path as the source": ({"origin.source": "../../etc/passwd"}, {}),
    "an absolute path": ({"origin.source": "/etc/passwd"}, {}),
    "a name of two lines": ({"name": "a\nb"}, {}),
    "a name without end": ({"name": "a" * 100_000}, {}),
    "a name that is none": ({"name": {"a": 1}}, {}),
    "an infinite perplexity": ({"sweep.points.1.perplexity": math.inf}, {}),
    "a perplexity that is no number": ({"sweep.points.1.perplexity": math.nan}, {}),
    "a perplexity in words": ({"sweep.points.1.perplexity": "12"}, {}),
    "more parameters than there are": ({"sweep.points.1.parameters": 10**12}, {}),
    "no points": ({"sweep.points": []}, {}),
    "points without end": ({"sweep.points": [{}] * 10_000}, {}),
    "an unknown repair": ({"sweep.repair": "<b>"}, {}),
    "a header that lacks a part": ({"sweep": {}}, {}),
    "NaN": ({}, {"transact__mlp": torch.full((192,), math.nan, dtype=torch.float16)}),
    "infinity": ({}, {"transact__heads": torch.full((16,), math.inf, dtype=torch.float64)}),
    "a huge scale": ({}, {"transact__mlp__scale": torch.full((4,), 1e300, dtype=torch.float64)}),
    "wrong shapes": ({}, {"transact__mlp": torch.zeros(191, dtype=torch.float16)}),
    "two dimensions": ({}, {"transact__mlp": torch.zeros(4, 48, dtype=torch.float16)}),
    "another dtype": ({}, {"transact__mlp": torch.zeros(192, dtype=torch.int64)}),
    "a missing tensor": ({}, {"transact__heads": None}),
    "a tensor too many": ({}, {"model__weights": torch.zeros(3)}),
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_values_are_refused_with_the_name_of_the_file(file, what):
    header, tensors = HOSTILE[what]
    changed(file, header, **tensors)
    refused(file)


def refused(file):
    with pytest.raises(ta.CheckpointBroken, match="“Small-4L.safetensors” is no gallery file") as refusal:
        ta.GalleryModel.load(file)
    one_sentence(refusal.value)
    assert str(file.parent) not in str(refusal.value)


def test_files_that_are_no_such_files_are_refused(file):
    whole = file.read_bytes()
    deep = json.dumps({"__metadata__": {"transact": "[" * 100_000}}).encode()
    for content in (
        b"", b"\0" * 100, whole[:-1], whole[: len(whole) // 2], whole[:20], whole + b"more", pickle.dumps({"a": 1}),
        b"PK\x03\x04" + whole, (2**63 - 1).to_bytes(8, "little") + whole[8:], len(deep).to_bytes(8, "little") + deep,
    ):  # fmt: skip
        file.write_bytes(content)
        refused(file)
    save_file({"a": torch.zeros(1)}, file)
    refused(file)
    with file.open("wb") as opened:
        opened.truncate(65_000_000)
    refused(file)
    file.unlink()
    refused(file)
    os.mkfifo(file)  # would wait for a writer for ever
    refused(file)
    file.unlink()
    file.mkdir()
    refused(file)
