"""What a visitor takes away beside the checkpoint (that is in test_main_job.py)."""

import json
import zipfile

import gguf
import pytest

from tests.e2e.explorer import SLOW


@pytest.mark.exhaustive
def test_a_gguf_file_of_the_chosen_type(explorer, tmp_path):
    page = explorer.page
    explorer.click("export-gguf")
    assert "Prune first" in explorer.says("Nothing has been cut")

    explorer.prune(1)
    explorer.choose("gguf-type", "8 bits")
    with page.expect_download(timeout=SLOW) as download:
        explorer.click("export-gguf")
    assert "llama.cpp runs it as llama" in explorer.says("stored in float16")
    assert download.value.suggested_filename == "bundled-pruned-1-q8_0.gguf"
    download.value.save_as(tmp_path / "model.gguf")
    types = {tensor.tensor_type.name for tensor in gguf.GGUFReader(tmp_path / "model.gguf").tensors}
    assert types == {"F32", "F16", "Q8_0"}


@pytest.mark.exhaustive
def test_layers_of_different_sizes_are_written_as_they_are_if_wanted(explorer, tmp_path):
    page = explorer.page
    assert not page.locator("#export-layers").is_visible()
    page.get_by_label("More where less is lost").click()
    explorer.prune(1)
    explorer.reads("export-layers", "stock transformers loads it")
    page.get_by_label("Compact").check()
    with page.expect_download(timeout=SLOW) as download:
        explorer.click("export-button")
    assert "ta.load does" in explorer.says("Written.")
    with zipfile.ZipFile(download.value.path()) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("/config.json")]
        sizes = {layer["intermediate_size"] for layer in json.loads(archive.read(name))["per_layer_config"].values()}
    assert len(sizes) > 1
