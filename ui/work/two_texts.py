"""What two results write after the same prompt."""

import transact as ta
from ui.server import zerogpu
from ui.state.session import Result
from ui.work import streamed
from ui.work.pruning import pruned_model
from ui.work.registry import Registry
from ui.work.step_costs import WRITTEN_TOKENS
from ui.work.watch import Watch


def two_texts(registry: Registry, owner: str, pair: tuple[Result, Result], prompt: str, watch: Watch) -> list[str]:
    """The greedy continuation by each; a model that had to make room is cut again first.

    Raises `WrongInput` for a result that stays in its files, and as `transact.generate` does.
    """
    written = []
    for result in pair:
        pruned = pruned_model(registry, owner, result, watch)
        streamed.refuse(pruned, "Writing would read all of them for every token. Let it write elsewhere.")
        watch.says(f"Writing with result {result.number}")
        written.append(
            zerogpu.forward(
                ta.generate, pruned, prompt,
                tokens=len(prompt) + WRITTEN_TOKENS, steps=WRITTEN_TOKENS, progress=watch,
            )
        )  # fmt: skip
    return written
