"""Models in memory: dense ones shared by all visitors and never changed, pruned ones per visitor.

All of it together keeps within one budget of bytes: what was used longest ago makes room. Nothing is lost by that:
a dense model is loaded again from its source, a pruned one is cut again from its plan, and one that was trained is
read again from its folder. A model larger than the budget stays in its files and passes layer by layer.
"""

import math
import shutil
import tempfile
from collections.abc import Callable, Collection, Hashable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import transact as ta
from ui.errors import WrongInput
from ui.format import numbers
from ui.server import environment, zerogpu
from ui.server.disk import Disk
from ui.server.folders import folder_name
from ui.server.memory import BUDGET_VARIABLE, LruCache, memory_budget
from ui.server.telemetry import Telemetry
from ui.state.session import BUNDLED, ModelKey, Sampling, Scored
from ui.text_sources.text_source import TextSource
from ui.work.speeds import Speeds, timed_forward
from ui.work.text_extent import Extent
from ui.work.watch import Watch

T = TypeVar("T")
_MAX_DENSE, _MAX_PRUNED, _MAX_SCORED, _MAX_PROBED, _MAX_GRAM, _MAX_EXTENTS, _MAX_SAID = 4, 16, 32, 8, 4, 64, 512
_PRUNED_SECONDS = 30 * 60
_TRAINED = "trained-"
_GRAM_SHARE = 0.2
"""Of the budget: one run's Gram matrices can be larger than the model, and are quickly made again."""


class Registry:
    """The models and calibration runs that are in memory. Work with a model is done in a job."""

    def __init__(
        self, telemetry: Telemetry | None = None, *, budget_bytes: int | None = None, disk_bytes: float = math.inf
    ):
        self._telemetry = telemetry or Telemetry()
        self.budget_bytes = memory_budget() if budget_bytes is None else budget_bytes
        self._bundled: ta.LoadedModel | None = None
        self.speeds = Speeds()
        self._dense = self._shelf("dense", max_items=_MAX_DENSE)
        self._pruned = self._shelf("pruned", max_items=_MAX_PRUNED, idle_seconds=_PRUNED_SECONDS)
        self._scored = self._shelf("scores", max_items=_MAX_SCORED)
        self._probed = self._shelf("probes", max_items=_MAX_PROBED)
        self._extents = LruCache(max_items=_MAX_EXTENTS)
        self._said = LruCache(max_items=_MAX_SAID)
        self._perplexities = LruCache(max_items=_MAX_SAID)
        self._gram = self._shelf("gram", max_items=_MAX_GRAM, max_bytes=_GRAM_SHARE * self.budget_bytes)
        self._folders = tempfile.TemporaryDirectory(prefix="transact-results-")
        self.disk = Disk(disk_bytes, Path(self._folders.name))

    @property
    def models(self) -> int:
        """Models in memory."""
        return (self._bundled is not None) + len(self._dense) + len(self._pruned)

    @property
    def held_bytes(self) -> int:
        """What models, scores and their statistics take together."""
        self._pruned.expire()
        bundled = 0 if self._bundled is None else self._bundled.held_bytes
        return bundled + sum(shelf.held_bytes for shelf in self._shelves)

    def dense(self, key: ModelKey, watch: Watch | None = None) -> ta.LoadedModel:
        """The model as published, loaded if it is not in memory; the bundled one stays for good.

        What was used longest ago makes room. One that does not fit even so comes as a `StreamedModel`. Raises what
        `transact.load` raises, and `NotEnoughMemory` where streaming would not fit either, or is not done here.
        """
        watch = watch or Watch("Loading")
        loaded = self._loaded(key, watch)
        watch.parameters = loaded.spec.num_parameters
        return loaded

    def _loaded(self, key: ModelKey, watch: Watch) -> ta.LoadedModel:
        _check_place(key)
        if key == BUNDLED:
            self._bundled = self._bundled or ta.load(key.source, device=zerogpu.HOME, progress=watch)
            return self._bundled
        held = self._dense.get(key)
        if held is not None:
            return held
        card = self.preflight(key, watch)
        loaded = self._opened(card, key, watch)
        self._keep(self._dense, key, loaded, loaded.held_bytes)
        return loaded

    def time(self, key: ModelKey, watch: Watch) -> None:
        """Find out how fast a model is here, unless that is known, so that times can be told before the first click."""
        loaded = self.in_memory(key)
        if loaded is None or loaded.is_streamed or zerogpu.LENT or self.speeds.knows(key):
            return
        watch.says("Timing this machine")
        self.speeds.note_forward(key, *timed_forward(loaded, watch.raise_if_cancelled))

    def fetch(self, key: ModelKey, watch: Watch) -> None:
        """Bring the files of a model here and have them tried, so that loading it holds nobody up for long.

        Does nothing for a model that is in memory, or that there is no room for: loading says so. Raises what
        `transact.fetch` does.
        """
        _check_place(key)
        if self.in_memory(key) is not None:
            return
        card = self._card(key, watch)
        if card.fits or is_streamed(card):
            self._make_room_on_disk(card, key)
            ta.fetch(key.source, revision=card.revision, untrusted=key != BUNDLED, progress=watch)

    def _make_room_on_disk(self, card: ta.Preflight, key: ModelKey) -> None:
        if card.revision is not None:  # of the hub
            held = {other.source for other in self._dense.keys}
            self.disk.make_room_for_model(card.weights_bytes, {key.source, *held})

    def opened(self, folder: Path, dtype: str, watch: Watch) -> ta.LoadedModel:
        """A checkpoint that was written here, which nobody else keeps: in memory where it fits, or streamed."""
        key = ModelKey(str(folder), dtype=dtype)
        return self._opened(self._card(key, watch), key, watch)

    def _opened(self, card: ta.Preflight, key: ModelKey, watch: Watch) -> ta.LoadedModel:
        """In memory where it fits once others have made room, or else streamed from its files."""
        # at the commit that was looked at, so that the hub need not be asked again
        now = {"dtype": key.dtype, "device": zerogpu.HOME, "revision": card.revision}
        opening = {**now, "untrusted": True, "progress": watch}
        self._make_room_on_disk(card, key)
        if is_streamed(card):
            self._make_room(card.streamed_bytes)
            return ta.load_streamed(key.source, **opening)
        if card.weights_bytes > self.budget_bytes:
            raise ta.NotEnoughMemory(
                f"The weights of {key.source} take {numbers.size(card.weights_bytes)} and this app keeps models within "
                f"{numbers.size(self.budget_bytes)}. Choose a smaller model or a half-precision dtype; who runs "
                f"the app sets {BUDGET_VARIABLE}."
            )
        self._make_room(card.weights_bytes)
        while not ta.preflight(key.source, **now, progress=watch).fits and self._drop_oldest():
            pass
        return ta.load(key.source, **opening)

    def in_memory(self, key: ModelKey) -> ta.LoadedModel | None:
        """The model if it is there now; nothing is loaded."""
        return self._bundled if key == BUNDLED else self._dense.get(key)

    def preflight(self, key: ModelKey, progress: ta.Progress = ta.NO_PROGRESS) -> ta.Preflight:
        """What loading `key` would need, and what this app lets it have, once others have made room."""
        _check_place(key)
        return self._card(key, progress)

    def _card(self, key: ModelKey, progress: ta.Progress) -> ta.Preflight:
        card = ta.preflight(key.source, dtype=key.dtype, device=zerogpu.HOME, revision=key.revision, progress=progress)
        free = card.available_bytes + sum(shelf.held_bytes for shelf in (self._dense, self._pruned, self._gram))
        allowed = self.budget_bytes + card.required_bytes - card.weights_bytes
        return replace(card, available_bytes=min(free, allowed))

    def keep_pruned(self, owner: str, identity: str, pruned: ta.LoadedModel) -> None:
        """Keep a visitor's pruned model under its result's identity."""
        self._keep(self._pruned, (owner, identity), pruned, pruned.held_bytes)

    def pruned(self, owner: str, identity: str) -> ta.LoadedModel | None:
        """The visitor's pruned model, or None where it had to make room."""
        return self._pruned.get((owner, identity))

    def keep_scored(self, scored: Scored) -> None:
        self._keep(self._scored, (scored.key, scored.text, scored.sampling), scored, scored.held_bytes)

    def scored(self, key: ModelKey, text: TextSource, sampling: Sampling) -> Scored | None:
        """An earlier run over the same text with the same settings, whoever made it."""
        return self._scored.get((key, text, sampling))

    def gram_statistics(
        self, scored: Scored, observe: Callable[[], ta.ActivationStatistics]
    ) -> ta.ActivationStatistics:
        """Statistics with Gram matrices for a calibration run; they are large, so only the latest few stay."""
        key = (scored.key, scored.calibration.fingerprint)
        statistics = self._gram.get(key) or observe()
        self._keep(self._gram, key, statistics, _gram_bytes(statistics))
        return statistics

    def dense_probes(self, key: ModelKey, run: Callable[[], list[ta.ProbeResult]]) -> list[ta.ProbeResult]:
        """How the dense model does in the probes; run once, since it never changes."""
        results = self._probed.get(key) or run()
        self._probed.put(key, results)
        return results

    def dense_perplexity(self, key: Hashable, measure: Callable[[], float]) -> float:
        """What a dense model comes to on the tokens that `key` names; measured once."""
        perplexity = self._perplexities.get(key) or measure()
        self._perplexities.put(key, perplexity)
        return perplexity

    def said(self, key: Hashable, say: Callable[[], T]) -> T:
        """What a model says after a prompt; greedy, so that it never changes."""
        said = self._said.get(key) or say()
        self._said.put(key, said)
        return said

    def extent(self, key: Hashable, count: Callable[[], Extent]) -> Extent:
        """How much of a text is read; counted once, as a form asks at every change."""
        extent = self._extents.get(key) or count()
        self._extents.put(key, extent)
        return extent

    def seconds_for(self, flops: float, key: ModelKey | None = None) -> float | None:
        """How long that much work should take, with that model or the last one; None before anything was timed."""
        return self.speeds.forward_seconds(flops, key)

    def training_folder(self, owner: str, kept: Collection[Path | None] | None = None) -> Path:
        """A new folder for a trained model: unlike one that was only cut, it can't be made again in a moment.

        Of the visitor's earlier ones those in `kept` stay, all without it. Raises `DiskFull` where the visitor may not
        write more.
        """
        own = self._folder(owner)
        for earlier in own.glob(f"{_TRAINED}*"):
            if kept is not None and earlier not in kept:
                shutil.rmtree(earlier, ignore_errors=True)
        self.disk.need(own)
        return Path(tempfile.mkdtemp(prefix=_TRAINED, dir=own))

    @property
    def scoring_folder(self) -> Path:
        """Where streamed scoring keeps how far it is: of one run, as one is at work at a time."""
        return Path(self._folders.name) / "scoring"

    def checkpoint_folder(self, owner: str, identity: str) -> Path:
        """Where the files of a streamed result are or will be; those of the visitor's others make room.

        Raises `DiskFull` where they are not there yet and the visitor may not write more.
        """
        own, name = self._folder(owner) / "cut", f"result-{identity}"
        own.mkdir(exist_ok=True)
        for other in own.iterdir():
            if name not in (other.name, other.name.removeprefix(".").removesuffix(".stream.partial")):
                shutil.rmtree(other, ignore_errors=True)
        if not (own / name).exists():
            self.disk.need(self._folder(owner))
        return own / name

    def _folder(self, owner: str) -> Path:
        own = Path(self._folders.name) / folder_name(owner)
        own.mkdir(exist_ok=True)
        return own

    def forget(self, owner: str) -> None:
        """Drop what belongs to a visitor who left."""
        self._pruned.drop(lambda key: key[0] == owner)
        shutil.rmtree(self._folder(owner), ignore_errors=True)

    @property
    def _shelves(self) -> tuple[LruCache, ...]:
        return self._dense, self._pruned, self._scored, self._gram

    def _shelf(self, what: str, **bounds) -> LruCache:
        """A shelf whose evictions are counted and logged as those of `what`."""

        def dropped(size: int, why: str) -> None:
            self._telemetry.add("transact_evictions_total", what=what, why=why)
            self._telemetry.add("transact_evicted_bytes_total", size, what=what, why=why)
            self._telemetry.event("evicted", what=what, why=why, bytes=size)

        return LruCache(dropped=dropped, **bounds)

    def _keep(self, shelf: LruCache, key: Hashable, value, size: int) -> None:
        """Put a value on its shelf, once there is room for it."""
        shelf.drop(lambda held: held == key)
        self._make_room(size)
        shelf.put(key, value, size)

    def _make_room(self, size: int) -> None:
        while self.held_bytes + size > self.budget_bytes and self._drop_oldest():
            pass

    def _drop_oldest(self) -> bool:
        """Drop what was used longest ago, whatever it is; False where nothing is left."""
        return min(self._shelves, key=lambda shelf: shelf.oldest).drop_oldest()


def is_streamed(card: ta.Preflight) -> bool:
    """Whether this app goes through that model layer by layer, as `Registry.preflight` found it."""
    return not card.fits and card.streamed_bytes <= card.available_bytes and environment.may_stream()


def _check_place(key: ModelKey) -> None:
    """Raise `NotYet` for a model without weights, `WrongInput` for a folder that visitors may not name."""
    key.need_weights()
    if key.source != BUNDLED.source and not environment.may_name(key.source):
        raise WrongInput(environment.refusal(key.source))


def _gram_bytes(statistics: ta.ActivationStatistics) -> int:
    return sum(moments.gram.nbytes for moments in (*statistics.attention, *statistics.mlp))
