"""Diameters of shapes whose answers are known."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from drawn_masks import ellipse, ragged

from mri_seg.measurements.diameters import Diameters, diameters
from mri_seg.measurements.lesions import label_lesions


def drawn(picture: str) -> np.ndarray:
    return np.array([[letter == "#" for letter in row] for row in picture.split()])


def along(mask: np.ndarray, ends: tuple, number: int = 400) -> np.ndarray:
    """Pixels met on the way between two ends, a hair off lines of the grid."""
    share = np.linspace(0, 1, number)[1:-1, None]
    points = (1 - share) * ends[0] + share * np.array(ends[1])
    met = np.zeros(len(points), dtype=bool)
    padded = np.pad(mask, 1)
    for nudge in itertools.product((-1e-6, 1e-6), repeat=2):  # the border belongs to the lesion
        rows, columns = np.rint(points + nudge).astype(int).T + 1
        met |= padded[rows, columns]
    return met


class TestDiametersOfShapes:
    def test_a_pixel_is_one_pixel_long_and_wide(self) -> None:
        found = diameters(np.ones((1, 1)))
        assert (found.longest, found.perpendicular) == (1, 1)

    @pytest.mark.parametrize("length", [2, 3, 7, 30])
    def test_a_row_of_pixels_is_as_long_as_it_has_pixels(self, length: int) -> None:
        for bar in (np.ones((1, length)), np.ones((length, 1))):
            found = diameters(np.pad(bar, 3))
            assert found.longest == pytest.approx(length)
            assert found.perpendicular == pytest.approx(1)

    @pytest.mark.parametrize("radius", [3, 5, 10, 20, 30])
    def test_a_disc_is_two_radii_within_a_pixel(self, radius: int) -> None:
        random = np.random.default_rng(radius)
        for _ in range(10):
            found = diameters(ellipse(radius, radius, centre=tuple(45 + random.random(2))))
            assert 2 * radius - 0.5 < found.longest < 2 * radius + 1
            assert 2 * radius - 1 < found.perpendicular < 2 * radius + 1

    @pytest.mark.parametrize("angle", range(0, 180, 15))
    @pytest.mark.parametrize(("long", "wide"), [(30, 20), (25, 10), (12, 4)])
    def test_an_ellipse_at_any_angle_is_two_half_axes_within_a_pixel(self, long: int, wide: int, angle: int) -> None:
        found = diameters(ellipse(long, wide, angle, centre=(45.3, 44.6)))
        assert found.longest == pytest.approx(2 * long, abs=1)
        assert found.perpendicular == pytest.approx(2 * wide, abs=1)

    def test_ellipses_are_measured_without_much_bias(self) -> None:
        random = np.random.default_rng(1)
        errors = []
        for _ in range(60):
            found = diameters(ellipse(20, 10, random.uniform(0, 180), centre=tuple(45 + random.random(2))))
            errors.append((found.longest - 40, found.perpendicular - 20))
        assert (np.abs(np.mean(errors, axis=0)) < 0.5).all()

    def test_a_rectangle_is_as_long_as_its_diagonal(self) -> None:
        found = diameters(np.pad(np.ones((30, 20)), 2))
        assert found.longest == pytest.approx(math.hypot(30, 20), abs=1)
        assert found.perpendicular == pytest.approx(20 / (30 / math.hypot(30, 20)), abs=1)

    def test_an_l_is_not_measured_across_the_outside(self) -> None:
        arms = np.zeros((41, 41), dtype=bool)
        arms[:, :4] = arms[-4:] = True
        found = diameters(arms)
        # from the tip of an arm past the inner corner: less than the 58 pixels between the two tips
        assert 41 <= found.longest < 43
        assert along(arms, found.longest_ends).all()

    def test_a_ring_is_not_measured_across_its_hole(self) -> None:
        ring = ellipse(30, 30) & ~ellipse(20, 20)
        found = diameters(ring)
        assert found.longest == pytest.approx(2 * math.sqrt(30**2 - 20**2), abs=1.5)
        assert along(ring, found.longest_ends).all()
        assert along(ring, found.perpendicular_ends).all()

    def test_the_perpendicular_does_not_cross_a_slit(self) -> None:
        whole = ellipse(10, 30)
        slit = whole.copy()
        slit[45, 18:73] = False
        assert diameters(whole).perpendicular == pytest.approx(20, abs=1)
        assert diameters(slit).perpendicular < 12

    def test_parts_that_touch_at_a_corner_are_apart(self) -> None:
        found = diameters(drawn("##.. ##.. ..#. ...#"))
        assert found.longest == pytest.approx(diameters(np.ones((2, 2))).longest)

    def test_the_part_with_the_largest_product_counts(self) -> None:
        parts = np.zeros((30, 30), dtype=bool)
        parts[0, :20] = True
        parts[5:15, 5:15] = True
        found = diameters(parts)
        assert found.longest < 15
        assert all(4 < end[0] < 15 for end in found.longest_ends + found.perpendicular_ends)

    def test_pixels_need_not_be_square(self) -> None:
        found = diameters(ellipse(10, 30), spacing=(3.0, 0.5))
        assert found.longest == pytest.approx(60, abs=3)
        assert found.perpendicular == pytest.approx(30, abs=1.5)
        (top, _), (bottom, _) = found.longest_ends
        assert abs(bottom - top) == pytest.approx(20, abs=1)

    def test_shape_ragged_beyond_measure_is_measured_still(self) -> None:
        noise = ragged(0, (150, 150), 0.7)
        found = diameters(noise)
        assert found.longest > 20
        assert along(noise, found.longest_ends).all()

    @pytest.mark.parametrize("lesion", [np.zeros((4, 4)), np.ones((2, 2, 2)), np.ones(3)])
    def test_nothing_and_other_than_slices_are_refused(self, lesion: np.ndarray) -> None:
        with pytest.raises(ValueError, match=r"must be a slice \(H, W\) with at least one pixel, got shape"):
            diameters(lesion)

    @pytest.mark.parametrize("spacing", [(1,), (1, 1, 1), (1, 0), (-1, 1), (1, math.nan)])
    def test_spacing_that_is_none_is_refused(self, spacing: tuple[float, ...]) -> None:
        with pytest.raises(ValueError, match="two positive numbers"):
            diameters(np.ones((2, 2)), spacing)


class TestDiametersOfAnything:
    @pytest.fixture(params=range(12))
    def lesion(self, request: pytest.FixtureRequest) -> np.ndarray:
        return ragged(request.param, (9, 11), (0.45, 0.6, 0.75, 0.9)[request.param % 4])

    @pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.7, 1.9)])
    def test_diameters_lie_inside_at_a_right_angle_with_the_lengths_told(
        self, lesion: np.ndarray, spacing: tuple[float, float]
    ) -> None:
        found = diameters(lesion, spacing)
        runs = [np.subtract(*ends) * spacing for ends in (found.longest_ends, found.perpendicular_ends)]
        assert np.hypot(*np.transpose(runs)) == pytest.approx([found.longest, found.perpendicular])
        assert np.dot(*runs) == pytest.approx(0, abs=1e-9)
        assert found.perpendicular <= found.longest
        for ends in (found.longest_ends, found.perpendicular_ends):
            assert along(lesion, ends).all()

    def test_no_segment_inside_is_longer(self, lesion: np.ndarray) -> None:
        labels = label_lesions(lesion[..., None])[0][..., 0]
        for number in range(1, min(labels.max(), 3) + 1):
            part = self.first_part(labels == number)
            found, expected = diameters(part), self.longest_by_trying_all(part)
            assert found.longest >= expected * (1 - 1e-9)
            assert expected == pytest.approx(found.longest) or expected == pytest.approx(found.perpendicular)

    @staticmethod
    def first_part(mask: np.ndarray) -> np.ndarray:
        """What can be reached from the first pixel over edges."""
        part, grown = np.zeros_like(mask), np.zeros_like(mask)
        grown.flat[np.flatnonzero(mask)[0]] = True
        while (grown != part).any():
            part = grown
            padded = np.pad(part, 1)
            grown = mask & (part | padded[2:, 1:-1] | padded[:-2, 1:-1] | padded[1:-1, 2:] | padded[1:-1, :-2])
        return part

    @staticmethod
    def longest_by_trying_all(part: np.ndarray) -> float:
        padded = np.pad(part, 1)
        points = [
            *(np.argwhere(padded[1:] != padded[:-1]) - (0.5, 1)),
            *(np.argwhere(padded[:, 1:] != padded[:, :-1]) - (1, 0.5)),
        ]
        pairs = sorted(itertools.combinations(points, 2), key=lambda pair: -math.dist(*pair))
        return next(math.dist(*pair) for pair in pairs if along(part, pair, 150).all())


def test_diameters_know_their_product() -> None:
    assert Diameters(3.0, 2.0, ((0, 0), (0, 3)), ((0, 0), (2, 0))).product == 6
