"""Inference into a folder that holds results already: what is kept, and what is refused."""

from __future__ import annotations

import csv
from pathlib import Path

import nibabel
import numpy as np
import pytest
from bundle_weights import small_weights
from command_line import SMALL, Ended, bundle


def write_weights(file: Path, seed: int) -> Path:
    """Weights of the small network, with about half of all voxels over the threshold."""
    return small_weights(file, seed=seed)


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two cases and two files of weights."""
    folder = tmp_path_factory.mktemp("given")
    (folder / "in").mkdir()
    for n, name in enumerate(("one", "two")):
        values = np.random.default_rng(n).random((32, 32, 2), dtype=np.float32)
        nibabel.save(nibabel.Nifti1Image(values, np.diag([1, 1, 5, 1])), folder / "in" / f"{name}.nii.gz")
        write_weights(folder / f"{name}.pt", n)
    return folder


def segment(given: Path, output_dir: Path, **options: object) -> Ended:
    options = {"checkpoint": given / "one.pt", "outputs": "mask,measurements", **options}
    return bundle(
        "inference", "inference.json", dataset_dir=given / "in", output_dir=output_dir, **{**SMALL, **options}
    )


@pytest.fixture
def output_dir(given: Path, tmp_path: Path) -> Path:
    ended = segment(given, tmp_path / "out")
    assert ended.status == 0, ended.stderr
    return tmp_path / "out"


def content(folder: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


class TestSecondRun:
    def test_second_run_with_the_same_settings_keeps_everything(self, given: Path, output_dir: Path) -> None:
        before = {file: text for file, text in content(output_dir).items() if file.stem != "summary"}
        ended = segment(given, output_dir, slices_per_batch=1)
        assert "Cases segmented: 0, kept as they were: 2, failed: 0." in ended.stdout
        assert {file: text for file, text in content(output_dir).items() if file.stem != "summary"} == before

    @pytest.mark.parametrize(
        ("options", "told"),
        [
            ({"checkpoint": "two.pt"}, "checkpoint_sha256 was"),
            ({"threshold": 0.4}, "threshold was 0.5, is 0.4"),
            ({"postprocessing#transforms#5": {"_target_": "Identityd", "keys": "pred"}}, "postprocessing was"),
        ],
    )
    def test_second_run_with_other_settings_is_refused_and_changes_nothing(
        self, given: Path, output_dir: Path, options: dict, told: str
    ) -> None:
        before = content(output_dir)
        if "checkpoint" in options:
            options = {"checkpoint": given / options["checkpoint"]}
        ended = segment(given, output_dir, **options)
        assert ended.status == 1
        assert told in ended.stderr
        assert "--overwrite true" in ended.stderr
        assert "Traceback" not in ended.stderr
        assert content(output_dir) == before

    def test_second_run_that_overwrites_leaves_one_kind_of_result(self, given: Path, output_dir: Path) -> None:
        ended = segment(given, output_dir, checkpoint=given / "two.pt", overwrite="true")
        assert ended.status == 0, ended.stderr
        for name in ("summary.csv", "measurements.csv"):
            with (output_dir / name).open(encoding="utf-8", newline="") as file:
                assert len({row["checkpoint_sha256"] for row in csv.DictReader(file)}) == 1
        assert segment(given, output_dir).status == 1


class TestInputsAndOutputsOfTheConfig:
    """What the command takes, the config takes."""

    def test_list_of_inputs_gives_a_case_for_each(self, given: Path, tmp_path: Path) -> None:
        options = {"checkpoint": given / "one.pt", "outputs": "mask", **SMALL}
        inputs = [str(given / "in" / name) for name in ("one.nii.gz", "two.nii.gz")]
        ended = bundle("inference", "inference.json", dataset_dir=inputs, output_dir=tmp_path / "out", **options)
        assert ended.status == 0, ended.stderr
        assert sorted(file.name for file in content(tmp_path)) == [
            *("one_mask.nii.gz", "one_provenance.json", "summary.csv", "summary.json"),
            *("two_mask.nii.gz", "two_provenance.json"),
        ]

    def test_file_as_output_gets_the_mask_of_one_case_and_is_not_overwritten(self, given: Path, tmp_path: Path) -> None:
        options = {"checkpoint": given / "one.pt", "dataset_dir": given / "in" / "one.nii.gz", **SMALL}
        options["output_dir"] = tmp_path / "mask.nii.gz"
        ended = bundle("inference", "inference.json", **options)
        assert ended.status == 0, ended.stderr
        assert [file.name for file in content(tmp_path)] == ["mask.nii.gz"]
        assert "is there already" in bundle("inference", "inference.json", **options).stderr

    def test_list_is_refused_for_training_data(self, given: Path) -> None:
        ended = bundle("training", "train.json", dataset_dir=[str(given), str(given / "in")])
        assert ended.status == 1
        assert "expected one folder: training data have a split." in ended.stderr
