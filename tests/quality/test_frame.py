"""Coordinates of the head-aligned box, in any pose and grid."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from mri_seg.quality.frame import HeadFrame, head_frame

SIZE = 128


def head(angle: float = 0.0, shift: tuple[int, int] = (0, 0)) -> tuple[np.ndarray, np.ndarray]:
    """A brain of 90 x 70 pixels in 20 slices, with a bright spot on either side, turned and shifted; and its mask."""
    rows, columns = np.mgrid[:SIZE, :SIZE] - SIZE / 2
    brain = (rows / 45) ** 2 + (columns / 35) ** 2 < 1
    picture = brain * 1.0
    for side in (-1, 1):
        picture += (np.hypot(rows + 20, columns - side * 15) < 5) * 1.0

    def moved(one: np.ndarray) -> np.ndarray:
        return ndimage.shift(ndimage.rotate(one, angle, reshape=False, order=1), shift, order=1)

    volume, mask = np.zeros((SIZE, SIZE, 24)), np.zeros((SIZE, SIZE, 24), dtype=bool)
    volume[..., 2:22], mask[..., 2:22] = moved(picture)[..., None], moved(brain * 1.0)[..., None] > 0.5
    return volume, mask


def frame_of(volume: np.ndarray, mask: np.ndarray, affine: np.ndarray) -> HeadFrame:
    frame = head_frame(volume, mask, affine)
    assert frame is not None
    return frame


class TestBox:
    def test_edges_of_the_brain_are_the_edges_of_the_box(self) -> None:
        volume, mask = head()
        frame = frame_of(volume, mask, np.eye(4))
        places = [[64, 64, 2], [64, 64, 21], [19, 64, 11], [109, 64, 11], [64, 29, 11], [64, 99, 11]]
        found = frame.coordinates(np.array(places), np.eye(4))
        np.testing.assert_allclose(found[:2, 2], [0, 1], atol=1e-6)
        np.testing.assert_allclose(found[2:4, 1], [0, 1], atol=0.05)
        np.testing.assert_allclose(found[4:, 0], [-1, 1], atol=0.1)

    @pytest.mark.parametrize(("angle", "shift"), [(8, (0, 6)), (-12, (5, -4))])
    def test_turned_and_shifted_head_has_the_same_coordinates(self, angle: float, shift: tuple[int, int]) -> None:
        straight = frame_of(*head(), np.eye(4)).coordinates(np.array([[50.0, 80.0, 11.0]]), np.eye(4))
        turn = np.deg2rad(angle)
        middle = (SIZE - 1) / 2
        offset = np.array([50.0, 80.0]) - middle
        # ndimage.rotate turns the picture from columns towards lower rows
        place = middle + np.array(
            [
                np.cos(turn) * offset[0] - np.sin(turn) * offset[1],
                np.sin(turn) * offset[0] + np.cos(turn) * offset[1],
            ]
        )
        found = frame_of(*head(angle, shift), np.eye(4)).coordinates(np.array([[*(place + shift), 11.0]]), np.eye(4))
        np.testing.assert_allclose(found, straight, atol=0.06)

    def test_grid_of_the_input_may_be_another(self) -> None:
        volume, mask = head()
        affine = np.array([[0, -0.9, 0, 60], [-0.9, 0, 0, 50], [0, 0, 5.0, -40], [0, 0, 0, 1]])
        frame = frame_of(volume, mask, affine)
        finer = affine @ np.diag([0.5, 0.5, 1, 1])
        here = frame.coordinates(np.array([[40, 80, 5]]), affine)
        np.testing.assert_allclose(frame.coordinates(np.array([[80, 160, 5]]), finer), here)

    def test_distance_from_the_midline_is_in_mm_to_the_left(self) -> None:
        volume, mask = head()
        affine = np.array([[0, -0.9, 0, 60], [-0.9, 0, 0, 50], [0, 0, 5.0, -40], [0, 0, 0, 1]])
        plane = frame_of(volume, mask, affine).midline
        points = affine @ np.array([[64, 84, 5, 1], [64, 44, 5, 1]]).T
        np.testing.assert_allclose(plane @ points, [18, -18], atol=1)

    def test_text_gives_the_frame_back(self) -> None:
        frame = frame_of(*head(3), np.eye(4))
        again = HeadFrame.from_text(frame.to_text())
        assert again is not None
        np.testing.assert_array_equal(again.matrix, frame.matrix)
        assert again.half_width == frame.half_width
        assert HeadFrame.from_text("") is None

    def test_volume_without_a_brain_has_no_frame(self) -> None:
        assert head_frame(np.zeros((40, 40, 4)), np.zeros((40, 40, 4), dtype=bool), np.eye(4)) is None
