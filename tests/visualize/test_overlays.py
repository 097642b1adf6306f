"""Outlines, sheets and panels, down to the pixel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mri_seg.utils.colors import PREDICTION, REFERENCE
from mri_seg.visualize.overlays import (
    attention_overlay,
    contact_sheet,
    contours,
    draw_contours,
    gray_levels,
    head_box,
    panel,
    save_png,
    slice_pictures,
    tile,
)

SIZE = 64


def has(picture: np.ndarray, color: tuple[int, int, int]) -> int:
    """Pixels of a colour."""
    return int((picture == np.array(color)).all(axis=-1).sum())


def sheet_of(volume: np.ndarray, pred: np.ndarray, label: np.ndarray | None = None) -> np.ndarray:
    return contact_sheet(slice_pictures(volume, pred, label), with_reference=label is not None)


@pytest.fixture
def volume() -> np.ndarray:
    """A head ``(64, 64, 6)``: a bright disc in dark air."""
    rows, columns = np.mgrid[:SIZE, :SIZE] - 32
    disc = (rows**2 + columns**2 < 24**2)[..., None]
    return np.repeat(disc * 100.0, 6, axis=-1) + np.random.default_rng(0).normal(0, 1, (SIZE, SIZE, 6))


def mask(rows: tuple[int, int] = (28, 38), slices: tuple[int, ...] = (1, 2, 3), depth: int = 6) -> np.ndarray:
    result = np.zeros((SIZE, SIZE, depth), dtype=bool)
    result[slice(*rows), 26:40, list(slices)] = True
    return result


class TestContours:
    def test_contours_are_one_pixel_wide_inside_the_mask(self) -> None:
        square = np.zeros((9, 9), dtype=bool)
        square[2:7, 2:7] = True
        expected = square.copy()
        expected[3:6, 3:6] = False
        np.testing.assert_array_equal(contours(square), expected)

    def test_contours_close_at_the_edge_of_the_slice(self) -> None:
        outline = contours(np.ones((5, 6)))
        assert not outline[1:-1, 1:-1].any()
        assert outline.sum() == 18

    def test_contours_show_thin_and_small_parts_whole(self) -> None:
        thin = np.zeros((6, 6), dtype=bool)
        thin[1, 1:5] = thin[4, 4] = True
        np.testing.assert_array_equal(contours(thin), thin)

    def test_contours_go_around_holes(self) -> None:
        ring = np.ones((9, 9), dtype=bool)
        ring[4, 4] = False
        outline = contours(ring)
        assert not outline[4, 4]
        assert outline[3, 4]
        assert outline[4, 5]

    def test_contours_take_many_slices_each_by_itself(self) -> None:
        slices = np.random.default_rng(0).random((3, 8, 8)) > 0.4
        np.testing.assert_array_equal(contours(slices), np.stack([contours(one) for one in slices]))

    @pytest.mark.parametrize("dtype", [bool, np.uint8, np.float32])
    def test_contours_take_any_type(self, dtype: type) -> None:
        assert contours(np.ones((4, 4), dtype=dtype)).dtype == bool

    def test_contours_of_nothing_are_nothing(self) -> None:
        assert not contours(np.zeros((4, 4))).any()


class TestGreyLevels:
    @pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
    def test_use_the_whole_range_whatever_the_unit(self, scale: float) -> None:
        levels = gray_levels(np.linspace(-1, 3, 1000).reshape(10, 10, 10) * scale)
        assert levels.dtype == np.uint8
        assert levels.shape == (10, 10, 10)
        assert (levels.min(), levels.max()) == (0, 255)
        assert levels.mean() == pytest.approx(127, abs=4)

    def test_grey_levels_are_not_spoiled_by_a_hot_pixel(self) -> None:
        volume = np.linspace(0, 1, 1000)
        hot = np.append(volume, 1e6)
        np.testing.assert_allclose(gray_levels(hot)[:-1].astype(int), gray_levels(volume).astype(int), atol=2)

    def test_keep_order(self) -> None:
        assert (np.diff(gray_levels(np.linspace(0, 1, 100)).astype(int)) >= 0).all()

    @pytest.mark.parametrize("value", [0, -4, 300])
    def test_gray_levels_of_a_constant_volume_are_constant(self, value: int) -> None:
        assert np.unique(gray_levels(np.full((4, 4, 2), value))).size == 1

    @pytest.mark.parametrize(("value", "level"), [(np.nan, 0), (-np.inf, 0), (np.inf, 255)])
    @pytest.mark.parametrize("number", [1, 500], ids=["one voxel", "half of the volume"])
    def test_grey_levels_are_not_spoiled_by_values_that_are_not_finite(
        self, value: float, level: int, number: int
    ) -> None:
        volume = np.random.default_rng(0).permutation(np.linspace(-1, 3, 1000))
        expected = gray_levels(volume[number:])
        volume[:number] = value
        levels = gray_levels(volume)
        assert np.unique(levels[:number]).tolist() == [level]
        np.testing.assert_array_equal(levels[number:], expected)

    def test_gray_levels_of_no_finite_value_are_black(self) -> None:
        assert not gray_levels(np.full((4, 4, 2), np.nan)).any()


class TestSlicePictures:
    def test_one_nan_changes_one_pixel_at_most(self) -> None:
        volume = np.random.default_rng(0).uniform(50, 200, (24, 20, 3)).astype(np.float32)
        expected = slice_pictures(volume, np.zeros(volume.shape))
        volume[12, 10, 1] = np.nan
        pictures = slice_pictures(volume, np.zeros(volume.shape))
        changed = [(abs(a.astype(int) - b) > 1).any(axis=-1).sum() for a, b in zip(pictures, expected)]
        assert changed == [0, 1, 0]


class TestDrawContours:
    def test_draws_outlines_and_leaves_the_rest_grey(self) -> None:
        gray = np.full((9, 9), 77, np.uint8)
        square = np.zeros((9, 9), dtype=bool)
        square[2:7, 2:7] = True
        picture = draw_contours(gray, [(square, REFERENCE)])
        assert has(picture, REFERENCE) == 16
        assert has(picture, (77, 77, 77)) == 81 - 16
        assert picture.dtype == np.uint8

    def test_draw_contours_draws_later_ones_on_top(self) -> None:
        square = np.ones((5, 5), dtype=bool)
        picture = draw_contours(np.zeros((5, 5), np.uint8), [(square, REFERENCE), (square, PREDICTION)])
        assert (has(picture, REFERENCE), has(picture, PREDICTION)) == (0, 16)

    def test_leaves_the_slice_alone(self) -> None:
        gray = np.zeros((5, 5), np.uint8)
        draw_contours(gray, [(np.ones((5, 5)), REFERENCE)])
        assert not gray.any()


class TestAttentionOverlay:
    def test_attention_overlay_goes_from_blue_to_yellow(self) -> None:
        coefficients = np.linspace(0.2, 0.6, 25).reshape(5, 5)
        picture = attention_overlay(np.zeros((5, 5), np.uint8), coefficients).astype(int)
        weakest, strongest = picture[0, 0], picture[-1, -1]
        assert weakest[2] > weakest[0]
        assert strongest[0] > strongest[2]
        assert (np.diff(picture[..., 0].ravel()) >= 0).all()

    def test_attention_overlay_takes_attention_that_is_the_same_everywhere(self) -> None:
        picture = attention_overlay(np.full((5, 5), 255, np.uint8), np.full((5, 5), 0.5))
        assert (picture.shape, picture.dtype) == ((5, 5, 3), np.uint8)
        assert len(np.unique(picture.reshape(-1, 3), axis=0)) == 1


class TestHeadBox:
    def test_holds_the_head_and_a_margin(self, volume: np.ndarray) -> None:
        rows, columns = head_box(gray_levels(volume), margin=2)
        assert (rows.start, columns.start) == (32 - 23 - 2, 32 - 23 - 2)
        assert (rows.stop, columns.stop) == (32 + 23 + 2 + 1, 32 + 23 + 2 + 1)

    def test_head_box_stays_in_the_slice(self) -> None:
        rows, columns = head_box(np.full((20, 30, 3), 255, np.uint8))
        assert np.zeros((20, 30))[rows, columns].shape == (20, 30)
        assert (rows.start, columns.start) == (0, 0)

    def test_head_box_is_the_whole_slice_where_there_is_no_head(self) -> None:
        rows, columns = head_box(np.zeros((20, 30, 3), np.uint8))
        assert np.zeros((20, 30))[rows, columns].shape == (20, 30)


class TestTile:
    def test_tile_lays_pictures_in_rows(self) -> None:
        pictures = [np.full((5, 6, 3), n + 1, np.uint8) for n in range(5)]
        sheet = tile(pictures, columns=3)
        assert sheet.shape == (2 * 5 + 4, 3 * 6 + 2 * 4, 3)
        assert [sheet[0, left, 0] for left in (0, 10, 20)] == [1, 2, 3]
        assert [sheet[9, left, 0] for left in (0, 10, 20)] == [4, 5, 0]
        assert not sheet[5:9].any()

    def test_tile_takes_one_picture(self) -> None:
        assert tile([np.ones((5, 6, 3), np.uint8)], columns=1).shape == (5, 6, 3)


class TestContactSheet:
    def test_contact_sheet_shows_every_slice_with_both_outlines(self, volume: np.ndarray) -> None:
        sheet = sheet_of(volume, mask((29, 39)), mask())
        assert sheet.dtype == np.uint8
        assert sheet.shape[2] == 3
        rows, columns = head_box(gray_levels(volume))
        height, width = rows.stop - rows.start, columns.stop - columns.start
        across = round((sheet.shape[1] + 4) / (width + 4))
        down = (sheet.shape[0] - 18 + 4) / (height + 4)
        assert across * down >= 6
        assert (across - 1) * down < 6 or across * (down - 1) < 6
        outline = contours(mask()[..., 1]).sum()
        assert 3 * outline * 0.9 < has(sheet[18:], PREDICTION) <= 3 * outline
        assert has(sheet[18:], REFERENCE) > 30

    def test_contact_sheet_shows_no_reference_where_there_is_none(self, volume: np.ndarray) -> None:
        sheet = sheet_of(volume, mask())
        assert has(sheet, REFERENCE) == 0
        assert has(sheet, PREDICTION) > 0

    def test_contact_sheet_shows_nothing_where_nothing_is_predicted(self, volume: np.ndarray) -> None:
        assert has(sheet_of(volume, np.zeros_like(volume))[18:], PREDICTION) == 0

    @pytest.mark.parametrize("depth", [1, 2, 25])
    def test_contact_sheet_takes_any_number_of_slices(self, volume: np.ndarray, depth: int) -> None:
        many = np.repeat(volume[..., :1], depth, axis=-1)
        sheet = sheet_of(many, mask(slices=(0,), depth=depth))
        assert sheet.shape[0] < 4 * sheet.shape[1]

    def test_contact_sheet_takes_a_constant_volume(self) -> None:
        sheet = sheet_of(np.zeros((SIZE, SIZE, 2)), mask(depth=6)[..., :2], np.zeros((SIZE, SIZE, 2)))
        assert has(sheet, PREDICTION) > 0

    def test_contact_sheet_takes_slices_smaller_than_the_legend(self) -> None:
        assert sheet_of(np.zeros((8, 8, 1)), np.ones((8, 8, 1)), np.ones((8, 8, 1))).shape[1] >= 8


class TestPanel:
    """Rows are told by the masks in their second column: each slice's has a height of its own."""

    def rows_of(self, sheet: np.ndarray) -> list[int]:
        """Pixels of the manual mask in each row of the panel."""
        middle = sheet[18:, SIZE + 4 : 2 * SIZE + 4]
        starts = range(0, middle.shape[0], SIZE + 4)
        return [has(middle[start : start + SIZE], (255, 255, 255)) // 10 for start in starts]

    def label(self, tumour: tuple[int, ...], depth: int) -> np.ndarray:
        """A mask of (n + 1) x 10 pixels in slice n."""
        result = np.zeros((SIZE, SIZE, depth), dtype=bool)
        for n in tumour:
            result[: n + 1, :10, n] = True
        return result

    @pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6, 7, 12])
    def test_panel_shows_different_slices_with_tumour_from_the_lowest(self, count: int) -> None:
        tumour = tuple(range(3, 3 + count))
        label = self.label(tumour, depth=20)
        shown = [row - 1 for row in self.rows_of(panel(np.zeros(label.shape), label, label))]
        assert len(shown) == min(4, count)
        assert shown == sorted(set(shown))
        assert set(shown) <= set(tumour)

    def test_panel_spreads_over_the_tumour(self) -> None:
        label = self.label(tuple(range(20)), depth=20)
        shown = self.rows_of(panel(np.zeros(label.shape), label, label))
        assert all(3 <= gap <= 6 for gap in np.diff(shown))

    def test_panel_shows_the_prediction_where_there_is_no_reference(self, volume: np.ndarray) -> None:
        sheet = panel(volume, mask(slices=(4,)), np.zeros_like(volume))
        assert sheet.shape[0] == 18 + SIZE
        overlay = sheet[18:, 2 * (SIZE + 4) :].astype(int)
        assert (overlay[30, 30, 0] > overlay[30, 30, 2] + 50).all()  # yellow

    def test_panel_shows_the_middle_slice_where_there_is_no_tumour_at_all(self, volume: np.ndarray) -> None:
        sheet = panel(volume, np.zeros_like(volume), np.zeros_like(volume))
        assert sheet.shape == (18 + SIZE, 3 * SIZE + 2 * 4, 3)

    def test_colours_both_masks(self, volume: np.ndarray) -> None:
        sheet = panel(volume, mask((32, 38), slices=(2,)), mask((28, 34), slices=(2,)))
        overlay = sheet[18:, 2 * (SIZE + 4) :].astype(int)
        only_label, both, only_pred = overlay[29, 30], overlay[33, 30], overlay[37, 30]
        assert np.ptp(only_label) < 30
        assert only_pred[0] > only_pred[2] + 50
        assert both[0] > both[2] + 50

    def test_panel_takes_a_constant_volume(self) -> None:
        assert panel(np.zeros((SIZE, SIZE, 6)), mask(), mask()).dtype == np.uint8


class TestSavePng:
    def test_save_png_writes_what_it_was_given(self, tmp_path: Path) -> None:
        picture = np.random.default_rng(0).integers(256, size=(5, 7, 3), dtype=np.uint8)
        save_png(tmp_path / "new" / "a.png", picture)
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "new" / "a.png")), picture)

    def test_save_png_leaves_nothing_else(self, tmp_path: Path) -> None:
        for value in (0, 255):
            save_png(tmp_path / "a.png", np.full((5, 7, 3), value, np.uint8))
        assert [file.name for file in tmp_path.iterdir()] == ["a.png"]
        assert np.asarray(Image.open(tmp_path / "a.png")).min() == 255

    def test_save_png_keeps_the_old_file_when_writing_fails(self, tmp_path: Path) -> None:
        save_png(tmp_path / "a.png", np.zeros((5, 7, 3), np.uint8))
        with pytest.raises((TypeError, ValueError)):
            save_png(tmp_path / "a.png", np.zeros((5, 7, 3), np.complex64))
        assert np.asarray(Image.open(tmp_path / "a.png")).shape == (5, 7, 3)
