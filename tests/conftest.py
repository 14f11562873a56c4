"""What tests share: the development data beside the project, where it is present, and tiny real models."""

import json
import os
from pathlib import Path

import psutil
import pytest
from hypothesis import settings

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# idle threads sleep: where cores are shared, spinning ones made the same tests take many times as long
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

ROOT = Path(__file__).resolve().parents[1]
MAY_SKIP = ("needs to mount a small file system", "the stock class ", "the files of a bare decoder ")
"""How reasons to skip begin where all that tests need is there: a right that not every user has, and combinations of a
table that do not exist in stock `transformers`."""
DATA = ROOT.parent / "shared" / "data"
INPUTS_PER_THOUSAND = {"check": 20, "test": 100, "test-all": 1000}
"""Of a thousand inputs that a fuzzing test is written for, how many are tried by `make check`, `make test` and
`make test-all`, which name the Hypothesis profile; where none is named, it is that of `make test`."""

for _profile, _inputs in INPUTS_PER_THOUSAND.items():
    settings.register_profile(_profile, max_examples=_inputs)
settings.load_profile("test")


@pytest.fixture(scope="session")
def data() -> Path:
    """The development data; tests that need it are skipped where the project stands alone."""
    if not DATA.is_dir():
        pytest.skip("needs the development data (../shared/data), which is not part of the project")
    return DATA


@pytest.fixture(scope="session")
def stories(data):
    """The pretrained Llama of the development data, in float32; never to be changed."""
    import transact as ta

    return ta.load(str(data / "stories260K"), dtype="float32")


@pytest.fixture(scope="session")
def calibration_texts(data) -> list[str]:
    return read_texts(data / "tinystories_calibration.jsonl")


@pytest.fixture(scope="session")
def evaluation_texts(data) -> list[str]:
    return read_texts(data / "tinystories_evaluation.jsonl")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session):
    """Where a browser is required and the development data is there, a test that is skipped for another reason than
    those in `MAY_SKIP` is a failure: something that should be tested is not."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or os.environ.get("REQUIRE_BROWSER") != "1" or not DATA.is_dir():
        return
    reasons = {report.longrepr[2].removeprefix("Skipped: ") for report in reporter.stats.get("skipped", ())}
    surprising = sorted(reason for reason in reasons if not reason.startswith(MAY_SKIP))
    if surprising:
        reporter.write_line(f"skipped though everything should be there: {'; '.join(surprising)}", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def read_texts(path: Path) -> list[str]:
    return [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines()]


def processes_alone() -> list[psutil.Process]:
    """Those of `transact.runtime.isolated_process` that still run; a browser's driver may be a child as well."""
    running = [child for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE]
    return [child for child in running if any("child_protocol" in part for part in child.cmdline())]
