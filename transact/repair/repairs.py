"""The repairs: how the weights that stay make up for what is cut, without training.

None needs a tensor that a stock checkpoint lacks. `REPAIRS` is the table that `prune`, `stream_prune`, `recover`, the
command line and the page read; a repair is one file of this folder and one line of the table.
"""

from collections.abc import Callable
from dataclasses import dataclass

from transact.models.loaded_model import LoadedModel
from transact.observing.observe import grams_for_repair
from transact.observing.statistics import ActivationStatistics
from transact.progress import Progress
from transact.repair.best import best, best_bytes, check_tokens
from transact.repair.bias import BiasRefit, check_means
from transact.repair.least_squares import LeastSquaresRefit, check_grams
from transact.repair.refit_base import Refit, WholeModelRepair, no_check
from transact.spec.model_spec import ModelSpec
from transact.spec.plan import PruningPlan
from transact.text.tokens import TokenSet


@dataclass(frozen=True)
class Repair:
    """One way to make up for what is cut.

    - `name`: as `prune(compensation=…)` takes it; `label`: on the page.
    - `check`: raises `InvalidOption` or `InvalidPlan` for a model or statistics that it cannot work from.
    - `refit`: makes the new projections one after the other, so that layers can stream; or
      `whole_model`: makes all of them, with the whole model at hand. Exactly one of the two.
    - `changes`: the tensors of a projection ("weight", "bias") that hold other values than a plain cut's afterwards.
    - `needs_grams`: it works from Gram matrices. `adds_bias`: it puts a bias where the family has none by default.
    - `takes_search`: `search_plan` chooses what goes with this repair in mind.
    - `peak_bytes`: (plan, calibration, bytes per element) -> about what it takes beside the model; None where that is
      negligible.
    - `not_streamed`: why it needs the whole model at once.
    """

    name: str
    label: str
    check: Callable[[LoadedModel, ActivationStatistics | None], None]
    refit: Callable[[LoadedModel, ActivationStatistics | None, Progress], Refit] | None = None
    whole_model: (
        Callable[[LoadedModel, PruningPlan, ActivationStatistics | None, Progress], WholeModelRepair] | None
    ) = None
    changes: tuple[str, ...] = ("weight",)
    needs_grams: bool = False
    adds_bias: bool = False
    takes_search: bool = False
    peak_bytes: Callable[[PruningPlan, TokenSet, int], int] | None = None
    not_streamed: str = ""

    @property
    def streams(self) -> bool:
        """Whether it can be made with one layer in memory at a time."""
        return self.refit is not None

    def gram_option(self, spec: ModelSpec) -> bool | str:
        """The `observe(gram=…)` that suits this repair of a model of that shape."""
        return grams_for_repair(spec) if self.needs_grams else False


REPAIRS = {
    repair.name: repair
    for repair in (
        Repair("none", "None, plain cut", no_check, Refit, changes=()),
        Repair(
            "bias", "Add what is missing on average (bias)", check_means, BiasRefit, changes=("bias",), adds_bias=True
        ),
        Repair(
            "least_squares", "Refit the weights that stay (least squares)", check_grams, LeastSquaresRefit,
            needs_grams=True,
        ),
        Repair(
            "best", "Best: layer by layer, then the whole", check_tokens, whole_model=best, takes_search=True,
            peak_bytes=best_bytes, not_streamed="takes gradients through the whole model at once",
        ),
    )
}  # fmt: skip
"""By name, the weakest first."""
COMPENSATIONS = tuple(REPAIRS)
"""Ways to make up for what is cut."""
