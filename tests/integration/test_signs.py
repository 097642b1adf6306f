"""Signs that the command line and MONAI give a meaning of their own, in the names of files and folders."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from bundle_weights import small_weights
from command_line import SMALL, Ended, bundle
from test_repeated_runs import write_head

TRAINED = {"epochs": 1, "slices_per_epoch": 2, "batch_size": 2, "spatial_size": "[32,32]", "roi_size": "[32,32]"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with volumes in folders of odd names, and weights in one."""
    monkeypatch.chdir(tmp_path)
    for name in ("patient", "patient#2", "$x", "@x", "%x"):
        write_head(tmp_path / name / f"{name.strip('$@%')}.nii.gz")
    (tmp_path / "weights#1").mkdir()
    small_weights(tmp_path / "weights#1" / "model#1.pt")
    return tmp_path


def infer(**options: Any) -> Ended:
    return bundle(
        "inference", "inference.json", **{"checkpoint": "./weights#1/model#1.pt", "outputs": "mask", **SMALL, **options}
    )


def fails(ended: Ended, text: str) -> None:
    assert ended.status == 1
    assert text in ended.stderr
    assert "Traceback" not in ended.stderr + ended.stdout


class TestNumberSign:
    def test_number_sign_in_a_bare_path_is_refused_with_what_to_write(self, folder: Path) -> None:
        fails(infer(dataset_dir="patient#2", output_dir="./out"), "error: --dataset_dir: 'patient#2' would be read as")
        fails(infer(dataset_dir="patient", output_dir="out#1"), "Write ./out#1")
        assert not [*folder.glob("out*")]

    def test_number_sign_behind_a_dot_is_part_of_the_name(self, folder: Path) -> None:
        ended = infer(dataset_dir="./patient#2", output_dir="./out#1")
        assert ended.status == 0, ended.stderr
        assert [str(file.relative_to(folder)) for file in folder.rglob("*_mask.nii.gz")] == [
            os.path.join("out#1", "patient#2", "patient#2_mask.nii.gz")
        ]

    def test_number_sign_is_part_of_the_name_in_training_and_evaluation_too(self, folder: Path, phantom: Path) -> None:
        data, split = folder / "data#1", folder / "split#1.json"
        data.symlink_to(phantom, target_is_directory=True)
        split.write_bytes((phantom / "split.json").read_bytes())
        own = {"dataset_dir": data, "split": split, "network_def#channels": "[2,4]", "amp": "false"}
        for _ in range(2):  # the second goes on with what the first has done
            ended = bundle("training", "train.json", output_dir="./run#1", **own, **TRAINED)
            assert ended.status == 0, ended.stderr
        assert (folder / "run#1" / "model_final.pt").is_file()
        options = {**own, "checkpoint": "./run#1/model.pt", "output_dir": "./run#1/test#1", "report": "false"}
        ended = bundle("evaluation", "train.json", "evaluate.json", **options)
        assert ended.status == 0, ended.stderr
        assert json.loads((folder / "run#1" / "test#1" / "metrics.json").read_text())["dataset_dir"] == str(data)


class TestOtherSigns:
    @pytest.mark.parametrize("name", ["$x", "@x"])
    def test_other_signs_at_the_beginning_are_explained(self, folder: Path, name: str) -> None:
        fails(infer(dataset_dir=name, output_dir="./out"), f"error: --dataset_dir: '{name}' begins with {name[0]}")
        fails(infer(dataset_dir="./patient", output_dir=name), f"Write ./{name} for a file or folder of that name")

    @pytest.mark.parametrize("name", ["$x", "@x", "%x"])
    def test_other_signs_behind_a_dot_are_part_of_the_name(self, folder: Path, name: str) -> None:
        ended = infer(dataset_dir=f"./{name}", output_dir="./out")
        assert ended.status == 0, ended.stderr
        assert np.asarray(nibabel.load(folder / "out" / "x" / "x_mask.nii.gz").dataobj).shape == (32, 32, 3)


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU")
def test_a_gpu_that_is_not_there_is_told(folder: Path) -> None:
    fails(infer(dataset_dir="./patient", device="cuda"), "error: --device: 'cuda', but PyTorch sees no GPU.")
