"""The child's end of `transact.runtime.isolated_process`: sets its limits, runs a script, answers with JSON lines.

Run by path, as `child_protocol.py SCRIPT [limits]`. The script is a file of its own with a function
`answer(request, send)`; `send` takes what comes before the answer: `{"progress": [done, total, unit]}`,
`{"part": ...}`.
"""

import json
import os
import runpy
import sys


def main() -> None:
    """Answer the request on standard input; what libraries print goes to standard error."""
    script, *limits = sys.argv[1:]
    # None makes importing the package an error, even where PYTHONPATH or site-packages lead to it
    sys.modules["transact"] = None  # type: ignore[assignment]
    if limits:
        _set_limits(*map(int, limits))
    # a lone surrogate is written as its JSON escape
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8", errors="backslashreplace")
    sys.stdout = sys.stderr

    def send(line: dict) -> None:
        answers.write(json.dumps(line, ensure_ascii=False) + "\n")
        answers.flush()

    answer = runpy.run_path(script)["answer"]
    send({"answer": answer(json.load(sys.stdin), send)})


def _set_limits(data_bytes: int, processor_seconds: int, file_bytes: int) -> None:
    """Limit this process; done here, as no Python can safely run between fork and exec in a program with threads."""
    import resource

    for name, limit in (("DATA", data_bytes), ("CPU", processor_seconds), ("FSIZE", file_bytes), ("CORE", 0)):
        kind = getattr(resource, f"RLIMIT_{name}")
        hard = resource.getrlimit(kind)[1]
        # a second more for the processor: with equal limits the system sends SIGKILL, which does not say why
        soft_and_hard = (limit, limit + 1 if name == "CPU" else limit)
        if hard != resource.RLIM_INFINITY:
            soft_and_hard = (min(soft_and_hard[0], hard), min(soft_and_hard[1], hard))
        resource.setrlimit(kind, soft_and_hard)
    os.nice(10)


if __name__ == "__main__":
    main()
