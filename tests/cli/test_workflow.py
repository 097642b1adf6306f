"""Segmenting, evaluating and checking by the command, with a small network."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
from bundle_weights import small_weights
from commands import SMALL, Ended, command
from lgg_folders import write_patient
from monai.handlers import StatsHandler

from mri_seg.cli.log import plain_lines
from mri_seg.utils.bundle_folder import bundle_folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_weights(tmp_path_factory.mktemp("weights") / "small.pt")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder where the user stands, with cases in folders with unusual names."""
    monkeypatch.chdir(tmp_path)
    for n, name in enumerate(("one/flair.nii.gz", "two#2/flair.nii.gz", "$three.nii")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        values = np.random.default_rng(n).random((32, 32, 2), dtype=np.float32)
        nibabel.save(nibabel.Nifti1Image(values, np.diag([1, 1, 5, 1])), tmp_path / name)
    (tmp_path / "one" / "notes.txt").write_text("old")
    return tmp_path


def holds_flags_alone(stderr: str) -> bool:
    """Whether nothing but flags of the case ``flair`` is in it, which is noise and no head."""
    return all(line.startswith("warning: flair: ") for line in stderr.splitlines())


def segment(weights: Path, *words: object) -> Ended:
    return command("segment", *words, "--checkpoint", weights, "--outputs", "mask", *SMALL)


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


class TestSegment:
    def test_several_inputs_become_cases_with_names_of_their_own(self, here: Path, weights: Path) -> None:
        ended = segment(weights, "one", "two#2/flair.nii.gz", "$three.nii", "out")
        assert ended.status == 0, ended.stderr
        cases = json.loads((here / "out" / "summary.json").read_text())["cases"]
        assert [case["case"] for case in cases] == ["$three", "one_flair", "two#2_flair"]
        assert ended.stdout.endswith("Results and summary.csv are in out\n")

    def test_last_line_names_the_page_to_open(self, here: Path, weights: Path) -> None:
        ended = command("segment", "one", "out", "--checkpoint", weights, *SMALL)
        assert ended.stdout.splitlines()[-1] == f"Open {Path('out', 'index.html')}"
        assert (here / "out" / "index.html").is_file()
        assert "Open" not in segment(weights, "one", "without_pages").stdout

    def test_one_file_gives_one_file_and_nothing_beside_it(self, here: Path, weights: Path) -> None:
        before = files(here)
        ended = command("segment", "one/flair.nii.gz", "made/mask.nii.gz", "--checkpoint", weights, *SMALL)
        assert ended.status == 0, ended.stderr
        assert files(here) == sorted([*before, "made/mask.nii.gz"])
        mask = nibabel.load(here / "made" / "mask.nii.gz")
        assert mask.shape == (32, 32, 2)
        assert set(np.unique(mask.dataobj)) <= {0, 1}
        assert ended.stdout.splitlines()[-1] == "The mask is in made/mask.nii.gz"

    def test_several_cases_for_one_file_are_refused(self, here: Path, weights: Path) -> None:
        ended = segment(weights, "one", "two#2", "mask.nii.gz")
        assert ended.status == 1
        assert "error: mask.nii.gz: names one file, but 2 cases were found (one_flair, two#2_flair)." in ended.stderr
        assert not (here / "mask.nii.gz").exists()

    def test_stderr_holds_flags_of_the_case_alone_and_stdout_has_no_banner(self, here: Path, weights: Path) -> None:
        ended = segment(weights, "one", "out", "--quality", "false")
        assert holds_flags_alone(ended.stderr)
        assert [line.split(":")[0] for line in ended.stdout.splitlines()] == [
            "one",
            f"Loaded the weights {weights}",
            "flair",
            "Cases segmented",
        ]

    def test_quiet_run_prints_nothing_but_warnings(self, here: Path, weights: Path) -> None:
        ended = segment(weights, "one", "out", "--quiet")
        assert (ended.status, ended.stdout) == (0, "")
        assert holds_flags_alone(ended.stderr)

    @pytest.mark.parametrize("output", ["one/notes.txt", "one/notes.txt/results", "one/notes.txt/mask.nii.gz"])
    def test_output_that_cannot_be_made_is_refused_before_a_case_is_segmented(
        self, here: Path, weights: Path, output: str
    ) -> None:
        ended = segment(weights, "two#2", output)
        assert (ended.status, ended.stdout) == (1, "")
        assert ended.stderr.startswith(f"error: --output_dir {output}: ")
        assert (here / "one" / "notes.txt").read_text() == "old"

    def test_failed_cases_are_told_and_count_in_the_status(self, here: Path, weights: Path) -> None:
        (here / "bad.nii.gz").write_bytes(b"no image")
        ended = segment(weights, "bad.nii.gz", "one", "out", "--quiet")
        assert ended.status == 1
        assert ended.stderr.startswith("error: bad failed: bad.nii.gz")
        assert (here / "out" / "flair" / "flair_mask.nii.gz").is_file()

    def test_fail_fast_stops_at_the_first_case_that_fails(self, here: Path, weights: Path) -> None:
        (here / "bad.nii.gz").write_bytes(b"no image")
        ended = segment(weights, "bad.nii.gz", "one", "two#2", "out", "--fail_fast")
        assert ended.status == 1
        rows = json.loads((here / "out" / "summary.json").read_text())["cases"]
        assert {row["status"] for row in rows} == {"failed"}
        assert sum("not reached, because another case failed" in row["error"] for row in rows) == 2

    def test_wrong_values_are_refused_with_the_message_of_bundle_run(self, here: Path, weights: Path) -> None:
        ended = segment(weights, "one", "out", "--threshold", "7")
        assert ended.status == 1
        assert ended.stderr.startswith("error: --threshold: 7, expected a number, 0 to 1.\n")
        assert not (here / "out").exists()

    def test_verbose_run_prints_the_lines_of_monai_too(self, here: Path, weights: Path) -> None:
        root = logging.getLogger()
        handlers, level = root.handlers[:], root.level
        try:
            ended = segment(weights, "one", "out", "--verbose")
        finally:
            root.handlers, root.level = handlers, level
        assert ended.status == 0, ended.stderr
        assert "ignite.engine.engine.SupervisedEvaluator - INFO - Engine run resuming" in ended.stdout


@pytest.mark.slow
class TestProcess:
    """In a process of its own, where libraries warn as they do for users."""

    def test_stderr_of_the_command_holds_flags_of_the_case_alone(self, here: Path, weights: Path) -> None:
        words = ["segment", "one", "mask.nii.gz", "--checkpoint", str(weights), *SMALL]
        ended = subprocess.run([sys.executable, "-m", "mri_seg", *words], capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr
        assert holds_flags_alone(ended.stderr)

    def test_stderr_of_bundle_run_has_the_notice_of_monai_alone(self, here: Path, weights: Path) -> None:
        words = ["run", "inference", "--bundle_root", str(bundle_folder()), "--checkpoint", str(weights), *SMALL]
        words += ["--config_file", str(bundle_folder() / "configs" / "inference.json")]
        words += ["--dataset_dir", "one", "--output_dir", "out"]
        ended = subprocess.run([sys.executable, "-m", "monai.bundle", *words], capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr
        (line,) = ended.stderr.splitlines()
        assert line.startswith("parsing config_file")


class TestDryRun:
    def test_dry_run_lists_cases_and_what_is_passed_over_and_writes_nothing(self, here: Path, weights: Path) -> None:
        before = files(here)
        ended = segment(weights, "one", "$three.nii", "out", "--dry_run")
        assert ended.status == 0, ended.stderr
        first, *lines = ended.stdout.splitlines()
        assert first == "2 cases found:"
        assert [line.split(":")[0].strip() for line in lines[:2]] == ["$three", "flair"]
        assert lines[2:] == ["Passed over:", "  1 .txt file (notes.txt)"]
        assert files(here) == before

    def test_dry_run_says_which_case_cannot_be_segmented(self, here: Path, weights: Path) -> None:
        for number in ("1", "01"):
            (here / "one" / f"slice_{number}.png").write_bytes(b"")
        ended = segment(weights, "one", "out", "--dry_run")
        assert ended.status == 1
        assert "    cannot be segmented: " in ended.stdout
        assert "has slice number 1" in ended.stdout

    def test_dry_run_checks_options_too(self, here: Path, weights: Path) -> None:
        assert "expected true or false" in segment(weights, "one", "out", "--dry_run", "--fill_holes", "9").stderr


class TestCheck:
    def test_training_data_are_checked_for_defects(self, tmp_path: Path) -> None:
        folder = write_patient(tmp_path)
        ended = command("check", tmp_path)
        assert (ended.status, ended.stdout.splitlines()[-1]) == (0, "no defects")
        (folder / f"{folder.name}_2_mask.tif").unlink()
        ended = command("check", tmp_path)
        assert ended.status == 1
        assert "its mask is missing" in ended.stdout

    def test_other_folders_are_listed_as_segment_would_find_them(self, here: Path) -> None:
        ended = command("check", here / "one")
        assert ended.status == 0, ended.stderr
        assert ended.stdout.startswith("1 case found:\n  flair: volume, 1 file, ")

    def test_folders_that_do_not_exist_are_an_error(self, tmp_path: Path) -> None:
        ended = command("check", tmp_path / "nowhere")
        assert ended.status == 1
        assert "no such folder or file" in ended.stderr


class TestLines:
    def test_log_of_libraries_is_left_out_but_for_warnings(self, capsys: pytest.CaptureFixture[str]) -> None:
        with plain_lines():
            logging.getLogger("ignite.engine").info("Engine run resuming")
            logging.getLogger("ignite.engine").warning("look")
            logging.getLogger("mri_seg.x").info("done")
        assert capsys.readouterr() == ("done\n", "warning: look\n")

    def test_figures_of_an_epoch_are_lines_too(self, capsys: pytest.CaptureFixture[str]) -> None:
        with plain_lines():
            StatsHandler().logger.info("Epoch[1] Metrics -- patient_dice: 0.9")
        assert capsys.readouterr() == ("Epoch[1] Metrics -- patient_dice: 0.9\n", "")

    def test_log_is_as_it_was_afterwards(self) -> None:
        root = logging.getLogger()
        before = root.handlers, root.level
        with plain_lines(quiet=True):
            assert root.handlers != before[0]
        assert (root.handlers, root.level) == before
