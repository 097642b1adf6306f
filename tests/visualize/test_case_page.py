"""What the page of a case holds of its slices, and how large it gets."""

from __future__ import annotations

import base64
import io
import json
import re
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mri_seg.measurements.lesions import measure
from mri_seg.visualize import case_page as module
from mri_seg.visualize.case_page import case_page, slices_to_show, thumbnail_of

AXIAL = np.array([[0, -1.0, 0, 90], [-1.0, 0, 0, 80], [0, 0, 5.0, -40], [0, 0, 0, 1]])


def head(depth: int, size: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """A bright disc with noise in dark air, and a lesion in the upper half of the slices."""
    rows, columns = np.mgrid[:size, :size] - size // 2
    disc = (rows**2 + columns**2 < (0.4 * size) ** 2)[..., None]
    image = disc * np.random.default_rng(0).normal(100, 6, (size, size, depth))
    pred = np.zeros(image.shape, dtype=np.uint8)
    pred[size // 2 : size // 2 + 10, 20:30, depth // 2 :] = 1
    return image.astype(np.float32), pred


def made(depth: int = 6, size: int = 64, *, label: bool = False, **known: bool) -> tuple[str, np.ndarray, np.ndarray]:
    image, pred = head(depth, size)
    probability = pred * np.float32(0.8)
    measured = measure(pred, AXIAL, case="one", probability=probability, **known)
    reference = np.roll(pred, 3, axis=0) if label else None
    return case_page(measured, image, pred, probability, reference), image, pred


def packed(page: str) -> dict[str, Any]:
    return json.loads(page.partition('<script type="application/json">')[2].partition("</script>")[0])


def picture(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("L"))


class TestLayers:
    def test_masks_and_probability_come_back_exactly_and_the_image_nearly(self) -> None:
        page, image, pred = made(label=True)
        data = packed(page)
        rows, columns = slice(3, 62), slice(3, 62)  # the disc of 51 pixels and a margin of 4
        assert data["height"] == data["width"] == 59
        for number, (gray, below) in zip(data["numbers"], data["slices"]):
            probability, classes = np.split(picture(below), 2)
            place = (rows, columns, number - 1)
            inside, reference = pred[place] > 0, np.roll(pred, 3, axis=0)[place] > 0
            np.testing.assert_array_equal(probability, inside * round(0.8 * 255))
            found = classes // data["classStep"]
            np.testing.assert_array_equal(found, inside * 4 + reference * 1 + (inside & reference) * 1)
            shown = picture(gray) / 255 * (data["high"] - data["low"]) + data["low"]
            assert np.abs(shown - image[place]).mean() < 6

    def test_layers_without_a_reference_offer_none(self) -> None:
        assert packed(made()[0])["layers"] == ["prediction", "probability", "diameters"]
        assert "reference" in packed(made(label=True)[0])["layers"]

    def test_notes_say_areas_and_where_lesions_were_measured(self) -> None:
        notes = packed(made()[0])["notes"]
        assert notes[:3] == ["no tumour"] * 3
        assert re.fullmatch(r"100 mm²; lesion 1: 1\d\.\d × \d+\.\d mm", notes[3])
        assert notes[4:] == ["100 mm²"] * 2
        assert packed(made(spacing_known=False)[0])["notes"][4] == "100 pixels"

    def test_page_of_one_slice_and_page_without_lesions_are_written(self) -> None:
        image, pred = head(1)
        page = case_page(measure(pred * 0, AXIAL, case="one"), image, pred * 0, pred * 0.0)
        assert packed(page)["numbers"] == [1]
        assert "No tumour found" in page


class TestSize:
    def test_page_of_26_slices_of_256_pixels_is_below_3_megabytes(self) -> None:
        page, _, _ = made(depth=26, size=256)
        assert len(page.encode()) < 3e6
        assert "slices are in this page" not in page

    def test_large_volume_is_cut_and_the_page_says_so(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "MOST_PIXELS", 20 * 59 * 59)
        page, _, pred = made(depth=180)
        data = packed(page)
        assert len(data["numbers"]) == 20
        assert data["total"] == 180
        assert len(data["slices"]) == len(data["notes"]) == len(data["areas"]) == 20
        assert "Only 20 of the 180 slices are in this page" in page
        measured = measure(pred, AXIAL)["lesions"][0]["measured_slice"]
        assert measured in data["numbers"]

    def test_slices_with_tumour_come_first_and_the_rest_evenly(self) -> None:
        areas = [(0, 5 if 40 <= n < 50 else 0) for n in range(100)]
        chosen = slices_to_show(areas, [45], 28)
        assert set(range(41, 51)) <= set(chosen)
        assert len(chosen) == 28
        gaps = np.diff([n for n in chosen if not 41 <= n <= 50 and n < 41])
        assert gaps.max() - gaps.min() <= 1

    @pytest.mark.parametrize("most", [0, 1, 7, 100])
    def test_slices_wanted_in_any_case_are_always_shown(self, most: int) -> None:
        chosen = slices_to_show([(3, 3)] * 30, [4, 30], most)
        assert {4, 30} <= set(chosen)
        assert len(chosen) == min(max(most, 2), 30)
        assert chosen == sorted(set(chosen))


class TestThumbnail:
    def test_thumbnail_of_a_page_is_a_small_picture(self) -> None:
        uri = thumbnail_of(made()[0])
        assert uri is not None
        assert max(picture(uri).shape) == 96
        assert len(uri) < 10_000

    @pytest.mark.parametrize("page", ["", "<html></html>", '<link rel="icon" href="data:image/webp;base64,AAA'])
    def test_page_without_a_thumbnail_has_none(self, page: str) -> None:
        assert thumbnail_of(page) is None
