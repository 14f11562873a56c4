"""Models larger than the app's memory: streamed without being asked, to the numbers of models in memory."""

import zipfile

import pytest
import torch
from safetensors.torch import load_file

import transact as ta
from tests.conftest import ROOT
from transact.cli import main
from transact.models.sources import BUNDLED_DIRECTORY
from ui.errors import WrongInput
from ui.pages.cut import _repairs
from ui.pages.model import loaded_card, preflight_card
from ui.pages.rules import _granularity
from ui.state import plan_of_choice
from ui.state.session import Choice, ModelKey, Sampling, Session
from ui.text_sources import text_source
from ui.views import result_table
from ui.views.downloads import Exports
from ui.views.python_code import Recipe, code
from ui.views.shell_commands import commands
from ui.work import measuring, pruning, recovery, scoring, streamed
from ui.work.jobs import Watch
from ui.work.registry import Registry, is_streamed

pytestmark = pytest.mark.long

KEY = ModelKey(str(BUNDLED_DIRECTORY))  # by its folder, as the bundled one stays in memory whatever the budget
SAMPLING = Sampling(num_samples=6, seq_len=48)
TEXT = text_source.sample("stories")
MEASURED_ON = text_source.evaluation_sample("stories")
LAYERS = ta.preflight("bundled").spec.num_hidden_layers


@pytest.fixture
def registry():
    return Registry(budget_bytes=10_000_000)  # the weights take 10.8 MB


@pytest.fixture
def watch():
    return Watch("test")


@pytest.fixture
def session(registry, watch) -> Session:
    loaded = scoring.load(registry, KEY, watch)
    opened = scoring.opened(Session("visitor", KEY, None, None), KEY, loaded, None)
    scored = scoring.score(registry, KEY, TEXT, SAMPLING, watch)
    return plan_of_choice.chosen(plan_of_choice.rescored(opened, scored), Choice(attention=0.25, mlp=0.8))


@pytest.fixture(scope="module")
def whole():
    """The same model in memory."""
    return ta.load(KEY.source)


@pytest.fixture(scope="module")
def evaluation(whole):
    return measuring.evaluation_set(MEASURED_ON, whole).first(streamed.SEQUENCES)


class _Stops(Watch):
    """Stops where the work tells of something new for the `count`-th time under a title."""

    def __init__(self, title: str, count: int):
        super().__init__(title)
        self._at, self._left, self._told = title, count, None

    def __call__(self, done, total, unit):
        before, self._told = self._told, (done, total, unit)
        super().__call__(done, total, unit)
        if self.title.startswith(self._at) and self._told != before:
            self._left -= 1
            if self._left == 0:
                raise ta.Cancelled


def test_the_preflight_decides_and_the_page_says_so(registry, session):
    card = registry.preflight(KEY)
    assert not card.fits and is_streamed(card)
    shown = preflight_card(card, streamed=True)
    assert "passes layer by layer from its files; press Load" in shown and "training need the whole model" in shown
    assert session.streamed and session.scored.streamed
    assert "read from its files, one at a time" in loaded_card(session)
    assert registry.dense(KEY).is_streamed and registry.held_bytes <= registry.budget_bytes
    roomy = Registry(budget_bytes=50_000_000)
    assert roomy.preflight(KEY).fits and not roomy.dense(KEY).is_streamed


@pytest.mark.parametrize("settings", [{"TRANSACT_STREAM": "0"}, {"GRADIO_SERVER_NAME": "0.0.0.0"}])
def test_a_host_may_leave_it_out_and_does_where_others_wait(registry, monkeypatch, settings):
    for name, value in {"TRANSACT_LOCAL_ROOTS": "/", **settings}.items():
        monkeypatch.setenv(name, value)
    card = registry.preflight(KEY)
    assert not is_streamed(card) and "How to cut it" in preflight_card(card)
    with pytest.raises(ta.NotEnoughMemory, match="TRANSACT_MEMORY_BUDGET"):
        registry.dense(KEY)
    monkeypatch.setenv("TRANSACT_STREAM", "1")
    assert registry.dense(KEY).is_streamed


def test_scores_and_masks_come_to_what_they_do_in_memory(registry, session, watch, whole, evaluation):
    statistics = ta.observe(whole, session.scored.calibration)
    expected = ta.score(whole, statistics)
    for mine, theirs in zip(session.scored.scores["transact"].heads, expected.heads, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=0)
    tried = measuring.what_if(registry, session, MEASURED_ON, watch, prompt="Once upon a time")
    assert tried.num_tokens == evaluation.num_tokens and tried.dense_writes is None
    assert tried.dense == pytest.approx(ta.perplexity(whole, evaluation), rel=1e-5)
    with ta.masked(whole, session.plan):
        assert tried.masked == pytest.approx(ta.perplexity(whole, evaluation), rel=1e-5)
    assert measuring.steadiness(registry, session, watch).value.channel_overlaps


@pytest.mark.parametrize("repair", [each.name for each in ta.REPAIRS.values() if each.streams])
def test_cut_measured_and_taken_away(registry, session, watch, whole, evaluation, repair, tmp_path):
    result = pruning.cut(registry, session, repair, watch)
    result = measuring.measure(registry, session.id, result, MEASURED_ON, watch, prompt="Once upon a time")
    statistics = ta.observe(whole, session.scored.calibration, gram=True)
    pruned = ta.prune(whole, session.plan, compensation=repair, statistics=statistics)
    expected = ta.evaluate(pruned, evaluation, reference=whole, speed=False)
    for name in ("perplexity", "reference_perplexity", "top1_agreement", "kl_divergence", "parameters"):
        assert getattr(result.report, name) == pytest.approx(getattr(expected, name), rel=1e-4), name
    assert result.floor is None and "Speed was not measured" in result_table.result_table(result)

    def write(folder):
        return pruning.write_checkpoint(registry, session.id, result, folder, watch)

    exports = Exports()
    archive, said = exports.checkpoint("visitor", "small", write, watch)
    assert "not proved" in said
    zipfile.ZipFile(archive).extractall(tmp_path)
    mine = load_file(tmp_path / "small" / "model.safetensors")
    for name, weight in pruned.model.state_dict().items():
        if name in mine:  # in the dtype of the base's files
            torch.testing.assert_close(mine[name], weight.bfloat16(), rtol=1e-2, atol=1e-4)
    assert ta.PruningPlan.from_json((tmp_path / "small" / "plan.json").read_text()).layers == session.plan.layers


def test_the_shown_lines_come_to_the_same(registry, session, watch, tmp_path, monkeypatch):
    result = pruning.cut(registry, session, "least_squares", watch)
    result = measuring.measure(registry, session.id, result, MEASURED_ON, watch)
    recipe = Recipe.of_result(result)
    lines, shell = code(recipe), commands(recipe)
    assert "ta.load_streamed" in lines and "--stream" in shell
    (tmp_path / "assets").symlink_to(ROOT / "assets")
    monkeypatch.chdir(tmp_path)
    ran: dict = {}
    exec(lines, ran)
    assert ran["report"].perplexity == pytest.approx(result.report.perplexity, rel=1e-6)
    assert ran["report"].reference_perplexity == pytest.approx(result.report.reference_perplexity, rel=1e-6)
    (tmp_path / "pruned-model").rename(tmp_path / "by python")
    (command,) = [line for line in shell.replace("\\\n", " ").splitlines() if line.startswith("python")]
    assert main(command.split()[3:]) == 0
    mine, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("by python", "pruned-model"))
    assert all(weight.equal(theirs[name]) for name, weight in mine.items())


def test_what_was_stopped_goes_on_at_its_layer(registry, session, watch, monkeypatch):
    sampling, told = Sampling(num_samples=6, seq_len=40), []
    with pytest.raises(ta.Cancelled):
        scoring.score(registry, KEY, TEXT, sampling, _Stops("Scoring", 3 + 1))
    again = Watch("test")
    monkeypatch.setattr(again, "raise_if_cancelled", lambda *seen: told.append(again.latest))
    scored = scoring.score(registry, KEY, TEXT, sampling, again)
    first = next(tick.done for tick in told if tick.total == scored.num_tokens and tick.done)
    assert first > scored.num_tokens // LAYERS, "what was done before is not done again"
    assert not registry.scoring_folder.exists()

    with pytest.raises(ta.Cancelled):
        pruning.cut(registry, session, "least_squares", _Stops("Cutting", LAYERS - 1))
    told.clear()
    result = pruning.cut(registry, session, "least_squares", again)
    layers = [tick.done for tick in told if tick.unit == "layers"]
    assert layers[0] > 0
    folder = registry.checkpoint_folder(session.id, result.identity)
    assert [entry.name for entry in folder.parent.iterdir()] == [folder.name]


def test_a_visitor_has_the_latest_files_and_the_others_again_when_asked(registry, session, watch):
    first = pruning.cut(registry, session, "none", watch)
    session = session.with_result(first)
    second = pruning.cut(registry, session, "bias", watch)
    parent = registry.checkpoint_folder(session.id, second.identity).parent
    assert [entry.name for entry in parent.iterdir()] == [f"result-{second.identity}"]
    again = streamed.checkpoint(registry, session.id, first, watch)
    assert [entry.name for entry in parent.iterdir()] == [again.name] == [f"result-{first.identity}"]
    registry.forget(session.id)
    assert not parent.exists()


def test_what_fits_once_it_is_cut_is_in_memory(registry, session, watch, tmp_path):
    result = pruning.cut(registry, session, "none", watch)
    pruned = pruning.pruned_model(registry, session.id, result, watch)
    assert not pruned.is_streamed and registry.pruned(session.id, result.identity) is pruned
    said = pruning.write_gguf(registry, session.id, result, tmp_path / "small.gguf", watch, file_type="f16")
    assert "llama.cpp runs it" in said
    little = plan_of_choice.chosen(session, Choice(attention=0.0, mlp=0.05))
    large = pruning.cut(registry, little, "none", watch)
    assert pruning.pruned_model(registry, session.id, large, watch).is_streamed
    with pytest.raises(WrongInput, match="convert_hf_to_gguf.py"):
        pruning.write_gguf(registry, session.id, large, tmp_path / "large.gguf", watch, file_type="f16")


def test_what_needs_the_whole_model_is_refused_with_what_to_do(registry, session, watch):
    form = recovery.Form(
        shots=1, shot_tokens=0, recovery_tokens=500, learning_rate=1e-2, loss="distillation", own_text=False,
        repair="none", search=False,
    )  # fmt: skip
    chosen = recovery.training(session, form)
    for act in (
        lambda: pruning.cut(registry, session, "best", watch),
        lambda: pruning.cut(registry, session, "best", watch, search=True),
        lambda: measuring.redundancy(registry, session, MEASURED_ON, watch),
        lambda: measuring.generate(registry, session, "Once", watch),
        lambda: scoring.score(registry, KEY, TEXT, Sampling(num_samples=6, seq_len=48, taylor=True), watch),
        lambda: recovery.recover(registry, session, chosen, MEASURED_ON, watch),
    ):
        with pytest.raises(WrongInput, match=r"larger than the memory here, .* one after the other\. \w.*\. \w|.*\."):
            act()
    assert _repairs(session)["value"] == "least_squares" and len(_repairs(session)["choices"]) == 3
    cut = session.with_result(pruning.cut(registry, session, "bias", watch))
    assert _repairs(cut)["value"] == "bias"
    assert "head_dims" not in [name for _, name in _granularity(session)["choices"]]
