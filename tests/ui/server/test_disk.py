"""The disk is shared: uploads go by age, each visitor has a part, and all together have an end."""

import os
import time
from pathlib import Path

import pytest
from gradio.utils import get_upload_folder

import transact as ta
from tests.ui.server.test_audience import scope
from ui.errors import WrongInput
from ui.server import disk, environment, limits
from ui.server.disk import Disk, disk_budget, size_of
from ui.server.error_messages import DiskFull
from ui.text_sources import uploads
from ui.views.downloads import Exports
from ui.work.registry import Registry

KILOBYTE = 1024


@pytest.fixture(autouse=True)
def served(tmp_path, monkeypatch) -> Path:
    """The folder of uploads and downloads."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "served"))
    folder = Path(get_upload_folder())
    folder.mkdir()
    assert folder.is_relative_to(tmp_path)
    return folder


def file(place: Path, age: float = 0.0, kilobytes: int = 4) -> Path:
    """A file that was last written to so many seconds ago."""
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(os.urandom(kilobytes * KILOBYTE))
    os.utime(place, (time.time() - age,) * 2)
    return place


class TestSweep:
    def test_uploads_that_were_broken_off_go_and_those_that_still_come_stay(self, served):
        broken = file(served / "tmpabc", disk.BROKEN_OFF_SECONDS + 5)
        coming = file(served / "tmpdef", disk.BROKEN_OFF_SECONDS - 60)
        Disk().sweep(time.time())
        assert not broken.exists() and coming.exists()

    def test_old_uploads_go_with_their_folders(self, served):
        old = file(served / "digest" / "story.txt", disk.UPLOAD_SECONDS + 5)
        half = [file(served / "two" / name, age) for name, age in (("a", disk.UPLOAD_SECONDS + 5), ("b", 0))]
        Disk().sweep(time.time())
        assert not old.parent.exists()
        assert [each.exists() for each in half] == [False, True]

    def test_downloads_are_left_to_those_who_made_them(self, served):
        exports = Exports()
        made = exports.history("me", "number\n")
        os.utime(made, (0, 0))
        Disk().sweep(time.time())
        assert made.exists()

    def test_a_file_that_is_gone_is_said_to_be_gone(self, served):
        with pytest.raises(WrongInput, match="no longer here.*upload it again"):
            uploads.text_columns(served / "digest" / "story.txt")


class TestUploads:
    def test_one_address_has_its_part_and_others_come_in(self):
        kept, size = Disk(), limits.MAX_UPLOAD_BYTES
        for _ in range(disk.UPLOADED_EACH // size):
            assert kept.upload_refused(scope(peer="8.8.8.8"), size) is None
        assert "from your address" in kept.upload_refused(scope(peer="8.8.8.8"), size)
        assert kept.upload_refused(scope(peer="1.1.1.1"), size) is None
        assert kept.upload_refused(scope(peer="127.0.0.1"), size) is None

    def test_all_together_have_a_quarter_of_the_budget_for_six_hours(self, monkeypatch):
        kept, now = Disk(400e6), [0.0]
        monkeypatch.setattr(disk.time, "monotonic", lambda: now[0])
        assert [kept.upload_refused(scope(peer="10.0.0.1"), 20_000_000) for _ in range(5)] == [None] * 5
        assert "no room for more" in kept.upload_refused(scope(peer="10.0.0.1"), 1)
        now[0] += disk.UPLOAD_SECONDS + 1
        assert kept.upload_refused(scope(peer="10.0.0.1"), 20_000_000) is None


class TestBudget:
    def test_without_one_nothing_is_refused_on_ones_own_machine(self, monkeypatch):
        for name in ("SPACE_ID", "SYSTEM", "GRADIO_SERVER_NAME", disk.BUDGET_VARIABLE):
            monkeypatch.delenv(name, raising=False)
        assert disk_budget() == float("inf")
        Disk(disk_budget()).need()
        monkeypatch.setenv("GRADIO_SERVER_NAME", "0.0.0.0")
        assert environment.is_public() and 0 < disk_budget() < float("inf")

    def test_it_is_read_as_memory_is(self, monkeypatch):
        monkeypatch.setenv(disk.BUDGET_VARIABLE, "6GB")
        assert disk_budget() == 6e9
        monkeypatch.setenv(disk.BUDGET_VARIABLE, "plenty")
        with pytest.raises(ValueError, match="TRANSACT_DISK_BUDGET is 'plenty'; give bytes above 0"):
            disk_budget()

    def test_one_visitor_has_a_quarter_and_the_next_one_too(self):
        registry = Registry(disk_bytes=400 * KILOBYTE)
        file(registry.training_folder("a") / "weights", kilobytes=120)
        with pytest.raises(DiskFull, match="all that one visitor may"):
            registry.training_folder("a")
        assert registry.training_folder("b").is_dir()

    def test_what_no_result_refers_to_makes_room(self):
        registry = Registry(disk_bytes=400 * KILOBYTE)
        first, second = (registry.training_folder("a") for _ in range(2))
        file(first / "weights", kilobytes=120)
        third = registry.training_folder("a", kept=[None, second])
        assert not first.exists() and second.exists() and third.exists()

    def test_old_downloads_of_others_make_room_and_then_there_is_none(self, served):
        exports = Exports(full := Disk(100 * KILOBYTE))
        old, fresh = (exports.history(owner, "x" * 40 * KILOBYTE) for owner in ("old", "fresh"))
        os.utime(old.parents[1], (0, 0))
        file(served / "digest" / "story.txt", kilobytes=40)
        assert full.used_bytes > full.budget
        exports.history("me", "number\n")
        assert not old.exists() and fresh.exists()
        file(served / "other" / "story.txt", kilobytes=40)
        with pytest.raises(DiskFull, match="Visitors' files fill all of .*TRANSACT_DISK_BUDGET") as told:
            exports.history("another", "number\n")
        assert str(served) not in str(told.value) and fresh.exists()

    def test_a_link_counts_as_nothing(self, served, tmp_path):
        (served / "link").symlink_to(file(tmp_path / "large", kilobytes=100))
        assert size_of(served) < 8 * KILOBYTE and size_of(None) == size_of(tmp_path / "none") == 0

    def test_models_of_the_hub_have_what_is_left(self, monkeypatch, served):
        trimmed = []
        monkeypatch.setattr(ta, "trim_hub_cache", lambda at_most, keep: trimmed.append((at_most, keep)))
        file(served / "digest" / "story.txt", kilobytes=40)
        Disk(100 * KILOBYTE).make_room_for_model(20 * KILOBYTE, {"team/model"})
        Disk().make_room_for_model(20 * KILOBYTE, {"team/model"})
        assert trimmed == [(40 * KILOBYTE, {"team/model"})]
