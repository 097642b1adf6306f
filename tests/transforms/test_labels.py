"""Labels of cases: in the grid of their image, whatever grid they are saved in, and binary."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import tifffile
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform
from PIL import Image

from mri_seg.io.load import LoadVolumed
from mri_seg.transforms.labels import BinaryLabeld, LabelToImageGridd
from mri_seg.utils.case_flags import case_flags

CONFIGS = Path(__file__).resolve().parents[2] / "bundle" / "configs"
SHAPE = (20, 24, 8)


def rotation(degrees: float) -> np.ndarray:
    angle = np.deg2rad(degrees)
    turn = np.eye(4)
    turn[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return turn


AXIAL = np.array([[-0.9, 0, 0, 30], [0, -0.8, 0, 12], [0, 0, 5, -40], [0, 0, 0, 1]])
OBLIQUE = rotation(25) @ AXIAL


def mask(shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """A lesion without any symmetry."""
    voxels = np.zeros(shape, np.uint8)
    voxels[3:9, 4:16, 2:5] = 1
    voxels[9:12, 4:7, 2] = 1
    return voxels


def save(path: Path, voxels: np.ndarray, affine: np.ndarray | None) -> str:
    nibabel.save(nibabel.Nifti1Image(voxels, affine), path)
    return str(path)


def reoriented(voxels: np.ndarray, affine: np.ndarray, axcodes: str) -> tuple[np.ndarray, np.ndarray]:
    """The same volume with its axes in another order and direction."""
    change = ornt_transform(io_orientation(affine), axcodes2ornt(axcodes))
    return apply_orientation(voxels, change), affine @ inv_ornt_aff(change, voxels.shape)


@pytest.fixture
def image(tmp_path: Path) -> str:
    return save(tmp_path / "image.nii.gz", np.random.default_rng(0).uniform(1, 200, SHAPE).astype(np.float32), OBLIQUE)


def bring(image: Any, label: Any) -> dict[str, MetaTensor]:
    """Read a case and bring its label to the image's grid."""
    case = LoadVolumed(["image", "label"])({"case": "P1", "image": image, "label": label})
    return LabelToImageGridd("label")(case)


def flags(case: dict[str, MetaTensor]) -> list[str]:
    return [flag["name"] for flag in case_flags(case["image"].meta)]


def assert_fits(case: dict[str, MetaTensor], expected: np.ndarray | None = None) -> None:
    np.testing.assert_array_equal(case["label"][0].numpy(), mask() if expected is None else expected)
    torch.testing.assert_close(case["label"].affine, case["image"].affine)


class TestSameGrid:
    @pytest.mark.parametrize("axcodes", ["LPS", "RAS", "SRA", "PIR", "ASL"])
    def test_a_label_in_any_order_and_direction_of_axes_fits_its_image(
        self, axcodes: str, image: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.INFO):
            case = bring(image, save(tmp_path / "label.nii.gz", *reoriented(mask(), OBLIQUE, axcodes)))
        assert_fits(case)
        assert not flags(case)
        assert not caplog.messages

    @pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16])
    def test_a_label_may_have_any_type_and_a_fourth_axis_of_one(self, dtype: Any, image: str, tmp_path: Path) -> None:
        voxels, affine = reoriented(mask(), OBLIQUE, "RAS")
        assert_fits(bring(image, save(tmp_path / "label.nii.gz", voxels.astype(dtype)[..., None], affine)))

    def test_corners_within_a_tenth_of_a_voxel_are_the_same_grid(
        self, image: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        near = OBLIQUE.copy()
        near[:3, 3] += 0.05 * OBLIQUE[:3, 0]
        with caplog.at_level(logging.INFO):
            assert_fits(bring(image, save(tmp_path / "label.nii.gz", mask(), near)))
        assert not caplog.messages

    def test_a_fifth_of_a_voxel_is_another_grid(
        self, image: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        off = OBLIQUE.copy()
        off[:3, 3] += 0.2 * OBLIQUE[:3, 2]
        with caplog.at_level(logging.INFO):
            assert_fits(bring(image, save(tmp_path / "label.nii.gz", mask(), off)))
        assert "was resampled" in caplog.text

    def test_one_slice_knows_up_from_down(self, tmp_path: Path) -> None:
        image = save(tmp_path / "image.nii.gz", np.ones((*SHAPE[:2], 1), np.float32), OBLIQUE)
        label = save(tmp_path / "label.nii.gz", *reoriented(mask()[..., 2:3], OBLIQUE, "RAI"))
        assert_fits(bring(image, label), mask()[..., 2:3])


class TestOtherGrid:
    def test_a_finer_label_is_resampled_with_one_line_in_the_log(
        self, image: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        fine = np.kron(mask(), np.ones((3, 1, 3), np.uint8))
        affine = OBLIQUE @ np.diag([1 / 3, 1, 1 / 3, 1])
        affine[:3, 3] = (OBLIQUE @ [-1 / 3, 0, -1 / 3, 1])[:3]
        with caplog.at_level(logging.INFO):
            case = bring(image, save(tmp_path / "label.nii.gz", *reoriented(fine, affine, "RAS")))
        assert_fits(case)
        (line,) = caplog.messages
        assert "label.nii.gz: this label has another grid" in line
        assert "20 x 24 x 8 voxels of 0.9 x 0.8 x 5 mm" in line

    def test_outside_the_field_of_view_of_a_cropped_label_is_background(self, image: str, tmp_path: Path) -> None:
        start = (2, 3, 1)
        affine = OBLIQUE.copy()
        affine[:3, 3] = (OBLIQUE @ [*start, 1])[:3]
        assert_fits(bring(image, save(tmp_path / "label.nii.gz", mask()[2:14, 3:20, 1:6], affine)))

    def test_a_label_of_one_slice_lies_on_its_slice(self, image: str, tmp_path: Path) -> None:
        affine = OBLIQUE.copy()
        affine[:3, 3] = (OBLIQUE @ [0, 0, 2, 1])[:3]
        expected = np.zeros(SHAPE, np.uint8)
        expected[..., 2] = mask()[..., 2]
        assert_fits(bring(image, save(tmp_path / "label.nii.gz", mask()[..., 2:3], affine)), expected)

    def test_a_label_drawn_on_an_upright_volume_lies_where_it_was_drawn(self, image: str, tmp_path: Path) -> None:
        """A ball of 6 mm, in a grid of 1 mm that is not oblique."""
        centre = (OBLIQUE @ [9, 11, 4, 1])[:3]

        def ball(shape: tuple[int, ...], affine: np.ndarray) -> np.ndarray:
            places = nibabel.affines.apply_affine(affine, np.moveaxis(np.indices(shape), 0, -1))
            return (np.linalg.norm(places - centre, axis=-1) < 6).astype(np.uint8)

        upright = np.diag([1.0, 1, 1, 1])
        upright[:3, 3] = centre - 30
        case = bring(image, save(tmp_path / "label.nii.gz", ball((60, 60, 60), upright), upright))
        found, expected = case["label"][0].numpy() > 0, ball(SHAPE, OBLIQUE) > 0
        # Nearest neighbours are up to half a voxel off, so that the surface may differ.
        assert 2 * (found & expected).sum() / (found.sum() + expected.sum()) > 0.9

    def test_a_lesion_lost_between_voxels_is_flagged(self, image: str, tmp_path: Path) -> None:
        affine = OBLIQUE @ np.diag([0.2, 0.2, 0.2, 1])
        fine = np.zeros(tuple(5 * n for n in SHAPE), np.uint8)
        fine[52, 62, 22] = 1  # between the slices of the image
        case = bring(image, save(tmp_path / "label.nii.gz", fine, affine))
        assert not case["label"].any()
        assert flags(case) == ["label_lost"]


class TestRefused:
    def shifted(self, millimetres: float) -> np.ndarray:
        affine = OBLIQUE.copy()
        affine[0, 3] += millimetres
        return affine

    @pytest.mark.parametrize("voxels", [mask(), np.zeros(SHAPE, np.uint8)], ids=["with tumour", "without tumour"])
    def test_a_label_200_mm_away_is_refused_with_both_affines(
        self, voxels: np.ndarray, image: str, tmp_path: Path
    ) -> None:
        label = save(tmp_path / "label.nii.gz", voxels, self.shifted(200))
        with pytest.raises(
            ValueError, match=r"label\.nii\.gz: this label does not fit its image .*image\.nii\.gz"
        ) as error:
            bring(image, label)
        for number in ("230.0", "30.0"):  # both origins
            assert f", {number}]" in str(error.value)

    def test_a_label_of_which_over_one_percent_falls_outside_is_refused(self, image: str, tmp_path: Path) -> None:
        voxels = np.zeros(SHAPE, np.uint8)
        voxels[:, :10, 3] = 1
        label = save(tmp_path / "label.nii.gz", voxels, self.shifted(-0.9 * 3))
        with pytest.raises(ValueError, match=r"15\.0 % of the labelled voxels lie outside the image"):
            bring(image, label)

    @pytest.mark.parametrize("affine", [None, np.eye(4)], ids=["no code", "identity"])
    def test_a_label_without_geometry_of_another_shape_is_refused(
        self, affine: np.ndarray | None, image: str, tmp_path: Path
    ) -> None:
        with pytest.raises(ValueError, match="Their shapes differ, and at least one does not say where"):
            bring(image, save(tmp_path / "label.nii.gz", mask()[:-1], affine))

    def test_a_label_of_several_volumes_is_refused_whichever_volume_is_flair(self, image: str, tmp_path: Path) -> None:
        label = save(tmp_path / "label.nii.gz", np.stack([mask()] * 2, axis=-1), OBLIQUE)
        with pytest.raises(ValueError, match="holds 2 volumes, expected one label"):
            LoadVolumed(["image", "label"], volume=1)({"image": image, "label": label})


class TestWithoutGeometry:
    @pytest.mark.parametrize(
        "affine", [None, np.eye(4), np.diag([-1.0, -1, 1, 1])], ids=["no code", "identity", "identity of ITK"]
    )
    def test_a_nifti_label_is_taken_voxel_by_voxel_with_a_warning(
        self, affine: np.ndarray | None, image: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        case = bring(image, save(tmp_path / "label.nii.gz", mask(), affine))
        assert_fits(case)
        assert flags(case) == ["label_without_geometry"]
        (record,) = caplog.records
        assert record.levelno == logging.WARNING
        assert record.getMessage().startswith("P1: ")

    def test_slices_beside_a_nifti_image_are_taken_voxel_by_voxel_with_a_warning(
        self, image: str, tmp_path: Path
    ) -> None:
        files = [tmp_path / f"label_{n}.png" for n in range(SHAPE[2])]
        for n, file in enumerate(files):
            Image.fromarray(255 * mask()[..., n]).save(file)
        case = bring(image, files)
        assert_fits(case, 255 * mask())
        assert flags(case) == ["label_without_geometry"]

    @pytest.mark.parametrize("resolution", [{}, {"resolution": (10.6, 10.6), "resolutionunit": "CENTIMETER"}])
    def test_slices_beside_slices_need_no_word(
        self, resolution: dict, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Even if the image alone states its pixel size."""
        files: dict[str, list[Path]] = {"image": [], "label": []}
        for n in range(SHAPE[2]):
            for key, pixels in (("image", 100 + mask()[..., n]), ("label", 255 * mask()[..., n])):
                files[key].append(tmp_path / f"{key}_{n}.tif")
                tifffile.imwrite(files[key][-1], pixels, **(resolution if key == "image" else {}))
        with caplog.at_level(logging.INFO):
            case = bring(files["image"], files["label"])
        assert_fits(case, 255 * mask())
        assert not caplog.messages
        known = [volume.meta["spacing_known"] for volume in (case["image"], case["label"])]
        assert known == [bool(resolution)] * 2

    def test_a_label_with_geometry_beside_an_image_without_is_flagged(self, tmp_path: Path) -> None:
        image = save(tmp_path / "image.nii.gz", np.ones(SHAPE, np.float32), None)
        case = bring(image, save(tmp_path / "label.nii.gz", mask(), OBLIQUE))
        assert_fits(case)
        assert flags(case) == ["label_without_geometry"]


class TestBinary:
    def make_binary(self, *labels: np.ndarray) -> list[MetaTensor]:
        transform = BinaryLabeld("label")
        return [
            transform({"label": MetaTensor(torch.as_tensor(label)[None], meta={"files": f"P{n}.nii.gz"})})["label"]
            for n, label in enumerate(labels, start=1)
        ]

    def test_every_value_is_tumour_and_a_line_lists_them_once(self, caplog: pytest.LogCaptureFixture) -> None:
        parts = np.zeros(SHAPE, np.float32)
        parts[0, 0, :4], parts[1, 0, :3], parts[2, 0, :2] = 1, 2, 4
        with caplog.at_level(logging.INFO):
            first, second = self.make_binary(parts, parts[::-1].copy())
        assert torch.equal(first[0], torch.from_numpy((parts > 0).astype(np.float32)))
        assert second.unique().tolist() == [0, 1]
        (line,) = caplog.messages
        assert "P1.nii.gz: this label holds 3 values" in line
        assert "1 (4 voxels), 2 (3 voxels), 4 (2 voxels)" in line

    @pytest.mark.parametrize("value", [1, 255])
    def test_one_value_needs_no_word(self, value: int, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.INFO):
            (label,) = self.make_binary(value * mask())
        assert torch.equal(label[0], torch.from_numpy(mask()))
        assert not caplog.messages

    @pytest.mark.parametrize(("values", "tumor"), [([1, 4], [1, 4]), (2, [2]), ((7,), [])])
    @pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.int16])
    def test_chosen_values_alone_are_tumour(
        self, values: object, tumor: list[int], dtype: type, caplog: pytest.LogCaptureFixture
    ) -> None:
        parts = np.zeros(SHAPE, dtype)
        parts[0, 0, :4], parts[1, 0, :3], parts[2, 0, :2] = 1, 2, 4
        volume = MetaTensor(torch.as_tensor(parts)[None], meta={"files": "P1.nii.gz"})
        with caplog.at_level(logging.INFO):
            label = BinaryLabeld("label", values=values)({"label": volume})["label"]  # type: ignore[arg-type]
        assert isinstance(label, MetaTensor)
        np.testing.assert_array_equal(label[0].numpy(), np.isin(parts, tumor))
        assert len(caplog.messages) == (len(tumor) > 1)
        if caplog.messages:
            assert "2 values of this label count as tumour together: 1 (4 voxels), 4 (2 voxels)" in caplog.messages[0]

    def test_greys_of_pictures_make_one_short_line(self, caplog: pytest.LogCaptureFixture) -> None:
        greys = np.random.default_rng(0).integers(0, 256, (2, *SHAPE)).astype(np.float32)
        greys[1] = greys[1].round(-1)
        with caplog.at_level(logging.INFO):
            self.make_binary(*greys)
        (line,) = caplog.messages
        assert "255 values" in line
        assert "and 247 more" in line
        assert len(line) < 300


class TestConfigs:
    @pytest.fixture
    def case(self, image: str, tmp_path: Path) -> dict:
        parts = mask()
        parts[parts > 0] += np.arange((parts > 0).sum(), dtype=np.uint8) % 2  # values 1 and 2
        return {"case": "P1", "image": image, "label": save(tmp_path / "l.nii.gz", *reoriented(parts, OBLIQUE, "SRA"))}

    @pytest.mark.parametrize(
        ("config", "key"),
        [("train.json", "validate#preprocessing"), ("inference.json", "preprocessing")],
    )
    def test_label_that_is_evaluated_or_shown_lies_in_the_grid_of_the_image(
        self, config: str, key: str, case: dict
    ) -> None:
        """As inference inverts its mask into it."""
        parser = ConfigParser(json.loads((CONFIGS / config).read_text()))
        label = parser.get_parsed_content(key)(case)["label"]
        np.testing.assert_array_equal(label[0].numpy(), mask())

    def test_training_sees_the_label_on_its_image(self, case: dict) -> None:
        parser = ConfigParser(json.loads((CONFIGS / "train.json").read_text()))
        parser["spatial_size"] = [32, 32]
        prepare = parser.get_parsed_content("train#preprocessing")
        swapped = prepare(case)
        plain = prepare({**case, "label": save(Path(case["label"]).with_name("plain.nii.gz"), mask(), OBLIQUE)})
        assert swapped["label"].sum() > 0
        np.testing.assert_array_equal(swapped["label"].numpy(), plain["label"].numpy())
        assert swapped["label"].shape == swapped["image"].shape


class TestLabelsWithoutFiles:
    @pytest.mark.parametrize(
        ("meta", "name"), [({}, "label"), ({"filename_or_obj": "P1_mask.nii.gz"}, "P1_mask.nii.gz")]
    )
    def test_label_of_a_host_is_refused_by_whatever_name_it_has(self, meta: dict[str, Any], name: str) -> None:
        image = MetaTensor(torch.zeros(1, 4, 4, 4))
        label = MetaTensor(torch.zeros(1, 4, 4, 5), meta=meta)
        with pytest.raises(ValueError, match=f"^{name}: this label does not fit"):
            LabelToImageGridd("label")({"image": image, "label": label})
