"""The page's steps through gradio_client: the same numbers, a session each, one sentence for wrong input."""

import json
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError

import transact as ta
from transact.export import checkpoint
from ui.text_sources import text_source

pytestmark = pytest.mark.slow

ELEM_IDS = {
    "model-select", "model-card", "load-button", "calibration-source", "calibration-text", "score-button",
    "stop-button", "metric-select", "heads-plot", "channels-plot", "layer-detail", "attention-sparsity",
    "mlp-sparsity", "allocation", "savings", "try-button", "repair-select", "prune-button", "result-table",
    "generation-dense", "generation-pruned", "history-table", "pareto-plot", "export-button", "code-view", "message",
    "verdict", "live-dense", "live-masked", "goal-size", "goal-go", "measure-button",
}  # fmt: skip
ENDPOINTS = {
    "/load_model": ["source"],
    "/score": ["text", "metric", "num_samples", "seq_len"],
    "/plan": ["attention_sparsity", "mlp_sparsity", "allocation"],
    "/prune": ["repair"],
    "/evaluate": ["text"],
    "/generate": ["prompt"],
    "/export": ["kind"],
}

# a process that never imports this project, and says what stock transformers makes of a folder
STOCK = """
import sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
ids = AutoTokenizer.from_pretrained(sys.argv[1])("Once upon a time", return_tensors="pt").input_ids
assert "transact" not in sys.modules
print(sum(p.numel() for p in model.parameters()), bool(torch.isfinite(model(ids).logits).all()))
"""


def load_with_stock_transformers(archive: str, folder: Path) -> tuple[int, bool]:
    with zipfile.ZipFile(archive) as zipped:
        zipped.extractall(folder)
    (checkpoint,) = [path for path in folder.iterdir() if path.is_dir()]
    answer = subprocess.run(
        [sys.executable, "-c", STOCK, str(checkpoint)], capture_output=True, text=True, check=True, cwd=folder
    )
    parameters, finite = answer.stdout.split()
    return int(parameters), finite == "True"


def test_every_fixed_elem_id_stands_in_the_config(client):
    ids = {component["props"].get("elem_id") for component in client.config["components"]}
    assert ids >= ELEM_IDS


def test_the_endpoints_and_their_arguments_are_the_published_ones(client):
    named = client.view_api(return_format="dict")["named_endpoints"]
    assert {name: [argument["parameter_name"] for argument in end["parameters"]] for name, end in named.items()} == (
        ENDPOINTS
    )


@pytest.mark.long
def test_the_whole_way_on_stories260k(client, data, tmp_path):
    source = str(data / "stories260K")
    facts = client.predict(source=source, api_name="/load_model")
    assert facts["parameters"] == 260_032
    assert facts["layers"][0] == {"num_attention_heads": 8, "num_key_value_heads": 4, "intermediate_size": 172}

    text = "\n\n".join(text_source.sample("stories").texts[:20])
    scores = client.predict(text=text, metric="transact", num_samples=16, seq_len=96, api_name="/score")
    loaded = ta.load(source)
    pasted = text_source.pasted(text, 96)
    if pasted.is_document:
        calibration = ta.CalibrationSet.from_document(
            pasted.texts[0], loaded.tokenizer, num_samples=16, seq_len=96, name="x"
        )
    else:
        calibration = ta.CalibrationSet.from_texts(pasted.texts, loaded.tokenizer, num_samples=16, seq_len=96)
    expected = ta.score(loaded, ta.observe(loaded, calibration))
    assert scores["num_tokens"] == calibration.num_tokens
    for layer in range(5):
        assert scores["layers"][layer]["heads"] == pytest.approx(expected.heads[layer].tolist())
        assert scores["layers"][layer]["head_groups"] == pytest.approx(expected.head_groups[layer].tolist())
        assert scores["layers"][layer]["channels"]["max"] == pytest.approx(float(expected.mlp_channels[layer].max()))

    summary = client.predict(attention_sparsity=0.25, mlp_sparsity=0.5, allocation="uniform", api_name="/plan")
    target = ta.PruningTarget.from_sparsity(loaded.spec, attention=0.25, mlp=0.5)
    plan = ta.make_plan(expected, loaded.spec, target)
    assert summary["after"] == plan.summary()["after"]
    assert summary["achieved"]["keep_head_groups"] == [3] * 5

    pruned = client.predict(repair="none", api_name="/prune")
    assert pruned["after"] == summary["after"]

    report = client.predict(text="stories", api_name="/evaluate")
    own = ta.EvaluationSet.from_texts(text_source.evaluation_sample("stories").texts, loaded.tokenizer, seq_len=512)
    assert report["perplexity"] == pytest.approx(ta.perplexity(ta.prune(loaded, plan), own), rel=1e-4)
    assert report["reference_perplexity"] == pytest.approx(ta.perplexity(loaded, own), rel=1e-4)
    assert "predictions" in report["protocol"]["perplexity"]

    written = client.predict(prompt="Once upon a time", api_name="/generate")
    assert written["dense"] == ta.generate(loaded, "Once upon a time")
    assert written["pruned"] and written["pruned"] != written["dense"]

    exported = client.predict(kind="plan", api_name="/export")
    exported_plan = ta.PruningPlan.from_json(Path(exported).read_text(encoding="utf-8"))
    assert exported_plan.layers == plan.layers
    archive = client.predict(kind="checkpoint", api_name="/export")
    assert load_with_stock_transformers(archive, tmp_path) == (summary["after"]["parameters"], True)
    (card,) = tmp_path.glob("*/README.md")
    assert "Proved: a fresh process with transformers" in card.read_text(encoding="utf-8")
    file = Path(client.predict(kind="gguf", api_name="/export"))
    ta.save_gguf(ta.prune(loaded, exported_plan), tmp_path / "own.gguf")
    assert file.suffix == ".gguf" and file.read_bytes() == (tmp_path / "own.gguf").read_bytes()


@pytest.mark.exhaustive
def test_the_bundled_model_is_there_without_loading(client):
    summary = client.predict(attention_sparsity=0.5, mlp_sparsity=0.5, allocation="uniform", api_name="/plan")
    assert summary["after"]["parameters"] < summary["before"]["parameters"]
    assert client.predict(repair="none", api_name="/prune")["result"] == 1
    report = client.predict(text="mixed", api_name="/evaluate")
    assert {probe["kind"] for probe in report["probes"]} == {probe.kind for probe in ta.load_probes()}
    assert json.dumps(report)


def test_one_visitor_never_sees_another(app_url):
    one, other = Client(app_url, verbose=False), Client(app_url, verbose=False)
    one.predict(attention_sparsity=0.5, mlp_sparsity=0.5, allocation="uniform", api_name="/plan")
    one.predict(repair="none", api_name="/prune")
    with pytest.raises(AppError, match="Nothing has been cut yet"):
        other.predict(kind="checkpoint", api_name="/export")
    with pytest.raises(AppError, match="Nothing has been cut yet"):
        other.predict(text="mixed", api_name="/evaluate")


def test_a_failed_proof_blocks_the_export_with_its_reason(client, monkeypatch):
    write = checkpoint.write_companions

    def spoiled(folder, *rest):
        write(folder, *rest)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"hidden_act": "gelu"}))

    client.predict(repair="none", api_name="/prune")
    monkeypatch.setattr(checkpoint, "write_companions", spoiled)
    with pytest.raises(AppError, match="The checkpoint is not kept.*the logits differ by up to"):
        client.predict(kind="checkpoint", api_name="/export")


LONG = "word " * 4000


@pytest.mark.parametrize(
    ("endpoint", "arguments", "sentence"),
    [
        ("/load_model", {"source": ""}, "No model was named"),
        ("/load_model", {"source": "nobody/does-not-exist"}, "nobody/does-not-exist"),
        ("/load_model", {"source": "/no/such/folder"}, "/no/such/folder"),
        ("/score", {"text": "", "metric": "transact", "num_samples": 4, "seq_len": 16}, "empty"),
        ("/score", {"text": "mixed", "metric": "best", "num_samples": 4, "seq_len": 16}, "no metric “best”"),
        ("/score", {"text": "mixed", "metric": "wanda", "num_samples": 0, "seq_len": 16}, "num_samples is 0"),
        ("/plan", {"attention_sparsity": 1.0, "mlp_sparsity": 0.5, "allocation": "uniform"}, "below 1"),
        ("/plan", {"attention_sparsity": 0.5, "mlp_sparsity": -0.1, "allocation": "uniform"}, "at least 0"),
        ("/plan", {"attention_sparsity": 0.5, "mlp_sparsity": 0.1, "allocation": "magic"}, "no allocation “magic”"),
        ("/prune", {"repair": "glue"}, "no repair “glue”"),
        ("/evaluate", {"text": "mixed"}, "Nothing has been cut yet"),
        ("/generate", {"prompt": ""}, "The prompt is empty"),
        ("/generate", {"prompt": LONG}, "context"),
        ("/export", {"kind": "checkpoint"}, "Nothing has been cut yet"),
        ("/export", {"kind": "gguf"}, "Nothing has been cut yet"),
        ("/export", {"kind": "zip"}, "choose one of checkpoint, plan, gguf"),
    ],
)
def test_wrong_input_gets_one_sentence_and_loses_nothing(client, endpoint, arguments, sentence):
    with pytest.raises(AppError) as caught:
        client.predict(api_name=endpoint, **arguments)
    said = str(caught.value)
    assert sentence in said
    assert "\n" not in said and "Traceback" not in said
    summary = client.predict(attention_sparsity=0.25, mlp_sparsity=0.25, allocation="uniform", api_name="/plan")
    assert summary["achieved"]["attention_sparsity"] == 0.25


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("no safetensors", "safetensors"),
        ("truncated", "model.safetensors"),
        ("shapes", "intermediate|shape"),
        ("model type", "starcoder9"),
        ("no config", "config.json"),
    ],
)
def test_a_broken_folder_is_refused_and_the_loaded_model_stays(client, data, tmp_path, fault, sentence):
    folder = tmp_path / "broken"
    shutil.copytree(data / "stories260K", folder)
    for file in folder.iterdir():
        file.chmod(0o644)
    config, weights = folder / "config.json", folder / "model.safetensors"
    match fault:
        case "no safetensors":
            weights.unlink()
        case "truncated":
            weights.write_bytes(weights.read_bytes()[:100_000])
        case "shapes":
            config.write_text(config.read_text().replace('"intermediate_size": 172', '"intermediate_size": 180'))
        case "model type":
            config.write_text(config.read_text().replace('"llama"', '"starcoder9"'))
        case "no config":
            config.unlink()
    with pytest.raises(AppError, match=sentence) as caught:
        client.predict(source=str(folder), api_name="/load_model")
    assert "\n" not in str(caught.value)
    assert client.predict(repair="none", api_name="/prune")["result"] == 1


def test_a_caller_without_a_session_is_a_new_visitor_each_time(app_url):
    def call(endpoint: str, *arguments) -> dict:
        body = json.dumps({"data": arguments}).encode()
        request = urllib.request.Request(
            f"{app_url}gradio_api/run/{endpoint}", body, {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as refused:
            return json.load(refused)

    assert call("prune", "none")["data"][0]["result"] == 1
    assert "Nothing has been cut yet" in call("export", "checkpoint")["error"]
