"""What an evaluation keeps of its cases."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import DataLoader, Dataset, MetaTensor
from monai.engines import SupervisedEvaluator
from monai.transforms import AsDiscreted, Compose, CopyItemsd

from mri_seg.report import CaseArchive, load_case

BUNDLE = Path(__file__).parents[2] / "bundle"


def volume(values: np.ndarray) -> MetaTensor:
    """A volume read from a file that is no longer there, rows to anterior."""
    affine = torch.diag(torch.tensor([-1.0, 1, 2, 1]))
    return MetaTensor(torch.as_tensor(values[None]), affine=affine, meta={"case": "a", "files": "gone.nii"})


def evaluate(folder: Path, *, flair: bool = True) -> np.ndarray:
    """Evaluate a network that adds nothing; gives the volume that was read."""
    values = np.random.default_rng(0).integers(0, 300, (6, 5, 4)).astype(np.float32)
    case = {"image": volume(values / 300), "label": volume((values > 200).astype(np.float32))}
    if flair:
        case["flair"] = volume(values)
    handler = CaseArchive(folder, dataset=[case], transform=Compose([]))
    SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset([case]), batch_size=1),
        network=torch.nn.Identity(),
        postprocessing=Compose([CopyItemsd("pred", names="probability"), AsDiscreted("pred", threshold=0.5)]),
        val_handlers=[handler],
    ).run()
    return values


class TestCaseArchive:
    def test_keeps_the_volume_as_it_was_read_without_reading_it_again(self, tmp_path: Path) -> None:
        values = evaluate(tmp_path)
        case = load_case(tmp_path / "cases" / "a.npz")
        assert case.image.dtype == np.int16
        assert np.array_equal(np.sort(case.image, axis=None), np.sort(values, axis=None))
        assert np.array_equal(case.label, case.image > 200)
        assert np.array_equal(case.pred, case.image >= 150)

    def test_says_how_to_keep_the_volume_if_it_is_missing(self, tmp_path: Path) -> None:
        with pytest.raises(KeyError, match="copy 'image' to 'flair' by CopyItemsd"):
            evaluate(tmp_path, flair=False)

    @pytest.mark.parametrize(("report", "keeps"), [(False, False), ("false", False), (True, True), ("true", True)])
    def test_volumes_are_kept_only_for_a_report(self, report: bool | str, keeps: bool) -> None:
        parser = ConfigParser()
        parser.read_config(BUNDLE / "configs" / "train.json")
        assert parser["report"] is False  # training has no use for them
        parser["report"] = report
        transforms = parser.get_parsed_content("validate#preprocessing").transforms
        assert any(isinstance(transform, CopyItemsd) for transform in transforms) is keeps
