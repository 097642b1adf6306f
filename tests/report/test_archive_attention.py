"""Attention that is kept with a case lies where the network looked, in the picture of the input."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.data import Dataset
from monai.transforms import Compose, CopyItemsd, DivisiblePadd, Orientationd

from mri_seg.io.load import LoadVolumed
from mri_seg.report.archive import CaseArchive, load_case


class LooksAtWhatIsBright(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(0.01))

    def forward_with_attention(self, image: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        return image, [image * self.weight, 1 - image * self.weight]


@pytest.mark.parametrize("axcodes", ["PLS", "RAS", "ILA", "SPR"])
def test_attention_lies_in_the_picture_where_the_network_looked(
    axcodes: str, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    voxels = np.zeros((20, 18, 12), np.uint8)  # none a multiple of 16, to which the network's input is padded
    voxels[3:8, 11:14, 2:4] = 100
    ornt = nib.orientations.axcodes2ornt(axcodes)
    affine = nib.orientations.inv_ornt_aff(ornt, voxels.shape)
    nib.save(nib.Nifti1Image(voxels, affine), tmp_path / "a.nii")
    transform = Compose(
        [
            LoadVolumed("image"),
            CopyItemsd("image", names="flair"),
            Orientationd("image", "PLS", labels=None),
            DivisiblePadd("image", k=(16, 16, 1)),
        ]
    )
    dataset = Dataset([{"case": "a", "image": str(tmp_path / "a.nii")}], transform)

    def step(engine: Engine, batch: list[dict]) -> list[dict]:
        bright = (batch[0]["flair"] > 50).float()
        return [{"pred": bright, "label": bright, "probability": bright}]

    engine = Engine(step)
    engine.network = LooksAtWhatIsBright()
    CaseArchive(tmp_path, dataset=dataset, transform=transform).attach(engine)
    engine.run([[dataset[0]]])

    case = load_case(tmp_path / "cases" / "a.npz")
    assert case.attention.shape == (2, *case.image.shape)
    np.testing.assert_array_equal(case.attention[0] > 127, case.image > 50)
    np.testing.assert_array_equal(case.label, case.image > 50)
    assert not [str(warning.message) for warning in recwarn if "affine" in str(warning.message)]
