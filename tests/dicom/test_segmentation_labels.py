"""DICOM segmentations of other programs as labels: in the grid of the series, by position."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dicom_series import AXIAL, OBLIQUE, ramp, write_series

from mri_seg.dicom.geometry import order_frames
from mri_seg.dicom.seg import write_segmentation
from mri_seg.dicom.segmentation_labels import is_segmentation, read_segmentation_label
from mri_seg.io.load import LoadVolumed
from mri_seg.transforms.labels import LabelToImageGridd

SHAPE = (8, 6, 4)


def mask(*slices: int) -> np.ndarray:
    voxels = np.zeros(SHAPE, bool)
    voxels[2:5, 1:4, list(slices)] = True
    return voxels


@pytest.mark.parametrize("affine", [AXIAL, OBLIQUE], ids=["axial", "oblique"])
@pytest.mark.parametrize("slices", [(0, 1), (2,), (0, 3)], ids=["two", "one", "with a gap"])
def test_segmentation_is_read_in_the_grid_of_its_series_though_it_lacks_slices(
    affine: np.ndarray, slices: tuple[int, ...], tmp_path: Path
) -> None:
    files = write_series(tmp_path / "series", ramp(*SHAPE), affine)
    grid = order_frames(files)
    write_segmentation(tmp_path / "seg.dcm", mask(*slices), files, algorithm_version="1")
    label = read_segmentation_label(tmp_path / "seg.dcm", affine=grid.affine, shape=grid.shape)
    np.testing.assert_array_equal(label.values, mask(*slices))
    np.testing.assert_array_equal(label.affine, grid.affine)
    assert label.overlapping == 0


def test_segmentation_of_another_series_of_the_same_space_is_brought_to_the_image(tmp_path: Path) -> None:
    """Twice as many slices, half as far apart."""
    image = write_series(tmp_path / "flair", ramp(*SHAPE))
    finer = AXIAL.copy()
    finer[2, 2] /= 2
    files = write_series(tmp_path / "t1", ramp(8, 6, 8), finer, series_number=4)
    write_segmentation(tmp_path / "seg.dcm", np.repeat(mask(1, 2), 2, axis=2), files, algorithm_version="1")
    case = {"case": "P", "image": [str(file) for file in image], "label": [str(tmp_path / "seg.dcm")]}
    found = LabelToImageGridd("label")(LoadVolumed(["image", "label"])(case))
    np.testing.assert_array_equal(found["label"][0].numpy() > 0, mask(1, 2))


def test_only_segmentations_count_as_such(tmp_path: Path) -> None:
    files = write_series(tmp_path / "series", ramp(*SHAPE))
    write_segmentation(tmp_path / "seg.dcm", mask(1), files, algorithm_version="1")
    (tmp_path / "text.dcm").write_text("text")
    assert is_segmentation(tmp_path / "seg.dcm")
    assert not is_segmentation(files[0])
    assert not is_segmentation(tmp_path / "text.dcm")
    assert not is_segmentation(tmp_path)


def test_other_files_are_refused_with_their_name(tmp_path: Path) -> None:
    files = write_series(tmp_path / "series", ramp(*SHAPE))
    with pytest.raises(ValueError, match=r"IM\d+\.dcm: cannot be read as a DICOM segmentation"):
        read_segmentation_label(files[0])
