"""Links, and the folders that a recovery goes on from."""

import json
import shutil
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

import transact as ta
from tests.fuzz.strategies import ODD_TEXTS, fuzzing, one_sentence, spoiled_bytes, spoiled_json
from tests.tiny_models import build
from transact.errors import TransactError
from ui.state import plan_of_choice, settings_link
from ui.state.session import ModelKey, Sampling, Scored, Session
from ui.text_sources.text_source import TextSource

SPEC = ta.ModelSpec.from_config(build("llama").model.config)
SCORES = ta.ImportanceScores.random(SPEC)
SCORED = Scored(
    ModelKey("bundled"), SPEC, TextSource("mixed", ("x",), "sample"), Sampling(), None, None, 0.1, None,
    dict.fromkeys(ta.METRICS, SCORES), {},
)  # fmt: skip
NAMES = (
    "revision", "dtype", "text", "samples", "length", "seed", "gradients", "metric", "attention", "mlp", "allocation",
    "limit", "groups", "channels", *settings_link._LOCKS,
)  # fmt: skip
GOOD = st.sampled_from(
    ["0.25", "0", "1", "4", "8", "mixed", "wanda", "taylor", "global", "flap", "uniform", "memory:0.5", "kv:0.9",
     "3,3,3", "7,8,9", "0.1,2.3", "1.0", "parameters:", ":", ",", ".", "1.1.1", "-1.5", "float32", "0.0,0.0", "99.99",
     "memory:nan"]
)  # fmt: skip


@fuzzing("links")
@given(
    st.one_of(ODD_TEXTS, st.just("bundled")),
    st.dictionaries(st.sampled_from(NAMES), st.one_of(GOOD, ODD_TEXTS, st.text(max_size=20)), max_size=6),
)
def test_links(model, params):
    try:
        found = settings_link.settings({"model": model} | params)
        session = Session("a", found.key, SPEC, SCORED, choice=found.choice)
        planned = plan_of_choice.planned(session)
    except TransactError as error:
        one_sentence(error)
        return
    again = settings_link.settings(
        dict(parse_qsl(settings_link.query(planned).removeprefix("?"), keep_blank_values=True))
    )
    assert again.choice.locks == found.choice.locks and again.key == found.key


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    dense = build("llama")
    plan = ta.make_plan(ta.ImportanceScores.random(dense.spec), dense.spec, ta.PruningTarget(3, 7))
    folder = tmp_path_factory.mktemp("recovery")
    ta.Savepoints(folder).keep(1, ta.prune(dense, plan))
    return dense, folder


def go_on(stage, tmp_path_factory, name: str, content: bytes) -> None:
    dense, written = stage
    folder = tmp_path_factory.mktemp("spoiled")
    shutil.copytree(written, folder, dirs_exist_ok=True)
    (file,) = folder.glob(f"stage-1/{name}")
    file.write_bytes(content)
    try:
        number, model = ta.Savepoints(folder).last(dense)
        assert number == 1 and model.spec.num_parameters > 0
    except TransactError as error:
        one_sentence(error)
    finally:
        shutil.rmtree(folder)


@fuzzing("savepoints", 0.6)
@given(st.data())
def test_spoiled_cuts(stage, tmp_path_factory, data):
    written = next((stage[1] / "stage-1").glob("*.json"))
    cuts = json.loads(written.read_text())
    if data.draw(st.booleans()):
        cuts[0]["plan"] = data.draw(spoiled_json(json.loads(cuts[0]["plan"])))
    else:
        cuts = json.loads(data.draw(spoiled_json(cuts)))
    go_on(stage, tmp_path_factory, written.name, json.dumps(cuts).encode())


@fuzzing("savepoints", 0.4)
@given(st.data())
def test_spoiled_weights(stage, tmp_path_factory, data):
    written = next((stage[1] / "stage-1").glob("*.safetensors"))
    content = data.draw(spoiled_bytes(written.read_bytes(), within=3000))
    go_on(stage, tmp_path_factory, written.name, content)
