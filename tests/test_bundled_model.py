"""The bundled model: the text it was trained on, its probes and samples, its tokenizer and its checkpoint."""

from __future__ import annotations

import contextlib
import io
import json
import random
import re
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

ROOT = Path(__file__).resolve().parents[1]
MODEL = ROOT / "assets" / "model"
SAMPLES = ROOT / "assets" / "samples"
sys.path.append(str(MODEL))

import corpus  # noqa: E402
import measure  # noqa: E402
import stories  # noqa: E402
import write_assets  # noqa: E402

PROBES = json.loads((ROOT / "transact" / "evaluation" / "probes.json").read_text(encoding="utf-8"))["probes"]
SAMPLE_FILES = [f"{prefix}{kind}" for prefix in ("", "evaluation_") for kind in (*corpus.KINDS, "mixed")]


def texts(name: str) -> list[str]:
    lines = (SAMPLES / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["text"] for line in lines]


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(MODEL)


@pytest.fixture(scope="module")
def model():
    return AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32).eval()


# The corpus


@pytest.mark.parametrize("kind", corpus.KINDS)
def test_the_same_seed_gives_the_same_text_and_another_seed_another(kind):
    assert corpus.generate(kind, 7) == corpus.generate(kind, 7)
    assert len({corpus.generate(kind, seed) for seed in range(50)}) == 50


def test_an_unknown_kind_is_refused_with_the_allowed_ones():
    with pytest.raises(ValueError, match="'poems'.*stories, addition"):
        corpus.generate("poems", 1)


def test_seeds_of_two_splits_never_meet():
    edges = [
        (corpus.document_seed(split, 0), corpus.document_seed(split, corpus.SEEDS_PER_SPLIT - 1))
        for split in corpus.SPLITS
    ]
    for (_, last), (first, _) in zip(edges, edges[1:], strict=False):
        assert last < first
    with pytest.raises(ValueError, match="index"):
        corpus.document_seed("train", corpus.SEEDS_PER_SPLIT)


@pytest.mark.parametrize(
    ("left", "right", "worked"),
    [
        (347, 285, "7+5=12,4+8+1=13,3+2+1=6;632\n"),
        (5, 923, "5+3=8,2=2,9=9;928\n"),
        (48, 802, "8+2=10,4+0+1=5,8=8;850\n"),
        (999, 1, "9+1=10,9+1=10,9+1=10;1000\n"),
        (0, 0, "0+0=0;0\n"),
    ],
)
def test_the_worked_form_of_a_sum(left, right, worked):
    assert corpus.addition_answer(left, right) == worked


def test_sums_in_training_text_are_right_and_never_held_out():
    for seed in range(100):
        for line in corpus.generate("addition", seed).splitlines():
            left, right, steps, result = re.fullmatch(r"(\d+)\+(\d+):(.+);(\d+)", line).groups()
            assert int(left) + int(right) == int(result)
            assert all(eval(terms) == int(value) for terms, value in (step.split("=") for step in steps.split(",")))
            assert not corpus.is_held_out(int(left), int(right))


def test_brackets_are_balanced_and_only_close_after_the_bar():
    for seed in range(50):
        for line in corpus.generate("brackets", seed).splitlines():
            open_brackets = []
            for character in line.replace("|", ""):
                if character in corpus.BRACKET_PAIRS:
                    open_brackets.append(corpus.BRACKET_PAIRS[character])
                else:
                    assert open_brackets.pop() == character
            assert not open_brackets
            assert not set(line.split("|")[1]) & set(corpus.BRACKET_PAIRS)


def test_every_comment_in_the_code_is_the_value_that_python_computes():
    for seed in range(100):
        program = corpus.generate("code", seed)
        output = io.StringIO()
        printing = re.sub(r"^(\w) = (.+)  # .+$", r"\1 = \2\nprint(\1)", program, flags=re.M)
        with contextlib.redirect_stdout(output):
            exec(printing, {})
        assert output.getvalue().split() == re.findall(r"#.*(\d)$", program, flags=re.M)


def test_a_recall_text_answers_every_key_as_its_list_says():
    for seed in range(50):
        listed, queries = (
            [tuple(pair.split()) for pair in line.split(":")[1].strip(", ").split(",")]
            for line in corpus.generate("recall", seed).splitlines()
        )
        assert all(key == echo for key, _, echo in listed)
        assert len(listed) == len({key for key, _, _ in listed}) and set(queries) == set(listed)


def test_a_story_names_only_its_own_people_and_uses_their_pronouns():
    names = set(stories.GIRLS) | set(stories.BOYS)
    for seed in range(300):
        text, cast = stories.story(random.Random(seed))
        assert set(re.findall(r"\w+", text)) & names <= {cast["n"], cast["m"]}
        genders = {cast["kid"], cast["fkid"], stories.GROWN_UPS[cast["ad"]]}
        words = set(re.findall(r"\w+", text.lower()))
        if "girl" not in genders:
            assert not words & {"she", "her"}, text
        if "boy" not in genders and "older boy" not in text and "tall man" not in text:
            assert not words & {"he", "his", "him"}, text
        assert "{" not in text and "  " not in text


# Probes and samples


def test_the_probe_file_and_the_samples_are_what_the_generator_writes(tmp_path):
    write_assets.write_samples(tmp_path, "calibration", "", 240)
    write_assets.write_samples(tmp_path, "evaluation", "evaluation_", 100)
    for name in SAMPLE_FILES:
        assert (tmp_path / f"{name}.jsonl").read_bytes() == (SAMPLES / f"{name}.jsonl").read_bytes()
    assert write_assets.probes(120)["probes"] == PROBES


def test_samples_are_enough_long_enough_and_disjoint(tokenizer):
    seen: set[str] = set()
    for name in SAMPLE_FILES:
        documents = texts(name)
        assert len(documents) >= (100 if name.startswith("evaluation") else 200)
        assert not seen & set(documents), name
        seen |= set(documents)
        lengths = [len(ids) for ids in tokenizer(documents).input_ids]
        assert min(lengths) >= 64 and max(lengths) <= 250, (name, min(lengths), max(lengths))


def test_probes_are_in_no_sample():
    everything = "\n".join(text for name in SAMPLE_FILES for text in texts(name))
    assert [probe["kind"] for probe in PROBES] == list(corpus.KINDS)
    for probe in PROBES:
        for item in probe["items"]:
            if probe["kind"] == "addition":
                left, right = map(int, re.search(r"(\d+)\+(\d+):$", item["prompt"]).groups())
                assert corpus.is_held_out(left, right) and f"\n{left}+{right}:" not in everything
            else:
                assert item["prompt"] not in everything
            if probe["type"] == "minimal_pair":
                assert item["good"] != item["bad"] and item["good"][0] == item["bad"][0] == " "


def test_no_probe_splits_a_token_between_prompt_and_answer(tokenizer):
    for probe in PROBES:
        for item in probe["items"]:
            for answer in (item[key] for key in ("answer", "good", "bad") if key in item):
                measure.answer_start(tokenizer, item["prompt"], item["prompt"] + answer)


# Tokenizer and checkpoint


@pytest.mark.parametrize(
    "text",
    ["Once upon a time", "  two  spaces \n\t", "naïve Ünïcode — 你好 🎈", "a1b22c333", "(([{<|>}]))", "\x00\x7f", ""],
)
def test_any_text_survives_the_tokenizer(tokenizer, text):
    ids = tokenizer(text).input_ids
    assert ids[0] == tokenizer.bos_token_id and tokenizer.bos_token_id not in ids[1:]
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_every_digit_and_every_bracket_is_a_token_of_its_own(tokenizer):
    for text in ("347+285", " 12 13", "x=90", "((<>{}[]))"):
        for token in tokenizer.tokenize(text):
            bare = token.removeprefix("Ġ")  # how byte-level BPE writes a space
            assert len(bare) <= 1 or not re.search(r"[0-9()\[\]{}<>]", bare), token


def test_the_checkpoint_is_a_small_stock_llama(model, tokenizer):
    config = model.config
    assert type(model).__module__ == "transformers.models.llama.modeling_llama"
    assert (config.num_hidden_layers, config.num_attention_heads, config.num_key_value_heads) == (6, 8, 4)
    assert config.head_dim == 24 and config.max_position_embeddings == 512 and config.tie_word_embeddings
    assert 2.5e6 <= model.num_parameters() <= 8e6
    assert config.vocab_size == len(tokenizer)
    assert (config.bos_token_id, config.eos_token_id) == (tokenizer.bos_token_id, tokenizer.eos_token_id)
    assert model.generation_config.eos_token_id == config.eos_token_id
    assert sum(file.stat().st_size for file in MODEL.iterdir() if file.is_file()) <= 20e6
    assert not list(MODEL.glob("*.bin")) and not list(MODEL.glob("*.pt"))


@pytest.mark.parametrize("probe", PROBES, ids=[probe["kind"] for probe in PROBES])
def test_probe_accuracy_stays_above_what_was_measured(model, tokenizer, probe):
    """The floors lie a little under the figures of the model card, on the first 40 items."""
    floors = {"stories": 0.95, "addition": 0.95, "recall": 0.95, "brackets": 0.95, "code": 0.25}
    results = measure.probe_results(model, tokenizer, {**probe, "items": probe["items"][:40]})
    assert sum(results) / len(results) >= floors[probe["kind"]]
