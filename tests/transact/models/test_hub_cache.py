"""The hub client's cache within bounds: whole repositories go, the one used longest ago first."""

import os
from pathlib import Path

import pytest

import transact as ta
from transact.models import hub_cache

SIZE = 64 * 1024


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(hub_cache.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def repository(cache: Path, name: str, used: float) -> Path:
    """A repository with one file, as the client lays it out, last used at that time; returns its snapshot."""
    folder = cache / name.replace("/", "--")
    blob, snapshot = folder / "blobs" / "ab12", folder / "snapshots" / "commit"
    for each in (blob.parent, snapshot):
        each.mkdir(parents=True)
    blob.write_bytes(os.urandom(SIZE))
    (snapshot / "model.safetensors").symlink_to("../../blobs/ab12")
    os.utime(folder, (used, used))
    return snapshot


@pytest.fixture
def three(cache) -> dict[str, Path]:
    names = ("models/team/old", "datasets/team/middle", "models/team/new")
    return {name: repository(cache, name, used) for used, name in enumerate(names, 1000)}


def left(three: dict[str, Path]) -> list[str]:
    return [name.rpartition("/")[2] for name, snapshot in three.items() if snapshot.exists()]


def test_the_oldest_go_until_the_rest_fits(three, cache):
    assert ta.trim_hub_cache(3 * SIZE) == 0 and left(three) == ["old", "middle", "new"]
    assert ta.trim_hub_cache(2 * SIZE) == SIZE and left(three) == ["middle", "new"]
    assert ta.trim_hub_cache(0) == 2 * SIZE and left(three) == []
    assert list(cache.iterdir()) == []


def test_what_is_used_is_no_longer_old(three):
    hub_cache.note_use(three["models/team/old"])
    hub_cache.note_use(three["models/team/old"] / "model.safetensors")
    ta.trim_hub_cache(SIZE)
    assert left(three) == ["old"]


def test_what_is_to_be_kept_stays_where_the_rest_does_not_suffice(three):
    assert ta.trim_hub_cache(0, keep=["team/old"]) == 2 * SIZE
    assert left(three) == ["old"]


def test_a_place_outside_the_cache_is_left_alone(three, tmp_path):
    os.utime(tmp_path, (5, 5))
    hub_cache.note_use(tmp_path / "model" / "config.json")
    assert tmp_path.stat().st_mtime == 5


def test_there_may_be_no_cache_yet(cache):
    assert ta.trim_hub_cache(0) == 0
