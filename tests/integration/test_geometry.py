"""Inference gives the same mask whatever grid, format and intensity scale a volume comes in."""

from __future__ import annotations

import csv
import itertools
from pathlib import Path

import itk
import nibabel as nib
import numpy as np
import pytest
from bundle_weights import COARSE, coarse_weights
from dicom_series import write_multiframe, write_series
from monai.bundle import ConfigParser
from nibabel.eulerangles import euler2mat
from nibabel.orientations import apply_orientation, inv_ornt_aff
from pydicom.uid import JPEGLSLossless
from scipy import ndimage

from mri_seg.measurements.lesions import label_lesions
from mri_seg.utils.case_flags import case_flags

BUNDLE = Path(__file__).resolve().parents[2] / "bundle"
WEIGHTS = BUNDLE / "models" / "model.pt"
ORIENTATIONS = [
    np.array(list(zip(axes, flips)))
    for axes in itertools.permutations(range(3))
    for flips in itertools.product((1, -1), repeat=3)
]

# Few pixels, though resampled still; no mirror images, which would hide that sides are swapped; float32, as bfloat16
# makes visible steps of the last bits in which resampled volumes differ.
QUICK = {"device": "cpu", "outputs": "mask", "pixdim": COARSE, "tta_flip": False, "amp": False}

SAGITTAL = [[0, 0, 8.0, 0], [0, 2.0, 0, 0], [2.0, 0, 0, 0], [0, 0, 0, 1]]  # slices from left to right

pytestmark = pytest.mark.skipif(not WEIGHTS.is_file(), reason="no weights in bundle/models")


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return 2 * float((one * other).sum()) / float(one.sum() + other.sum())


def infer(dataset_dir: Path, output_dir: Path, **overrides: object) -> dict[str, nib.Nifti1Image]:
    """Run inference.json in this process: masks by case."""
    parser = ConfigParser()
    parser.read_config(str(BUNDLE / "configs" / "inference.json"))
    parser.update({"bundle_root": str(BUNDLE), "dataset_dir": str(dataset_dir), "output_dir": str(output_dir)})
    parser.update({**QUICK, "checkpoint": str(coarse_weights(output_dir.with_suffix(".pt"))), **overrides})
    for run in ("initialize", "inference", "finalize"):
        parser.get_parsed_content(run)
    return {folder.name: nib.load(folder / f"{folder.name}_mask.nii.gz") for folder in sorted(output_dir.glob("*/"))}


@pytest.fixture(scope="module")
def head() -> nib.Nifti1Image:
    """A synthetic head with a tumour: six slices of 128 x 128 pixels of 2 mm, in a tilted grid."""
    pytest.importorskip("nilearn", reason="needs the extra `phantom`")
    from mri_seg.datasets.phantom import phantom_volume

    volume, _ = phantom_volume(seed=0, index=0, slices=6, size=128, tumor=True)
    affine = np.eye(4)
    affine[:3, :3] = euler2mat(x=0.12, y=-0.08, z=0.05) @ np.array([[0, -2.0, 0], [-2.0, 0, 0], [0, 0, 8.0]])
    affine[:3, 3] = (120, 130, -30)
    return nib.Nifti1Image(volume.astype(np.int16), affine)


@pytest.fixture(scope="module")
def mask(head: nib.Nifti1Image, tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """Its mask ``(128, 128, 6)``."""
    folder = tmp_path_factory.mktemp("head")
    found = infer_one(head, folder).get_fdata()
    assert found.sum() > 100  # a mask worth comparing
    return found


def infer_one(image: nib.Nifti1Image, folder: Path, **overrides: object) -> nib.Nifti1Image:
    (folder / "in").mkdir()
    nib.save(image, folder / "in" / "head.nii.gz")
    return infer(folder / "in", folder / "out", **overrides)["head"]


class TestOrientations:
    def test_all_48_give_the_same_mask_in_their_own_grid(
        self, head: nib.Nifti1Image, mask: np.ndarray, tmp_path: Path
    ) -> None:
        turned = {}
        (tmp_path / "in").mkdir()
        for n, orientation in enumerate(ORIENTATIONS):
            array = apply_orientation(np.asarray(head.dataobj), orientation)
            affine = head.affine @ inv_ornt_aff(orientation, head.shape)
            turned[f"v{n:02}"] = orientation, nib.Nifti1Image(array, affine)
            nib.save(turned[f"v{n:02}"][1], tmp_path / "in" / f"v{n:02}.nii")
        found = infer(tmp_path / "in", tmp_path / "out")
        assert len(found) == 48
        for case, (orientation, image) in turned.items():
            assert found[case].shape == image.shape
            np.testing.assert_allclose(found[case].affine, image.affine, atol=1e-4)
            assert dice(found[case].get_fdata(), apply_orientation(mask, orientation)) > 0.999


class TestIntensities:
    @pytest.mark.parametrize(("scale", "offset"), [(37.0, 11.0), (0.01, -5.0)])
    def test_scale_and_offset_do_not_matter(
        self, head: nib.Nifti1Image, mask: np.ndarray, tmp_path: Path, scale: float, offset: float
    ) -> None:
        values = np.array(head.dataobj, np.float32) * scale + offset
        assert dice(infer_one(nib.Nifti1Image(values, head.affine), tmp_path).get_fdata(), mask) > 0.99

    def test_a_brain_without_its_skull_works(self, head: nib.Nifti1Image, tmp_path: Path) -> None:
        usual = {"pixdim": [0.94, 0.94], "checkpoint": str(WEIGHTS)}  # the pixels that they were trained on
        values = np.array(head.dataobj, np.float32)
        tissue = values > 0.12 * np.percentile(values, 99.5)
        disc = np.hypot(*np.mgrid[-6:7, -6:7]) <= 6.5  # 13 mm of skin and bone
        for n in range(values.shape[-1]):
            brain = ndimage.binary_erosion(ndimage.binary_fill_holes(tissue[..., n]), disc)
            values[..., n][~brain] = np.nan
        images = [head, *(nib.Nifti1Image(v, head.affine) for v in (np.nan_to_num(values), values))]
        for n, image in enumerate(images):
            (tmp_path / f"{n}").mkdir()
            images[n] = infer_one(image, tmp_path / f"{n}", **usual).get_fdata()
        expected, zeros, nans = images
        assert dice(zeros, expected) > 0.7
        assert dice(nans, expected) > 0.7


class TestFormats:
    """One volume in every format the scanner or the archive may give, in one folder."""

    @pytest.fixture(scope="class")
    @classmethod
    def found(
        cls, head: nib.Nifti1Image, tmp_path_factory: pytest.TempPathFactory
    ) -> tuple[Path, dict[str, nib.Nifti1Image]]:
        folder = tmp_path_factory.mktemp("formats")
        values, affine = np.asarray(head.dataobj), head.affine
        write_series(folder / "in" / "series", values, affine, patient_id="series", shuffled=True)
        write_series(folder / "in" / "study" / "t1", values, affine, description="T1", EchoTime=9, study_uid="1.2.3")
        write_series(folder / "in" / "study" / "x", values, affine, patient_id="P001", study_uid="1.2.3")
        write_multiframe(folder / "in" / "multi.dcm", values, affine, patient_id="multi")
        write_series(folder / "in" / "jpeg", values, affine, patient_id="jpeg", transfer_syntax=JPEGLSLossless)
        nib.save(head, folder / "in" / "nifti.nii.gz")
        nib.save(nib.MGHImage(values.astype(np.float32), affine), folder / "in" / "mgz.mgz")
        nib.save(nib.Nifti1Pair(values, affine), folder / "in" / "pair.img")
        for suffix in ("nrrd", "mha"):
            itk.imwrite(itk.imread(str(folder / "in" / "nifti.nii.gz")), str(folder / "in" / f"{suffix}.{suffix}"))
        return folder, infer(folder / "in", folder / "out", outputs="mask,seg,measurements")

    def test_formats_give_the_same_mask(
        self, found: tuple[Path, dict], head: nib.Nifti1Image, mask: np.ndarray
    ) -> None:
        assert len(found[1]) == 9
        expected = nib.as_closest_canonical(nib.Nifti1Image(mask, head.affine))
        for image in found[1].values():
            image = nib.as_closest_canonical(image)
            np.testing.assert_allclose(image.affine, expected.affine, atol=2e-3)
            assert dice(image.get_fdata(), expected.get_fdata()) > 0.999

    def test_formats_give_the_same_measurements(self, found: tuple[Path, dict]) -> None:
        rows = list(csv.DictReader((found[0] / "out" / "measurements.csv").read_text(encoding="utf-8").splitlines()))
        assert len(rows) == 9
        for name in ("volume_ml", "largest_lesion_longest_diameter_mm", "largest_lesion_centroid_x_mm"):
            values = [float(row[name]) for row in rows]
            np.testing.assert_allclose(values, values[0], rtol=1e-3)

    def test_formats_as_dicom_give_a_segmentation_with_the_mask(self, found: tuple[Path, dict]) -> None:
        pytest.importorskip("highdicom", reason="needs the extra `dicom`")
        from mri_seg.dicom.seg import read_segmentation

        written = sorted((found[0] / "out").glob("*/*_seg.dcm"))
        assert len(written) == 4
        for file in written:
            case = file.parent.name
            name = case.split("_")[0]
            source = {"P001": found[0] / "in" / "study" / "x", "multi": found[0] / "in" / "multi.dcm"}
            path = source.get(name, found[0] / "in" / name)
            files = sorted(path.iterdir()) if path.is_dir() else [path]
            np.testing.assert_array_equal(read_segmentation(file, files), found[1][case].get_fdata() > 0)


class TestPlanes:
    def test_thick_sagittal_slices_are_refused_unless_allowed(
        self, head: nib.Nifti1Image, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        sagittal = nib.Nifti1Image(np.asarray(head.dataobj), np.array(SAGITTAL))
        (tmp_path / "in").mkdir()
        nib.save(sagittal, tmp_path / "in" / "sagittal.nii")
        nib.save(head, tmp_path / "in" / "axial.nii")
        with pytest.raises(SystemExit):
            infer(tmp_path / "in", tmp_path / "out")
        rows = {
            row["case"]: row
            for row in csv.DictReader((tmp_path / "out" / "summary.csv").read_text(encoding="utf-8").splitlines())
        }
        assert rows["axial"]["status"] == "done"
        assert "sagittal slices 8.0 mm apart" in rows["sagittal"]["error"]
        assert "allow_non_axial" in rows["sagittal"]["error"]
        assert infer(tmp_path / "in", tmp_path / "out", allow_non_axial="true")["sagittal"].shape == head.shape


class TestAnyGrid:
    """Whatever the grid, results come back to it: no network needed for that."""

    def test_results_come_back_to_the_grid_of_the_input(self, tmp_path: Path) -> None:
        hypothesis = pytest.importorskip("hypothesis", reason="needs the extra `test`")
        from hypothesis import strategies as st

        parser = ConfigParser()
        parser.read_config(str(BUNDLE / "configs" / "inference.json"))
        prepare = parser.get_parsed_content("preprocessing")
        finish = parser.get_parsed_content("postprocessing")

        @hypothesis.settings(max_examples=40, deadline=None, derandomize=True)
        @hypothesis.given(
            shape=st.tuples(*[st.integers(1, 40)] * 3),
            orientation=st.sampled_from(ORIENTATIONS),
            spacing=st.tuples(st.floats(0.4, 2.0), st.floats(0.4, 2.0), st.floats(2.0, 8.0)),
            angles=st.tuples(*[st.floats(-0.3, 0.3)] * 3),
            origin=st.tuples(*[st.floats(-200, 200)] * 3),
            dtype=st.sampled_from([np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64]),
        )
        def check(
            shape: tuple, orientation: np.ndarray, spacing: tuple, angles: tuple, origin: tuple, dtype: type
        ) -> None:
            upright = np.eye(4)
            upright[:3, :3] = euler2mat(*angles) @ np.diag(spacing)
            upright[:3, 3] = origin
            values = np.random.default_rng(0).integers(0, 200, shape).astype(dtype)
            hypothesis.assume(len(np.unique(values)) > 2)  # or it is no image
            image = nib.Nifti1Image(
                apply_orientation(values, orientation), upright @ inv_ornt_aff(orientation, shape), dtype=dtype
            )
            nib.save(image, tmp_path / "any.nii")
            case = prepare({"case": "any", "image": [str(tmp_path / "any.nii")]})
            assert not (np.array(case["image"].shape[1:3]) % 16).any()
            case["pred"] = case["image"][1:2]
            case = finish(case)
            for key in ("pred", "probability"):
                assert case[key].shape[1:] == image.shape
                np.testing.assert_allclose(case[key].affine, image.affine, atol=1e-4)

        check()


@pytest.mark.parametrize(("fraction", "lesions"), [(0.1, 1), (0, 2)])
def test_what_is_marked_outside_the_brain_is_left_out_and_told_of(
    head: nib.Nifti1Image, tmp_path: Path, fraction: float, lesions: int
) -> None:
    parser = ConfigParser()
    parser.read_config(str(BUNDLE / "configs" / "inference.json"))
    parser.update({"min_brain_fraction": fraction})
    nib.save(head, tmp_path / "head.nii.gz")
    case = parser.get_parsed_content("preprocessing")({"case": "head", "image": [str(tmp_path / "head.nii.gz")]})
    brain = np.argwhere(case["brain"].numpy()[0]).mean(0)
    row, column, number = np.linalg.solve(
        case["image"].affine.numpy(), case["brain"].affine.numpy() @ [*brain, 1]
    ).astype(int)[:3]
    case["pred"] = case["image"][:1] * 0 - 10
    case["pred"][:, row : row + 20, column : column + 20, number - 1 : number + 1] = 10
    case["pred"][:, 20:40, 20:40, number - 1 : number + 1] = 10  # in air
    done = parser.get_parsed_content("postprocessing")(case)["pred"]
    assert label_lesions(done.numpy()[0] > 0)[1] == lesions
    flags = {flag["name"]: flag["message"] for flag in case_flags(done.meta)}
    assert ("lesion_outside_brain" in flags) == (lesions == 1)
