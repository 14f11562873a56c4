"""What the library's tests share."""

import copy

import pytest

import transact as ta


@pytest.fixture(scope="session")
def bundled() -> ta.LoadedModel:
    """The bundled model in float32; never to be changed."""
    return ta.load("bundled", dtype="float32")


@pytest.fixture(scope="session")
def chatting(bundled):
    """The bundled model's tokenizer with a chat template, which writes one message after the other."""
    tokenizer = copy.deepcopy(bundled.tokenizer)
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    return tokenizer


@pytest.fixture
def llama():
    """Opens GGUF files in the real llama.cpp, its key/value cache in float32, and closes them."""
    reason = "needs the real llama.cpp: pip install llama-cpp-python, which compiles it; .ci/run does"
    llama_cpp = pytest.importorskip("llama_cpp", reason=reason)
    opened = []

    def run(path: str, **settings):
        cache = {"type_k": llama_cpp.GGML_TYPE_F32, "type_v": llama_cpp.GGML_TYPE_F32}
        opened.append(
            llama_cpp.Llama(path, n_ctx=256, n_threads=1, logits_all=True, verbose=False, **cache, **settings)
        )
        return opened[-1]

    yield run
    for model in opened:
        model.close()
