"""`prune` and `save` in one for a model whose weights stay in their files: read a layer, cut it, write it."""

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import chain
from pathlib import Path

import torch
from safetensors import SafetensorError

from transact.cutting.prune import cut, cut_exceptions, cut_layer
from transact.errors import InvalidOption, NumberTooLarge, SaveRefused, choice
from transact.export.checkpoint import Form, empty_destination, form_of, move_in, partial_folder, write_companions
from transact.export.file_tensors import keeps_dtype
from transact.export.model_card import write_card
from transact.export.padding import is_padded, padded_layer
from transact.export.report import SaveReport
from transact.layers.weights import origin, with_tensors
from transact.models.loaded_model import DTYPES, LoadedModel
from transact.observing.statistics import ActivationStatistics
from transact.progress import NO_PROGRESS, Check, Progress, Repeating
from transact.repair.refit_base import Refit, plain_refit
from transact.repair.repairs import COMPENSATIONS, REPAIRS, Repair
from transact.runtime.distributed import rank_and_count
from transact.spec.plan import PruningPlan
from transact.streaming.layer_log import LayerLog
from transact.streaming.shard_writer import ShardWriter
from transact.streaming.streamed_model import StreamedModel, streamed

_MARK = "stream"
"""Part of the name of the unfinished folder, so that the same call finds it again."""


def stream_prune(
    source: str | StreamedModel,
    plan: PruningPlan,
    directory: str | Path,
    *,
    compensation: str = "none",
    statistics: ActivationStatistics | None = None,
    dtype: str | None = None,
    layers: str = "padded",
    device: str = "auto",
    revision: str | None = None,
    progress: Progress = NO_PROGRESS,
) -> SaveReport:
    """Cut the plan and write the checkpoint that `prune` and `save` would, with one layer in memory at a time.

    `source`: a name as `load` takes it, or what `load_streamed` returned (which sets `device` and `revision`).
    `compensation`: "none", "bias" (from `statistics`) or "least_squares": from statistics with Gram matrices, or, with
    `gram="by_layer"`, from the calibration text, run through the layers as they are cut.
    "best" is refused, as its last step takes gradients through the whole model. `dtype`: that of the files, by default
    the one of the source's files. `layers` as `save` takes it. Everything else is copied from file to file. The
    result is not proved, as that would load the whole model. Progress is in layers.

    The folder appears only when all of it is written. Until then it is beside it as `.<name>.stream.partial`;
    after an interruption the same call resumes at the layer where it stopped.

    Raises what `prune`, `save` and `load_streamed` raise.
    """
    repair = _streamed_repair(compensation)
    if rank_and_count()[1] > 1:
        raise InvalidOption("stream_prune writes one checkpoint and is for one process. Call it in one alone.")
    loaded = streamed(source, device, revision)
    _check_plan(loaded, plan)
    directory = empty_destination(directory, but=f".{_MARK}.partial")
    target = DTYPES[choice(dtype, DTYPES, "dtype") if dtype else loaded.file_dtype]
    repair.check(loaded, statistics)
    outline = cut(loaded.outline, plan, repair, plain_refit)
    form = form_of(outline, directory, target, layers)
    job = _Job(loaded, plan, repair, statistics, outline, form)
    try:
        with closing(LayerLog(partial_folder(directory, _MARK), {**job.identity, "layers": layers})) as log:
            job.run(log, progress)
            form.write_config(log.folder)
            write_companions(log.folder, outline)
            write_card(log.folder / "README.md", outline, form.report)
            log.remove()
            move_in(log.folder, directory)
    except (OSError, SafetensorError) as error:
        raise SaveRefused(
            f"{directory} could not be written ({error}). Free some space and start again: layers that are finished "
            "are kept. Or choose another place."
        ) from error
    return form.report


def _streamed_repair(compensation: str) -> Repair:
    repair = REPAIRS[choice(compensation, COMPENSATIONS, "compensation")]
    if not repair.streams:
        others = ", ".join(f'"{each.name}"' for each in REPAIRS.values() if each.streams)
        raise InvalidOption(
            f'compensation="{compensation}" {repair.not_streamed}, so that it cannot be streamed. Choose one of '
            f"{others}, or load the model where it fits into memory."
        )
    return repair


def _check_plan(loaded: StreamedModel, plan: PruningPlan) -> None:
    plan.check_fits(loaded.fingerprint)
    if plan.spec.has_narrow_heads:
        raise InvalidOption(
            "This plan takes dimensions out of heads, which is not streamed. Plan whole heads, or load the model where "
            "it fits into memory."
        )


class _Job:
    """The tensors to write, in order: all outside the layers, then layer by layer, numbered as they are written."""

    def __init__(
        self,
        loaded: StreamedModel,
        plan: PruningPlan,
        repair: Repair,
        statistics: ActivationStatistics | None,
        outline: LoadedModel,
        form: Form,
    ):
        self.loaded = loaded
        self.plan = plan
        self.repair = repair
        self.statistics = statistics
        self.after = outline.spec
        self.form = form
        self.target = form.config.dtype
        # where nothing is computed, the precision of the files suffices
        self.dtype = loaded.dtype if repair.changes else DTYPES[loaded.stored_dtype]
        shapes = {name: tuple(each.shape) for name, each in outline.model.named_parameters()}
        prefixes = [f"{loaded.layout.layers}.{number}." for number in range(self.after.num_hidden_layers)]
        for number, (prefix, layer) in enumerate(zip(prefixes, outline.decoder_layers, strict=True)):
            sizes = {name: each.shape for name, each in self._at_its_size(number, layer).items()}
            shapes |= {prefix + name: tuple(shape) for name, shape in sizes.items()}
        self.layers = [[name for name in shapes if name.startswith(prefix)] for prefix in prefixes]
        inside = {name for names in self.layers for name in names}
        self.outside = [name for name in shapes if name not in inside]
        self.exceptions = self._exceptions()
        self.names = {name: name for name in (*self.outside, *chain.from_iterable(self.layers))}
        self.names = {each: name for name, each in form.named(self.names).items()}
        self.shapes = {self.names[name]: shapes[name] for name in self.names}
        kept = {origin(name, loaded.layout): dtype for name, dtype in self.exceptions.items()}
        read = {name: name for name in self.outside}  # where a written tensor comes from
        for prefix, index, names in zip(prefixes, plan.kept_layers, self.layers, strict=True):
            read |= {name: f"{loaded.layout.layers}.{index}.{name.removeprefix(prefix)}" for name in names}
        self.dtypes = {
            self.names[name]: kept[of] for name in self.names if (of := origin(read[name], loaded.layout)) in kept
        }

    @property
    def identity(self) -> dict[str, object]:
        """What identifies the work."""
        statistics = self.statistics
        return {
            "work": "prune",
            "model": self.loaded.fingerprint,
            "plan": self.plan.digest,
            "compensation": self.repair.name,
            "statistics": None if statistics is None else statistics.calibration.fingerprint,
            "by_layer": self.repair.needs_grams and statistics is not None and statistics.gram_by_layer,
            "computed_in": str(self.loaded.dtype),
            "dtype": str(self.target),
        }

    def _exceptions(self) -> dict[str, torch.dtype]:
        """Tensors that keep the dtype of the source's files, which is not that of the others."""
        files, layout = self.loaded.files, self.loaded.layout
        refitted = tuple(f".{path}.{each}" for path in (layout.output, layout.down) for each in self.repair.changes)
        exceptions: dict[str, torch.dtype] = {}
        for name, _ in self.loaded.model.named_parameters():
            kept = files.dtype(name)
            if kept != DTYPES[self.loaded.stored_dtype] and keeps_dtype(kept, self.target, self.loaded.stored_dtype):
                exceptions |= {} if name.endswith(refitted) else {name: kept}
        return exceptions

    def _at_its_size(self, number: int, layer: torch.nn.Module) -> dict[str, torch.Tensor]:
        """The tensors of a layer of the cut model as they are written."""
        tensors = layer.state_dict()
        if is_padded(self.after, self.form.spec, number):
            small, large = self.after.layers[number], self.form.spec.layers[number]
            tensors |= padded_layer(layer, small, large, self.after, self.form.spec)
        return tensors

    def run(self, log: LayerLog, progress: Progress) -> None:
        """Write the weights into the log's folder, starting at the layer where it stopped."""
        try:
            self._write_weights(log, progress)
        except NumberTooLarge:  # the same call would fail again
            shutil.rmtree(log.folder)
            raise

    def _write_weights(self, log: LayerLog, progress: Progress) -> None:
        writer = ShardWriter(log.folder, self.shapes, self.target, self.dtypes)
        start = log.layers if writer.begin_after(self._tensors_before(log.layers)) else 0
        self._check_room(log.folder, writer)
        count = len(self.layers)
        watch = Repeating(progress, count, "layers", start)

        def check_within_layer(done: int, total: int, unit: str) -> None:
            """Progress within a layer is not reported; cancellation is checked."""
            watch.check()

        assert self.repair.refit is not None, "refused by _streamed_repair"
        refit_one = self.repair.refit(self.loaded, self.statistics, check_within_layer)
        if start:
            after = self.plan.kept_layers[start - 1] + 1
            refit_one.resume(after, [log.tensors[str(batch)] for batch in range(len(log.tensors))])
        try:
            if not start:
                writer.begin_after(0)
                for name in self.outside:
                    writer.write(self.names[name], self.loaded.files.pieces(name), watch.check)
            # while one layer is flushed to the disk, the next is read and cut
            with ThreadPoolExecutor(1) as disk:
                kept = disk.submit(lambda: None)
                for number in range(start, count):
                    watch(number, count, "layers")
                    self._write_layer(writer, number, refit_one, watch.check)
                    kept.result()
                    hidden = {str(batch): each for batch, each in enumerate(refit_one.hidden)}
                    kept = disk.submit(_keep, writer.to_disk(), log, number + 1, hidden)
                    if hidden:  # these are not kept in memory beside the next layer's
                        kept.result()
                kept.result()
            writer.finish()
            watch(count, count, "layers")
        finally:
            writer.close()

    def _tensors_before(self, layer: int) -> int:
        return len(self.outside) + sum(map(len, self.layers[:layer])) if layer else 0

    def _write_layer(self, writer: ShardWriter, number: int, refit_one: Refit, check: Check) -> None:
        layers, index = self.loaded.layout.layers, self.plan.kept_layers[number]
        spec, prefix, kept = self.loaded.spec, f"{layers}.{index}.", self.plan.layers[index]
        exceptions = {
            name.removeprefix(prefix): self.loaded.files.read(name, dtype).to(self.loaded.device)
            for name, dtype in self.exceptions.items()
            if name.startswith(prefix)
        }
        with self.loaded.layer_as(index, self.dtype, check) as layer:
            smaller = cut_layer(spec, layer, index, kept, refit_one, self.after)
            smaller_exceptions = cut_exceptions(spec, layer, index, kept, self.after, exceptions)
        tensors = self._at_its_size(number, with_tensors(smaller, smaller_exceptions))
        for name in self.layers[number]:
            writer.write(self.names[name], [tensors[name.removeprefix(f"{layers}.{number}.")]], check)

    def _check_room(self, folder: Path, writer: ShardWriter) -> None:
        needed, free = writer.total_bytes - writer.written_bytes, shutil.disk_usage(folder).free
        if needed > free:
            raise SaveRefused(
                f"The checkpoint takes {needed / 1e9:.1f} GB more and {free / 1e9:.1f} GB are free at {folder.parent}. "
                "Free some space and start again, or choose another place."
            )


def _keep(on_disk: Callable[[], None], log: LayerLog, layers: int, hidden: dict[str, torch.Tensor]) -> None:
    """Log the finished layers once their bytes are on the disk."""
    on_disk()
    log.finish(layers, hidden)
