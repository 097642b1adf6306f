"""Which keys of configs a run uses."""

from __future__ import annotations

import json

import pytest

from mri_seg.config.used_keys import used_keys
from mri_seg.utils.bundle_folder import bundle_folder


def used(*names: str) -> set[str]:
    folder = bundle_folder() / "configs"
    return used_keys([json.loads((folder / name).read_text(encoding="utf-8")) for name in names])


class TestUsedKeys:
    def test_keys_that_nothing_in_the_run_refers_to_are_left_out(self) -> None:
        assert used_keys([{"a": "@b", "b": 1, "c": "@d", "d": 2, "run": ["$print(@a)"]}]) == {"a", "b", "run"}

    def test_only_the_part_that_is_referred_to_counts(self) -> None:
        config = {"loader": {"train": ["@crop"], "test": ["@grid", "@crop"]}, "crop": 1, "grid": 2, "run": "%play"}
        assert used_keys([{**config, "play": ["$@loader#train#0"]}]) == {"loader", "crop", "run", "play"}
        assert "grid" in used_keys([{**config, "play": ["$@loader::test"]}])

    def test_overlays_change_what_is_used(self) -> None:
        below = {"x": 1, "y": 2, "part": {"of": ["@x", "@x"]}, "run": "$@part"}
        assert used_keys([below, {"part#of#1": "@y"}]) == {"x", "y", "part", "run"}
        assert used_keys([below, {"part": "@y"}]) == {"y", "part", "run"}
        assert below["part"] == {"of": ["@x", "@x"]}

    def test_circles_end(self) -> None:
        assert used_keys([{"a": "@b", "b": "@a", "run": "@a"}]) == {"a", "b", "run"}

    def test_part_that_is_made_at_run_time_is_sought_around_its_place(self) -> None:
        assert used_keys([{"set": {"data": "@files"}, "files": [], "run": "$@set#data#first#second"}]) == {
            *("set", "files", "run")
        }

    @pytest.mark.parametrize("overlay", ["evaluate.json", "quantize.json"])
    def test_evaluation_and_quantization_use_the_data_and_not_the_schedule(self, overlay: str) -> None:
        found = used("train.json", overlay)
        assert {"dataset_dir", "split", "checkpoint", "pixdim", "spacing"} <= found
        assert not {"epochs", "learning_rate", "batch_size", "resume", "cache", "roi_size"} & found

    def test_training_and_inference_use_all_their_options(self) -> None:
        assert {"epochs", "resume", "cache", "strip_probability"} <= used("train.json")
        assert {"strict", "outputs", "quality", "slices_per_batch"} <= used("inference.json")
