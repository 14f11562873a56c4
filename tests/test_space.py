"""What `make space` puts together: exactly what a Space needs, within the hub's limits, with a header that it takes."""

import re
import subprocess

import pytest

from tests import space


@pytest.fixture(scope="module")
def assembled(tmp_path_factory):
    if subprocess.run(["git", "rev-parse"], cwd=space.ROOT, capture_output=True).returncode:
        pytest.skip("needs the repository, as only files that git knows are pushed")
    folder = tmp_path_factory.mktemp("build") / "space"
    return folder, space.assemble(folder)


def test_nothing_else_and_nothing_missing(assembled):
    folder, contents = assembled
    assert {path.name for path in folder.iterdir()} == set(space.PUSHED)
    assert {"app.py", "transact/__init__.py", "ui/application.py", "assets/model/model.safetensors"} <= set(
        contents.sizes
    )
    assert not [name for name in contents.sizes if re.search(r"(^|/)(\.|__pycache__)|\.pyc$|(^|/)tests?/", name)]
    for name in contents.sizes:
        assert (folder / name).read_bytes() == (space.ROOT / name).read_bytes()


def test_the_header_names_a_gradio_that_the_requirements_allow(assembled):
    said = space.header(assembled[0])
    assert said["sdk"] == "gradio" and said["hf_oauth"] is True
    low, high = re.search(r"^gradio>=([\d.]+),<(\d+)", (space.ROOT / "requirements.txt").read_text(), re.M).groups()
    version = [int(part) for part in said["sdk_version"].split(".")]
    assert [int(part) for part in low.split(".")] <= version < [int(high)]


def test_binary_files_are_named_with_what_to_do(assembled):
    _, contents = assembled
    assert "assets/model/model.safetensors" in contents.binary and "README.md" not in contents.binary
    assert "hf upload" in str(contents) and "*.safetensors" in str(contents)
    assert max(contents.sizes.values()) < 10_000_000


@pytest.mark.parametrize(
    ("line", "instead", "said"),
    [
        ("sdk: gradio", "sdk: docker", "sdk is 'docker'"),
        ("app_file: app.py", "app_file: main.py", "app_file is 'main.py'"),
        ("colorTo: green", "colorTo: teal", "colorTo is 'teal'"),
        ("short_description: See", f"short_description: {'very ' * 10}", "short_description is"),
    ],
)
def test_a_header_that_no_space_takes(assembled, tmp_path, line, instead, said):
    folder, contents = assembled
    (tmp_path / "app.py").touch()
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert line in text
    (tmp_path / "README.md").write_text(text.replace(line, instead, 1), encoding="utf-8")
    with pytest.raises(ValueError, match=said):
        space._check(tmp_path, contents)
