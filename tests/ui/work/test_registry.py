"""Models in memory: within one budget, shared by all, and never changed by anyone's work."""

import hashlib
from pathlib import Path

import pytest

import transact as ta
from transact.runtime import memory as machine
from ui.server import memory
from ui.server.memory import BUDGET_VARIABLE, LruCache, memory_budget, nbytes
from ui.server.telemetry import Telemetry
from ui.state import plan_of_choice
from ui.state.session import BUNDLED, Choice, ModelKey, Sampling, Session
from ui.text_sources import text_source
from ui.work import measuring, pruning, recovery, scoring
from ui.work.jobs import Watch
from ui.work.recovery import Form
from ui.work.registry import Registry

FOLDER = str(Path(ta.__file__).resolve().parents[1] / "assets" / "model")
SINGLE, DOUBLE = ModelKey(FOLDER, dtype="float32"), ModelKey(FOLDER, dtype="float64")
MB = 10**6


def weights(loaded: ta.LoadedModel) -> str:
    """A digest of every bit of the weights and buffers."""
    digest = hashlib.sha256()
    for name, tensor in loaded.model.state_dict().items():
        digest.update(name.encode() + tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


class TestBudget:
    @pytest.mark.parametrize(
        ("given", "expected"),
        [("6000000", 6 * MB), ("6GB", 6000 * MB), ("1.5 g", 1500 * MB), ("500mb", 500 * MB), ("2T", 2 * 10**12)],
    )
    def test_is_what_the_host_says(self, monkeypatch, given, expected):
        monkeypatch.setenv(BUDGET_VARIABLE, given)
        assert memory_budget() == expected

    @pytest.mark.parametrize("given", ["much", "-1GB", "0", "6 GiB!", "NaN"])
    def test_what_is_no_size_is_refused_by_its_name(self, monkeypatch, given):
        monkeypatch.setenv(BUDGET_VARIABLE, given)
        with pytest.raises(ValueError, match=f"{BUDGET_VARIABLE} is .*give bytes above 0"):
            memory_budget()

    def test_is_a_share_of_what_the_container_has(self, monkeypatch):
        monkeypatch.delenv(BUDGET_VARIABLE, raising=False)
        monkeypatch.setattr(memory, "limit_bytes", lambda: 1000)
        assert memory_budget() == 700

    def test_everything_within_a_value_counts(self, stories_scored):
        statistics = stories_scored.statistics
        sums = sum(moments.sums.nbytes for moments in (*statistics.attention, *statistics.mlp))
        assert nbytes(statistics) > 2 * sums > 0
        assert stories_scored.held_bytes > nbytes(statistics)
        assert nbytes([statistics, {"again": statistics}, "text", None, 1]) == 2 * nbytes(statistics)


class TestContainer:
    @pytest.mark.parametrize("version", [1, 2])
    def test_its_limit_counts_and_its_file_cache_does_not(self, monkeypatch, tmp_path, version):
        total, free = machine.psutil.virtual_memory().total, machine.psutil.virtual_memory().available
        limit, used, cache = free // 2, free // 4, free // 8
        folder = tmp_path / ("memory" if version == 1 else "pod/box")
        folder.mkdir(parents=True)
        names, entry = {
            1: (("memory.limit_in_bytes", "memory.usage_in_bytes"), "total_inactive_file"),
            2: (("memory.max", "memory.current"), "inactive_file"),
        }[version]
        for name, value in zip(names, (limit, used), strict=True):
            (folder / name).write_text(f"{value}\n")
        (folder / "memory.stat").write_text(f"anon 12\n{entry} {cache}\n")
        (tmp_path / "own").write_text("0::/pod/box\n" if version == 2 else "4:memory:/docker/1\n")
        monkeypatch.setattr(machine, "_CGROUPS", tmp_path)
        monkeypatch.setattr(machine, "_OWN_CGROUP", tmp_path / "own")
        assert machine.limit_bytes() == limit
        assert machine.available_bytes() == limit - used + cache
        (folder / names[0]).write_text("max\n" if version == 2 else f"{2**63 - 4096}\n")
        assert machine.limit_bytes() == total
        assert machine.available_bytes() <= total


@pytest.fixture(scope="module")
def stories_scored():
    watch = Watch("test")
    return scoring.score(Registry(), BUNDLED, text_source.sample("stories"), Sampling(num_samples=4, seq_len=32), watch)


class TestRegistry:
    def test_what_was_used_longest_ago_makes_room_whatever_it_is(self):
        telemetry = Telemetry()
        registry = Registry(telemetry, budget_bytes=45 * MB)  # a copy takes 10.8 MB, in float64 21.7 MB
        single = registry.dense(SINGLE)
        registry.keep_pruned("a", "1", single)
        registry.keep_pruned("b", "1", single)
        assert registry.models == 3
        registry.pruned("a", "1")
        registry.dense(DOUBLE)
        assert registry.in_memory(SINGLE) is None and registry.pruned("a", "1") is single
        assert registry.pruned("b", "1") is single
        assert registry.held_bytes <= registry.budget_bytes
        registry.dense(SINGLE)  # not among the latest three any more
        assert registry.in_memory(DOUBLE) is None
        evicted = {dict(labels)["what"]: n for (name, labels), n in telemetry.counters().items() if "bytes" not in name}
        assert evicted == {"dense": 2}

    def test_one_larger_than_the_budget_is_refused_where_nothing_streams_before_anything_makes_room(self, monkeypatch):
        monkeypatch.setenv("TRANSACT_STREAM", "0")
        registry = Registry(budget_bytes=15 * MB)
        kept = registry.dense(SINGLE)
        assert not registry.preflight(DOUBLE).fits and registry.preflight(SINGLE).fits
        with pytest.raises(ta.NotEnoughMemory, match=f"take 21.7 MB .* within 15.0 MB.*{BUDGET_VARIABLE}"):
            registry.dense(DOUBLE)
        assert registry.in_memory(SINGLE) is kept

    @pytest.mark.slow
    def test_all_visitors_share_the_weights_and_nobodys_work_changes_them(self, untimed):
        registry, watch = Registry(), Watch("test")
        loaded = registry.dense(BUNDLED)
        before = weights(loaded)
        scored = scoring.score(
            registry, BUNDLED, text_source.sample("stories"), Sampling(num_samples=4, seq_len=32, taylor=True), watch
        )
        session = plan_of_choice.planned(Session("visitor", BUNDLED, loaded.spec, scored, Choice()))
        text = text_source.TextSource("pasted text", text_source.evaluation_sample("stories").texts[:2], "pasted")
        measuring.what_if(registry, session, text, watch, prompt="Once upon a time")
        for repair in ta.COMPENSATIONS:
            result = pruning.cut(registry, session, repair, watch, search=True)
            session = session.with_result(measuring.measure(registry, session.id, result, text, watch))
            pruned = pruning.pruned_model(registry, session.id, result, watch)
            shared = {tensor.data_ptr() for tensor in loaded.model.state_dict().values()}
            assert all(tensor.data_ptr() not in shared for tensor in pruned.model.state_dict().values())
        measuring.steadiness(registry, session, watch)
        form = Form(
            shots=1, shot_tokens=0, recovery_tokens=500, learning_rate=1e-2, loss="distillation", own_text=False,
            repair="none", search=False,
        )  # fmt: skip
        recovery.recover(registry, session, recovery.training(session, form), text, watch)
        stopped = Watch("stopped")
        stopped.says = lambda title: stopped.stop.set() if "behind masks" in title else None
        with pytest.raises(ta.Cancelled):
            measuring.what_if(registry, session, text, stopped)
        assert registry.dense(BUNDLED) is loaded and weights(loaded) == before
        assert watch.parameters == loaded.spec.num_parameters

    def test_a_run_that_was_stopped_leaves_no_model_for_the_next(self, stories_scored):
        """The number of a result is taken again after a stop; its model must not be."""
        registry, watch = Registry(), Watch("test")
        session = scoring.opened(Session("visitor", BUNDLED, None, None), BUNDLED, registry.dense(BUNDLED), None)
        session = plan_of_choice.rescored(session, stories_scored)
        planned = [plan_of_choice.chosen(session, Choice(attention=0.0, mlp=mlp)) for mlp in (0.25, 0.75)]
        results = [pruning.cut(registry, each, "none", watch) for each in planned]
        assert results[0].number == results[1].number
        for result, each in zip(results, planned, strict=True):
            pruned = pruning.pruned_model(registry, session.id, result, watch)
            assert pruned.spec.layers == each.plan.spec.layers


class TestShelf:
    def test_says_what_went_and_why(self, monkeypatch):
        now, gone = [0.0], []
        monkeypatch.setattr(memory.time, "monotonic", lambda: now[0])
        shelf = LruCache(max_items=2, max_bytes=100, idle_seconds=60, dropped=lambda *what: gone.append(what))
        for number, size in enumerate((10, 20, 30, 90)):
            now[0] = float(number)
            shelf.put(number, "value", size)
        assert gone == [(10, "number"), (20, "number"), (30, "memory")]
        assert (shelf.held_bytes, shelf.oldest, len(shelf)) == (90, 3.0, 1)
        now[0] = 64.0
        assert shelf.get(3) is None and gone[-1] == (90, "idle")
        shelf.put("own", "value")
        shelf.drop(lambda key: key == "own")  # whose visitor left: nothing had to make room
        assert len(gone) == 4 and len(shelf) == 0

    def test_a_change_of_session_frees_nothing_of_others(self):
        registry = Registry()
        loaded = registry.dense(SINGLE)
        for owner in ("a", "b"):
            registry.keep_pruned(owner, "1", loaded)
        registry.forget("a")
        assert registry.pruned("a", "1") is None and registry.pruned("b", "1") is loaded
