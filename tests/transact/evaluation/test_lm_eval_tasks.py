"""The harness on local tasks, beside the same quantities computed straight from the model's outputs."""

import copy
import json
import math
import re
from importlib.metadata import PackageNotFoundError, version

import pytest
import torch

import transact as ta
from tests.conftest import ROOT, read_texts
from transact.cli import main
from transact.evaluation import lm_eval_tasks
from transact.evaluation.probes import MinimalPair

pytestmark = pytest.mark.long

COUNT = 12


@pytest.fixture(scope="module")
def pairs():
    """(prompt, right, wrong) of the bundled probes that cut models fail at, too."""
    probes = [probe for probe in ta.load_probes() if isinstance(probe.items[0], MinimalPair)]
    return [(item.prompt, item.good, item.bad) for probe in probes for item in probe.items[:20]]


@pytest.fixture(scope="module")
def answers():
    (probe,) = (probe for probe in ta.load_probes() if probe.kind == "recall")
    return [(item.prompt, item.answer) for item in probe.items[:20]]


@pytest.fixture(scope="module")
def documents():
    return read_texts(ROOT / "assets" / "samples" / "evaluation_stories.jsonl")[:20]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, pairs, answers, documents):
    """Four tasks as the harness takes them, with their data: nothing is fetched, the cache lies beside them."""
    folder = tmp_path_factory.mktemp("tasks")

    def task(name: str, lines: list[dict], **settings) -> None:
        data = folder / f"{name}.jsonl"
        data.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        files = {"data_files": {"test": str(data)}, "cache_dir": str(folder / "cache")}
        values = {"task": name, "dataset_path": "json", "dataset_kwargs": files, "test_split": "test"} | settings
        # JSON is YAML
        (folder / f"{name}.yaml").write_text(json.dumps(values | {"metadata": {"version": 2}}), encoding="utf-8")

    task(
        "local_pairs",
        [
            {"prompt": prompt, "choices": [good, bad][:: 1 - 2 * (index % 2)], "answer": index % 2}
            for index, (prompt, good, bad) in enumerate(pairs)
        ],
        output_type="multiple_choice",
        doc_to_text="{{prompt}}",
        doc_to_choice="choices",
        doc_to_target="answer",
        target_delimiter="",
        fewshot_split="test",
        metric_list=[{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    )
    task(
        "local_answers",
        [{"prompt": prompt, "answer": answer} for prompt, answer in answers],
        output_type="loglikelihood",
        doc_to_text="{{prompt}}",
        doc_to_target="{{answer}}",
        target_delimiter="",
        num_fewshot=0,
        metric_list=[
            {"metric": "acc", "aggregation": "mean", "higher_is_better": True},
            {"metric": "perplexity", "aggregation": "perplexity", "higher_is_better": False},
        ],
    )
    task(
        "local_writing",
        [{"prompt": prompt, "answer": answer.rstrip(",")} for prompt, answer in answers],
        output_type="generate_until",
        doc_to_text="{{prompt}}",
        doc_to_target="{{answer}}",
        generation_kwargs={"until": [","], "max_gen_toks": 6, "do_sample": False},
        metric_list=[{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    )
    task(
        "local_text",
        [{"text": text} for text in documents],
        output_type="loglikelihood_rolling",
        doc_to_text="",
        doc_to_target="{{text}}",
        metric_list=[{"metric": "bits_per_byte", "aggregation": "bits_per_byte", "higher_is_better": False}],
    )
    return folder


@pytest.fixture(scope="module")
def models():
    """The bundled model, and what is left of it after a cut that left every layer another size."""
    loaded = ta.load("bundled", dtype="float32")
    groups, channels = (1, 3, 2, 1, 4, 1), (300, 512, 50, 100, 90, 200)
    scores = ta.ImportanceScores.random(loaded.spec)
    plan = ta.make_plan(scores, loaded.spec, ta.PruningTarget(groups, channels))
    return {"dense": loaded, "pruned": ta.prune(loaded, plan)}


@pytest.fixture(scope="module")
def results(models, folder):
    names = ("local_pairs", "local_answers", "local_text", "local_writing")
    return ta.evaluate_tasks(models, names, include_path=folder, limit=COUNT, batch_size=5)


def _read(loaded: ta.LoadedModel, prompt: str, continuation: str) -> tuple[float, bool]:
    """Log-likelihood of a continuation, and whether it is the greedy one."""
    return _read_ids(loaded, loaded.tokenizer(prompt + continuation).input_ids, len(loaded.tokenizer(prompt).input_ids))


def _read_ids(loaded: ta.LoadedModel, ids: list[int], start: int) -> tuple[float, bool]:
    """One text at a time, no padding: of the tokens from `start` on."""
    ids = torch.tensor(ids)
    with torch.inference_mode():
        log_probabilities = loaded.model(ids[None]).logits[0, start - 1 : -1].double().log_softmax(-1)
    targets = ids[start:]
    likelihood = log_probabilities.gather(1, targets[:, None]).sum().item()
    return likelihood, bool((log_probabilities.argmax(-1) == targets).all())


def _mean(values: list[float]) -> tuple[float, float]:
    """Mean and its standard error."""
    values = torch.tensor(values, dtype=torch.float64)
    return values.mean().item(), (values.std() / math.sqrt(len(values))).item()


@pytest.mark.parametrize("label", ["dense", "pruned"])
def test_multiple_choice(results, models, pairs, label):
    loaded = models[label]
    right = [_read(loaded, prompt, good)[0] > _read(loaded, prompt, bad)[0] for prompt, good, bad in pairs[:COUNT]]
    score = results.rows()["local_pairs", "acc", "none"][label]
    assert (score.value, score.standard_error) == pytest.approx(_mean([float(each) for each in right]))
    assert (score.num_fewshot, score.num_documents, score.version) == (0, COUNT, "2")
    assert score.higher_is_better is True
    assert label == "dense" or 0 < score.value < 1


@pytest.mark.parametrize("label", ["dense", "pruned"])
def test_likelihood_of_an_answer(results, models, answers, label):
    read = [_read(models[label], prompt, answer) for prompt, answer in answers[:COUNT]]
    rows = results.rows()
    accuracy, perplexity = (rows["local_answers", metric, "none"][label] for metric in ("acc", "perplexity"))
    assert (accuracy.value, accuracy.standard_error) == pytest.approx(_mean([float(greedy) for _, greedy in read]))
    mean, error = _mean([likelihood for likelihood, _ in read])
    assert perplexity.value == pytest.approx(math.exp(-mean), rel=1e-4)
    if label == "dense":  # resampled by the harness: near the delta method's where the spread is small
        assert perplexity.standard_error == pytest.approx(perplexity.value * error, rel=0.5)
    assert perplexity.standard_error > 0
    assert perplexity.higher_is_better is False


@pytest.mark.parametrize("label", ["dense", "pruned"])
def test_likelihood_of_documents(results, models, documents, label):
    tokenizer = models[label].tokenizer
    # the harness puts a BOS before whatever the tokenizer makes of a text, here one that starts with a BOS itself
    rows = [[tokenizer.bos_token_id, *tokenizer(text).input_ids] for text in documents[:COUNT]]
    nats = -sum(_read_ids(models[label], row, 1)[0] for row in rows)
    size = sum(len(text.encode()) for text in documents[:COUNT])
    score = results.rows()["local_text", "bits_per_byte", "none"][label]
    assert score.value == pytest.approx(nats / size / math.log(2), rel=1e-4)
    assert score.standard_error is None


@pytest.mark.parametrize("label", ["dense", "pruned"])
def test_text_that_is_written(results, models, answers, label):
    written = [ta.generate(models[label], prompt, max_new_tokens=6).partition(",")[0] for prompt, _ in answers[:COUNT]]
    right = [text == answer.rstrip(",") for text, (_, answer) in zip(written, answers, strict=False)]
    score = results.rows()["local_writing", "exact_match", "none"][label]
    assert score.value == sum(right) / COUNT
    assert (score.value == 1) == (label == "dense")


def test_one_table_says_what_it_was_made_with(results):
    assert results.harness == f"lm_eval {version('lm_eval')}"
    assert (results.models, results.limit) == (("dense", "pruned"), COUNT)
    tasks = [("local_pairs", "acc"), ("local_answers", "perplexity"), ("local_answers", "acc"),
             ("local_text", "bits_per_byte"), ("local_writing", "exact_match")]  # fmt: skip
    assert [key[:2] for key in results.rows()] == tasks
    assert all(list(row) == ["dense", "pruned"] for row in results.rows().values())
    values = json.loads(json.dumps(results.to_dict()))
    assert values["scores"][0]["value"] == results.scores[0].value and len(values["scores"]) == 10


def test_the_harness_itself_says_the_same(results, models, folder):
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    pruned = models["pruned"]
    said = simple_evaluate(
        HFLM(pretrained=pruned.model, tokenizer=copy.deepcopy(pruned.tokenizer), batch_size=3),
        tasks=["local_pairs", "local_text"],
        limit=COUNT,
        task_manager=TaskManager(include_path=str(folder), include_defaults=False),
    )["results"]
    rows = results.rows()
    assert said["local_pairs"]["acc,none"] == rows["local_pairs", "acc", "none"]["pruned"].value
    assert said["local_pairs"]["acc_stderr,none"] == rows["local_pairs", "acc", "none"]["pruned"].standard_error
    said_bits = said["local_text"]["bits_per_byte,none"]
    assert said_bits == pytest.approx(rows["local_text", "bits_per_byte", "none"]["pruned"].value, rel=1e-5)


def test_examples_in_the_prompt(models, folder, monkeypatch):
    prompts = []
    run = lm_eval_tasks._run

    def spied(loaded, found, *settings):
        results = run(loaded, found, *settings)
        prompts.extend(instance.args[0] for task in found["tasks"].values() for instance in task.instances)
        return results

    monkeypatch.setattr(lm_eval_tasks, "_run", spied)
    names = ("local_pairs", "local_answers")
    results = ta.evaluate_tasks(models, names, include_path=folder, limit=1, num_fewshot=2)
    assert [score.num_fewshot for score in results.scores if score.metric == "acc"] == [2, 2, 0, 0]
    dense, pruned = prompts[:2], prompts[2:4]
    assert dense == pruned and dense[0].count("\n\n") == 2, "two examples, the same for both models"


def test_nothing_is_left_behind(models, folder):
    loaded = models["pruned"]
    before = {name: tensor.clone() for name, tensor in loaded.model.state_dict().items()}
    tokenizer, state = loaded.tokenizer.init_kwargs | {"pad": loaded.tokenizer.pad_token}, torch.get_rng_state()
    calls = []

    def stop_at_the_second_pass(done: int, total: int, unit: str) -> None:
        calls.append((done, total, unit))
        if len(calls) == 3:
            raise ta.Cancelled

    with pytest.raises(ta.Cancelled):
        ta.evaluate_tasks(
            {"pruned": loaded}, ["local_pairs"], include_path=folder, batch_size=1, progress=stop_at_the_second_pass
        )
    assert calls == [(0, 1, "tasks")] * 3
    assert not any(module._forward_pre_hooks for module in loaded.model.modules())
    assert all(tensor.equal(before[name]) for name, tensor in loaded.model.state_dict().items())
    assert loaded.tokenizer.init_kwargs | {"pad": loaded.tokenizer.pad_token} == tokenizer
    assert torch.equal(torch.get_rng_state(), state)


def test_progress_is_in_tasks(models, folder):
    calls = []
    ta.evaluate_tasks(models, ["local_pairs"], include_path=folder, limit=1, progress=lambda *call: calls.append(call))
    assert calls[0] == (0, 2, "tasks") and calls[-1] == (2, 2, "tasks") and (1, 2, "tasks") in calls
    assert calls == sorted(calls)


@pytest.mark.parametrize(
    ("settings", "error", "sentence"),
    [
        ({"limit": 0}, ta.InvalidOption, "limit is 0; give a whole number from 1"),
        ({"num_fewshot": -1}, ta.InvalidOption, "num_fewshot is -1"),
        ({"batch_size": 0}, ta.InvalidOption, "batch_size is 0"),
        ({"tasks": ()}, ta.InvalidTask, "Name at least one"),
        ({"include_path": "nowhere"}, ta.InvalidTask, "There is no folder nowhere"),
    ],
)
def test_what_is_refused(models, folder, settings, error, sentence):
    settings = {"tasks": ("local_pairs",), "include_path": folder} | settings
    with pytest.raises(error, match=sentence):
        ta.evaluate_tasks(models, **settings)


def test_unknown_tasks_and_data_that_cannot_be_had(models, folder):
    with pytest.raises(ta.InvalidTask, match="no task named 'local_pears'. Similar names: .*local_pairs"):
        ta.check_tasks(["local_text", "local_pears"], include_path=folder)
    ta.check_tasks(["arc_easy", "local_text", "mmlu"], include_path=folder)
    with pytest.raises(ta.InvalidTask, match="no task named 'arc_esy'.*Similar names: arc_easy"):
        ta.check_tasks(["arc_esy"])
    with pytest.raises(ta.InvalidTask, match="The task arc_easy cannot be loaded: .*hub|Hub"):
        ta.evaluate_tasks(models, ["arc_easy"])


def test_a_group_is_one_task_with_a_mean_of_its_own(models, folder, results):
    names = ["local_pairs", "local_answers"]
    mean = {"metric": "acc", "aggregation": "mean", "weight_by_size": True}
    values = {"group": "local_group", "task": names, "aggregate_metric_list": [mean]}
    (folder / "group.yaml").write_text(json.dumps(values), encoding="utf-8")
    rows = ta.evaluate_tasks(models, ["local_group"], include_path=folder, limit=COUNT).rows()
    for label in models:
        parts = [rows[name, "acc", "none"][label].value for name in names]
        assert parts == [results.rows()[name, "acc", "none"][label].value for name in names]
        assert rows["local_group", "acc", "none"][label].value == pytest.approx(sum(parts) / 2)
        assert rows["local_group", "acc", "none"][label].num_documents is None


def test_a_task_that_breaks_says_so(models, folder, tmp_path):
    values = json.loads((folder / "local_text.yaml").read_text(encoding="utf-8"))
    broken = {"task": "broken", "doc_to_target": "{{text | no_such_filter}}"}
    (tmp_path / "broken.yaml").write_text(json.dumps(values | broken), encoding="utf-8")
    with pytest.raises(ta.InvalidTask, match="broken cannot be (loaded|run on dense): .*no_such_filter"):
        ta.evaluate_tasks(models, ["broken"], include_path=tmp_path)


def test_models_without_a_tokenizer_are_refused(models, folder):
    mute = ta.LoadedModel.from_model(models["dense"].model)
    with pytest.raises(ta.InvalidTask, match="mute came without a tokenizer"):
        ta.evaluate_tasks({"mute": mute}, ["local_pairs"], include_path=folder)


def test_without_the_harness_the_line_that_installs_it_is_named(monkeypatch):
    def absent(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(lm_eval_tasks, "version", absent)
    with pytest.raises(ta.InvalidOption, match=r"pip install lm_eval"):
        ta.check_tasks(["arc_easy"])


@pytest.fixture(scope="module")
def saved(models, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "pruned"
    ta.save(models["pruned"], folder)
    return folder


def test_the_command_says_the_same(capsys, saved, folder, results):
    line = ["tasks", "--model", str(saved), "--reference", "bundled", "--tasks", "local_pairs, local_answers"]
    line += ["--limit", str(COUNT), "--include-path", str(folder), "--dtype", "float32", "--batch-size", "5"]
    assert main([*line, "--json"]) == 0
    captured = capsys.readouterr()
    values = json.loads(captured.out)
    assert captured.err == "" and values["reference"]["source"] == "bundled"
    rows = {(score["model"], score["task"], score["metric"]): score for score in values["results"]["scores"]}
    assert len(rows) == 6
    for label, name in (("reference", "dense"), ("model", "pruned")):
        for key in (("local_pairs", "acc"), ("local_answers", "acc"), ("local_answers", "perplexity")):
            assert rows[label, *key]["value"] == pytest.approx(results.rows()[*key, "none"][name].value, rel=1e-4)
    assert main(line) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    lines = captured.out.splitlines()
    assert f"lm_eval {version('lm_eval')}, the first 12 documents of each task" in lines
    dense, pruned = (results.rows()["local_pairs", "acc", "none"][name] for name in ("dense", "pruned"))
    (row,) = (line for line in lines if line.startswith("local_pairs: acc (higher is better)"))
    cells = [f"{score.value:.4f} ± {score.standard_error:.4f}" for score in (dense, pruned)]
    assert re.split(r"\s{2,}", row)[-3:] == [*cells, f"{pruned.value - dense.value:+.4f}"]


def test_the_command_refuses_before_a_model_is_loaded(capsys, monkeypatch, folder):
    monkeypatch.setattr(ta, "load", None)
    line = ["tasks", "--model", "bundled", "--tasks", "local_pears", "--include-path", str(folder)]
    assert main(line) == 1
    captured = capsys.readouterr()
    assert "There is no task named 'local_pears'" in captured.err
    assert captured.err.count("\n") == 1 and captured.out == ""
