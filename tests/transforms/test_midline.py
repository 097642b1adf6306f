import numpy as np
import pytest
from scipy import ndimage

from mri_seg.transforms.midline import mirrored

SIZE = 128


def head(angle: float = 0.0, shift: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A head that is the same on both sides, turned and shifted; a bright spot on one side; and it on the other."""
    rows, columns = np.meshgrid(*[np.linspace(-1, 1, SIZE)] * 2, indexing="ij")
    slice_ = 50.0 * (np.hypot(rows / 0.85, columns / 0.65) < 1)
    for row, column in ((-0.3, 0.25), (0.2, 0.3), (0.5, 0.12)):
        for side in (-1, 1):
            slice_ += 40 * np.exp(-((rows - row) ** 2 + (columns - side * column) ** 2) / 0.01)
    spot = 100 * np.exp(-((rows - 0.1) ** 2 + (columns - 0.4) ** 2) / 0.01)

    def moved(picture: np.ndarray) -> np.ndarray:
        turned = ndimage.rotate(picture, angle, reshape=False, order=1)
        return np.stack([ndimage.shift(turned, (0, shift), order=1)] * 3, axis=-1)

    return moved(slice_), moved(spot), moved(spot[:, ::-1])


def inner(volume: np.ndarray) -> np.ndarray:
    return volume[16:-16, 16:-16].ravel()


class TestMirrored:
    @pytest.mark.parametrize(("angle", "shift"), [(0, 0), (7, 0), (-10, 5), (4, -9)])
    def test_head_that_is_the_same_on_both_sides_meets_itself(self, angle: float, shift: float) -> None:
        symmetric, *_ = head(angle, shift)
        assert np.corrcoef(inner(mirrored(symmetric)), inner(symmetric))[0, 1] > 0.96

    @pytest.mark.parametrize(("angle", "shift"), [(0, 0), (8, 4)])
    def test_spot_comes_to_lie_on_the_other_side(self, angle: float, shift: float) -> None:
        symmetric, spot, expected = head(angle, shift)
        excess = mirrored(symmetric + spot) - symmetric
        assert np.corrcoef(inner(excess), inner(expected))[0, 1] > 0.8

    def test_input_is_left_as_it_was(self) -> None:
        symmetric, *_ = head(5)
        before = symmetric.copy()
        mirrored(symmetric)[:] = 0
        assert (symmetric == before).all()

    @pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 1), (64, 64, 2)])
    def test_small_and_constant_volumes_keep_their_shape(self, shape: tuple[int, int, int]) -> None:
        assert mirrored(np.ones(shape)).shape == shape
