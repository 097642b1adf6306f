"""Workflows that begin, fail and end in a host's process."""

from __future__ import annotations

import json
import logging
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow
from monai.utils import get_seed, set_determinism

CONFIG = {
    "imports": ["$import monai", "$import mri_seg", "$import mri_seg.config.workflow", "$import torch"],
    "bundle_root": "bundle",
    "debug": False,
    "dataset_dir": "data",
    "device": "cpu",
    "ensemble": [],
    "threshold": 0.5,
    "idle": 3,
    "parts": {"dataset_dir": "@dataset_dir", "files": "@ensemble", "threshold": "@threshold", "device": "@device"},
    "initialize": [
        "$mri_seg.begin_workflow(@debug)",
        "$mri_seg.config.workflow.check_options()",
        "$monai.utils.set_determinism(seed=7)",
    ],
    "work": ["$@parts"],
    "run": "%work",
    "failing": ["$torch.zeros(2).dot(torch.zeros(3))"],
    "finalize": ["$mri_seg.end_workflow()"],
}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A small config that begins and ends as those of the bundle."""
    file = tmp_path / "configs" / "small.json"
    file.parent.mkdir()
    file.write_text(json.dumps(CONFIG))
    return file


def workflow(config: Path, **options: Any) -> ConfigWorkflow:
    return ConfigWorkflow(str(config), logging_file=False, **options)


def initialized(config: Path, **options: Any) -> ConfigWorkflow:
    made = workflow(config, **options)
    made.initialize()
    return made


def process() -> list[Any]:
    """What a host would miss if a workflow changed it, as text."""
    root = logging.getLogger()
    parts = [sys.excepthook, random.getstate(), np.random.get_state(), torch.get_rng_state().tolist(), get_seed()]
    parts += [torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark, torch.get_num_threads()]
    parts += [root.level, root.handlers, root.filters, [handler.filters for handler in root.handlers]]
    return [repr(part) for part in parts]


class TestProcess:
    def test_process_is_as_it_was_when_a_workflow_has_ended(self, config: Path) -> None:
        before = process()
        made = initialized(config)
        assert torch.backends.cudnn.deterministic
        made.run()
        torch.rand(3)
        made.finalize()
        assert process() == before

    def test_process_is_as_it_was_after_an_error_of_the_run(self, config: Path) -> None:
        before = process()
        made = initialized(config, run_id="failing")
        with pytest.raises(RuntimeError, match=r"^inconsistent tensor size"):
            made.run()
        assert process() == before

    @pytest.mark.parametrize("options", [{"tresholdd": 1}, {"threshold": 2}, {"threshold": "$1 / 0"}])
    def test_process_is_as_it_was_after_an_error_of_an_option(self, config: Path, options: dict[str, Any]) -> None:
        before = process()
        with pytest.raises((ValueError, ZeroDivisionError)):
            initialized(config, **options).run()
        assert process() == before

    def test_process_keeps_the_seed_of_a_host_that_has_one(self, config: Path) -> None:
        set_determinism(11)
        try:
            initialized(config).finalize()
            assert get_seed() == 11
            assert torch.backends.cudnn.deterministic
        finally:
            set_determinism(None)

    def test_process_is_as_it_was_beside_a_workflow_that_nobody_ends(self, config: Path) -> None:
        forgotten = initialized(config)
        before = process()
        initialized(config).finalize()
        assert process() == before
        forgotten.finalize()

    @pytest.mark.parametrize("order", [(0, 1), (1, 0)])
    def test_process_is_as_it_was_after_workflows_that_overlap(self, config: Path, order: tuple[int, int]) -> None:
        before = process()
        both = [initialized(config), initialized(config)]
        both[0].initialize()  # as MONAI's federated client does
        both[order[0]].finalize()
        assert torch.backends.cudnn.deterministic  # the other one goes on
        both[order[1]].finalize()
        assert process() == before

    def test_process_draws_as_seeded_while_the_workflow_runs(self, config: Path) -> None:
        drawn = []
        for seed in (1, 2):
            torch.manual_seed(seed)
            made = initialized(config)
            drawn.append(torch.rand(1).item())
            made.finalize()
        assert drawn[0] == drawn[1]


class TestErrors:
    def test_errors_of_a_misspelt_option_name_the_nearest_in_the_exception_itself(self, config: Path) -> None:
        with pytest.raises(ValueError, match=r"^--tresholdd: no such option\. Did you mean --threshold\?"):
            initialized(config, tresholdd=0.3)

    def test_errors_of_a_value_do_too(self, config: Path) -> None:
        with pytest.raises(ValueError, match=r"^--threshold: 'high', expected a number, 0 to 1"):
            initialized(config, threshold="high")

    def test_errors_of_a_value_that_an_expression_gives_do_too(self, config: Path) -> None:
        made = initialized(config, threshold="$1 + 1")
        with pytest.raises(ValueError, match=r"^--threshold: 2, expected a number, 0 to 1"):
            made.run()

    def test_keep_their_type_and_where_they_were_raised(self, config: Path) -> None:
        with pytest.raises(ZeroDivisionError) as error:
            initialized(config, threshold="$1 / 0").run()
        assert error.traceback[-1].frame.code.name == "<module>"

    def test_errors_of_a_component_come_out_as_they_were_raised(self, config: Path) -> None:
        date = {"_target_": "datetime.date", "year": 0, "month": 1, "day": "@day"}
        with pytest.raises(ValueError, match=r"^year 0 is out of range"):
            initialized(config, work=["$@date", "$@parts"], date=date, day=1).run()


class TestOptions:
    def test_options_that_nothing_refers_to_may_begin_with_an_underscore(self, config: Path) -> None:
        initialized(config, _note="of the host").finalize()

    def test_options_of_the_bundles_own_files_may_lie_idle(self, config: Path) -> None:
        initialized(config, threshold_of_another=1, parts="@threshold_of_another", idle=3).finalize()
        with pytest.raises(ValueError, match=r"^--idle: no such option"):
            initialized(config, idle=4)

    @pytest.mark.parametrize("options", [{"smallest_lesion": 800}, {"parts": ["@smallest_lesion"]}, {"no_such": 1}])
    def test_options_of_before_are_named_first(self, config: Path, options: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match=r"^`smallest_lesion` is now `min_lesion_volume`\.$"):
            initialized(config, **{"tresholdd": 1, "device": "none", "smallest_lesion": 0, **options})

    def test_options_of_before_are_refused_in_an_old_overlay(self, config: Path) -> None:
        overlay = config.with_name("own.json")
        overlay.write_text(json.dumps({"parts": {"cut": "@warmup_share"}, "largest_volume": 7}))
        made = ConfigWorkflow([str(config), str(overlay)], logging_file=False)
        with pytest.raises(ValueError, match=r"^`largest_volume` is now `max_voxels`; `warmup_share` is now `warmup_f"):
            made.initialize()

    def test_options_are_checked_before_anything_is_resolved(self, config: Path) -> None:
        with pytest.raises(ValueError, match=r"^--tresholdd"):
            initialized(config, tresholdd=1, dataset_dir="$1 / 0")

    def test_options_that_a_host_leaves_idle_afterwards_are_let_through(self, config: Path) -> None:
        made = initialized(config, idle=3, threshold=0.4)
        made.parser["parts"] = {}
        made.initialize()
        made.finalize()

    def test_options_lists_of_expressions_can_be_run_by_name(self, config: Path) -> None:
        made = initialized(config, mine=["$@threshold * 2"], run_id="mine")
        assert made.run() == [1.0]
        made.finalize()


class TestPaths:
    @pytest.mark.parametrize("path", ["./patient#2", "patient#2", "/in/a#1/b#2", "it's#1", "a@b#3", "C:\\new\\#1"])
    def test_paths_with_a_number_sign_arrive_as_they_are(self, config: Path, path: str) -> None:
        made = initialized(config, dataset_dir=path, ensemble=["b.pt", path])
        (parts,) = made.run()
        assert parts["dataset_dir"] == path
        assert list(parts["files"]) == ["b.pt", path]
        assert made.run() == [parts]
        made.finalize()

    def test_paths_that_hold_two_colons_stay(self, config: Path, tmp_path: Path) -> None:
        (tmp_path / "a::b").mkdir()
        made = initialized(config, dataset_dir=str(tmp_path / "a::b"))
        assert made.run()[0]["dataset_dir"] == str(tmp_path / "a::b")
        made.finalize()

    @pytest.mark.parametrize("sign", ["$", "@", "%"])
    def test_paths_behind_a_dot_may_begin_with_a_sign(self, config: Path, sign: str) -> None:
        made = initialized(config, dataset_dir=f"./{sign}x")
        assert made.run()[0]["dataset_dir"] == f"./{sign}x"
        made.finalize()

    @pytest.mark.parametrize("path", ["$HOME/data", "$patient", "$a b"])
    def test_paths_taken_for_an_expression_are_explained(self, config: Path, path: str) -> None:
        with pytest.raises(ValueError, match=r"--dataset_dir: .* begins with \$, .*Write \./\$"):
            initialized(config, dataset_dir=path).run()

    @pytest.mark.parametrize("path", ["@patient", "@other#2"])
    def test_paths_taken_for_a_reference_are_explained(self, config: Path, path: str) -> None:
        with pytest.raises(ValueError, match=r"--dataset_dir: '@\w+.*' begins with @, .*Write \./@"):
            initialized(config, dataset_dir=path)

    def test_paths_that_refer_to_no_path_are_refused(self, config: Path) -> None:
        with pytest.raises(ValueError, match=r"--dataset_dir: 0\.5, expected a path"):
            initialized(config, dataset_dir="@threshold")
