"""What the viewer of a case holds, and where it opens."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import replace

import numpy as np
import pytest
from evaluated import SHAPE, disc, make_cases
from PIL import Image

from mri_seg.report.error_analysis import KINDS, classify
from mri_seg.report.viewer import key_slice, pack_case, poster


class TestPackedCase:
    def unpack(self, packed: dict, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        (uri,) = packed["slices"][number - 1]
        sheet = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))
        height, width = packed["height"], packed["width"]
        image, probability, classes = (sheet[n * height : (n + 1) * height, :width] for n in range(3))
        return image, probability, classes // packed["classStep"], sheet[3 * height :]

    def pack(self, **changes: object) -> tuple[dict, object]:
        case = replace(make_cases()[2], **changes)
        rows = [
            {"slice": n + 1, "label_pixels": 0, "pred_pixels": 0, "overlap_pixels": 0, "dice": 1.0}
            for n in range(SHAPE[2])
        ]
        return pack_case(case, classify(case), rows), case

    def test_layers_of_a_packed_case_come_back(self) -> None:
        packed, case = self.pack()
        head = disc(24, 20, 18, (0, 6))
        for number in range(1, SHAPE[2] + 1):
            image, probability, classes, attention = self.unpack(packed, number)
            assert image.sum() >= case.image[..., number - 1][head[..., 0]].sum()
            assert (probability > 128).sum() == case.probability[..., number - 1].__gt__(128).sum()
            both = classes == len(KINDS) + 1
            assert (both | ((classes >= 1) & (classes <= 3))).sum() == case.label[..., number - 1].sum()
            assert (both | ((classes >= 4) & (classes <= 5))).sum() == case.pred[..., number - 1].sum()
            assert attention.shape[0] == -(-packed["height"] // 4)
        assert packed["gates"] == 4

    def test_masks_outside_the_head_are_kept(self) -> None:
        corner = np.zeros(SHAPE, bool)
        corner[:2, :2] = True
        packed, _ = self.pack(pred=corner)
        assert (self.unpack(packed, 1)[2] > 3).sum() == 4

    def test_wide_intensities_keep_their_range(self) -> None:
        image = (make_cases()[2].image.astype(np.float32) - 50) * 10
        packed, _ = self.pack(image=image)
        assert packed["low"] <= packed["black"] < packed["white"] <= packed["high"]
        assert packed["low"] == image.min()

    def test_a_constant_image_has_a_range(self) -> None:
        packed, _ = self.pack(image=np.full(SHAPE, 7, np.int16))
        assert packed["low"] < packed["high"]
        assert packed["black"] < packed["white"]

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_values_that_are_not_finite_leave_the_rest_as_it_is(self, value: float) -> None:
        image = make_cases()[2].image.astype(np.float32)
        expected, _ = self.pack(image=image)
        image = image.copy()
        image[24, 20, 2] = value
        packed, _ = self.pack(image=image)
        for key in ("low", "high", "black", "white"):
            assert packed[key] == pytest.approx(expected[key], abs=0.5)
        pair = [self.unpack(case, 3)[0].astype(int) for case in (packed, expected)]
        assert (abs(pair[0] - pair[1]) > 2).sum() == 1
        json.dumps(packed, allow_nan=False)

    def test_pixels_that_are_not_square(self) -> None:
        packed, _ = self.pack(spacing=(2.0, 1.0, 5.0), spacing_known=True)
        assert packed["pixelHeight"] == 2

    def test_poster_has_the_size_of_the_viewer(self) -> None:
        packed, case = self.pack()
        picture = Image.open(io.BytesIO(base64.b64decode(poster(case, 2).partition(",")[2])))
        assert picture.size == (packed["width"], packed["height"])


class TestTellingSlice:
    def row(self, number: int, label: int, pred: int, overlap: int) -> dict[str, int]:
        return {"slice": number, "label_pixels": label, "pred_pixels": pred, "overlap_pixels": overlap}

    def test_key_slice_is_the_one_with_most_false_pixels(self) -> None:
        assert key_slice([self.row(1, 100, 100, 95), self.row(2, 10, 30, 10), self.row(3, 9, 9, 9)]) == 2

    def test_key_slice_is_else_the_one_with_most_tumour(self) -> None:
        assert key_slice([self.row(1, 5, 5, 5), self.row(2, 9, 9, 9), self.row(3, 1, 1, 1)]) == 2

    def test_key_slice_is_else_the_middle(self) -> None:
        assert key_slice([self.row(n, 0, 0, 0) for n in (1, 2, 3)]) == 2
