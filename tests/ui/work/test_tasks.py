"""Standard tasks from the host's folder: what is offered, what is refused, and what they say."""

import json

import pytest

import transact as ta
from tests.ui.views.test_result_tables import result  # noqa: F401
from ui.errors import WrongInput
from ui.pages import tasks as page
from ui.server import environment
from ui.state.session import BUNDLED, Session, TasksRun
from ui.work import tasks


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """One task with its data beside it, named as a file that lies in no other folder."""
    lines = [{"text": f"{first} + {second} =", "choices": [f" {first + second}", " x"], "label": 0}
             for first in range(2, 5) for second in range(3, 6)]  # fmt: skip
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    (tmp_path / "sums.yaml").write_text(
        "task: small_sums\ndataset_path: json\n"
        f"dataset_kwargs: {{data_files: {{test: sums.jsonl}}, cache_dir: '{tmp_path}/cache'}}\n"
        "output_type: multiple_choice\ntest_split: test\ndoc_to_text: '{{text}}'\ndoc_to_choice: choices\n"
        "doc_to_target: label\nmetric_list: [{metric: acc}]\n",
        encoding="utf-8",
    )
    monkeypatch.setenv(environment.TASKS, str(tmp_path))
    return tmp_path


def test_the_folder_is_offered_and_others_cannot_name_more(folder, monkeypatch):
    assert tasks.names_here() == ("small_sums",)
    assert tasks.checked(["small_sums"], 5) == (("small_sums",), 5)
    assert tasks.checked(["arc_easy"], 5) == (("arc_easy",), 5)  # on one's own machine
    for names, documents, said in (
        ([], 5, "No task is chosen"), (None, 5, "No task"), (["small_sums"], 0, "Documents of each task"),
        (["a"] * 9, 5, "at most 8"),
    ):  # fmt: skip
        with pytest.raises(WrongInput, match=said):
            tasks.checked(names, documents)
    monkeypatch.setenv("SPACE_ID", "a/b")
    assert tasks.checked(["small_sums"], 5)
    with pytest.raises(WrongInput, match="There is no task “arc_easy” here"):
        tasks.checked(["arc_easy"], 5)
    monkeypatch.delenv(environment.TASKS)
    assert tasks.names_here() == ()


def test_scores_stand_side_by_side(result):  # noqa: F811
    def score(model, metric, value, error=0.01):
        return ta.TaskScore(model, "<sums>", metric, "none", value, error, metric == "acc", 0, 100, "1")

    found = ta.TaskResults(
        (score("dense", "acc", 0.75), score("pruned", "acc", 0.5), score("dense", "perplexity", 20.0),
         score("pruned", "perplexity", 30.0), score("dense", "acc_norm", 0.7, 0.05),
         score("pruned", "acc_norm", 0.65, 0.05)), ("dense", "pruned"), "lm_eval 1", 100,
    )  # fmt: skip
    session = Session("a", BUNDLED, result.scored.spec, None, results=(result,), tasks=TasksRun(3, found))
    table = page.table_of(session)
    assert "&lt;sums&gt;" in table and "Result 3" in table and "the first 100 documents" in table
    assert "<td>75.0 % <small>± 1.0 %</small></td><td>50.0 % <small>± 1.0 %</small></td><td>−25 points</td>" in table
    assert "<td>× 1.50</td>" in table and table.count("no different within the noise") == 1


@pytest.mark.long
def test_the_data_are_found_beside_the_task(folder):
    pytest.importorskip("lm_eval")
    found = ta.evaluate_tasks({"dense": ta.load("bundled")}, ["small_sums"], include_path=folder, limit=4)
    (score,) = (each for each in found.scores if each.metric == "acc")
    assert score.value == 1 and score.num_documents == 4
