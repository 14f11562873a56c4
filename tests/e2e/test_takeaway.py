"""What a visitor takes away beside the checkpoint (that is in test_main_job.py)."""

import gguf

from tests.e2e.explorer import SLOW


def test_a_gguf_file_of_the_chosen_type(explorer, tmp_path):
    page = explorer.page
    page.click("#export-gguf")
    assert "Prune first" in explorer.says("Nothing has been cut")

    explorer.prune(1)
    explorer.choose("gguf-type", "8 bits")
    with page.expect_download(timeout=SLOW) as download:
        page.click("#export-gguf")
    assert "llama.cpp runs it as llama" in explorer.says("stored in float16")
    assert download.value.suggested_filename == "bundled-pruned-1-q8_0.gguf"
    download.value.save_as(tmp_path / "model.gguf")
    types = {tensor.tensor_type.name for tensor in gguf.GGUFReader(tmp_path / "model.gguf").tensors}
    assert types == {"F32", "F16", "Q8_0"}
