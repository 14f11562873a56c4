"""A stand-in for Hugging Face's `spaces` on ZeroGPU, by what its version 0.51 does.

The decorated function runs in a forked process, to which arguments and from which values are pickled; the process is
kept for the next call where the GPU was not lent to somebody else meanwhile (`KEEP`), and then knows nothing of what
has happened here since. Of an exception only the name comes back, and of a refusal an HTML sentence (`REFUSE`).
"""

import multiprocessing
from functools import wraps

import gradio as gr
import torch

FORK = multiprocessing.get_context("fork")
KEEP, REFUSE = False, None
calls: list[tuple[int, int, int]] = []
"""Of every call: the seconds asked for, and the sizes in bytes of what went there and came back."""
pids: set[int] = set()


def GPU(function=None, *, duration=60):
    if function is None:
        return lambda function: GPU(function, duration=duration)
    worker = None

    @wraps(function)
    def lent(*arguments):
        nonlocal worker
        if REFUSE is not None:
            raise gr.Error(REFUSE, title="ZeroGPU quota exceeded")
        asked = duration(*arguments) if callable(duration) else duration
        if worker is None or not KEEP:
            if worker is not None:
                worker[0].kill()
            ours, theirs = FORK.Pipe()
            process = FORK.Process(target=serve, args=(function, theirs), daemon=True)
            process.start()
            worker = process, ours
        process, pipe = worker
        sent = pickled(arguments)
        pipe.send_bytes(sent)
        kind, value, size = answer(pipe)
        pids.add(process.pid)
        calls.append((asked, len(sent), size))
        if kind == "error":
            raise gr.Error(value, title="ZeroGPU worker error")
        return value

    return lent


def serve(function, pipe) -> None:
    torch.set_num_threads(1)  # OpenMP's threads do not survive a fork
    while True:
        arguments = multiprocessing.reduction.ForkingPickler.loads(pipe.recv_bytes())
        try:
            value = "value", function(*arguments)
        except Exception as error:
            value = "error", type(error).__name__
        pipe.send_bytes(pickled(value))


def answer(pipe):
    received = pipe.recv_bytes()
    return *multiprocessing.reduction.ForkingPickler.loads(received), len(received)


def pickled(value) -> bytes:
    return bytes(multiprocessing.reduction.ForkingPickler.dumps(value))
