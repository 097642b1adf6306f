"""One call from Python gives what the command gives, whatever form a case comes in."""

from __future__ import annotations

import json
import logging
import re
import shutil
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import itk
import nibabel as nib
import numpy as np
import pytest
import tifffile
import torch
from bundle_weights import COARSE, coarse_weights
from command_line import bundle
from dicom_series import write_series
from monai.transforms import LoadImage
from nibabel.eulerangles import euler2mat
from PIL import Image

import mri_seg

ROOT = Path(__file__).resolve().parents[2]
BUNDLE = ROOT / "bundle"
WEIGHTS = BUNDLE / "models" / "model.pt"

# Few pixels, though resampled still; no mirror images, which would hide that sides are swapped.
QUICK = {"device": "cpu", "pixdim": COARSE, "tta_flip": False, "amp": False}
SPACING = [2.0, 2.0, 8.0]
OUTPUTS = "mask,probability,measurements"

pytestmark = pytest.mark.skipif(not WEIGHTS.is_file(), reason="no weights in bundle/models")


@pytest.fixture(scope="module", autouse=True)
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of coarse pixels, which ``QUICK`` names from now on."""
    file = coarse_weights(tmp_path_factory.mktemp("weights") / "model.pt")
    QUICK["checkpoint"] = str(file)
    return file


class Forms(NamedTuple):
    """A case in several forms, in ``folder``, and what the command made of each in ``results``."""

    folder: Path
    results: Path

    def result(self, case: str) -> Path:
        (found,) = self.results.glob(f"{case}*")
        return found


@pytest.fixture(scope="module")
def head() -> nib.Nifti1Image:
    """A synthetic head with a tumour: six slices of 96 x 96 pixels of 2 mm, in a tilted grid."""
    pytest.importorskip("nilearn", reason="needs the extra `phantom`")
    from mri_seg.datasets.phantom import phantom_volume

    volume, _ = phantom_volume(seed=0, index=0, slices=6, size=96, tumor=True)
    affine = np.eye(4)
    affine[:3, :3] = euler2mat(x=0.12, y=-0.08, z=0.05) @ np.array([[0, -2.0, 0], [-2.0, 0, 0], [0, 0, 8.0]])
    affine[:3, 3] = (90, 95, -30)
    return nib.Nifti1Image(volume.astype(np.int16), affine)


@pytest.fixture(scope="module")
def forms(head: nib.Nifti1Image, tmp_path_factory: pytest.TempPathFactory) -> Forms:
    root = tmp_path_factory.mktemp("forms")
    folder, values = root / "in", np.asarray(head.dataobj)
    write_series(folder / "series", values, head.affine, patient_id="series", shuffled=True)
    (folder / "slices").mkdir()
    for n, pixels in enumerate(np.moveaxis(values, -1, 0), start=8):  # so that 10 comes before 8 by name
        tifffile.imwrite(folder / "slices" / f"slices_{n}.tif", pixels, photometric="minisblack")
    nib.save(head, folder / "nifti.nii.gz")
    nib.save(nib.Nifti1Image(np.stack([values // 2, values], axis=-1), head.affine), folder / "four.nii")
    nib.save(nib.MGHImage(values.astype(np.float32), head.affine), folder / "mgz.mgz")
    for suffix in ("nrrd", "mha"):
        itk.imwrite(itk.imread(str(folder / "nifti.nii.gz")), str(folder / f"{suffix}.{suffix}"))
    options = {**QUICK, "outputs": OUTPUTS, "spacing": SPACING, "volume": 1, "bundle_root": BUNDLE}
    ended = bundle("inference", "inference.json", dataset_dir=folder, output_dir=root / "out", **options)
    assert ended.status == 0, ended.stderr
    return Forms(folder, root / "out")


@pytest.fixture(scope="module")
def segmenter() -> mri_seg.Segmenter:
    return mri_seg.Segmenter(**QUICK, volume=1)


def affine(folder: Path) -> np.ndarray:
    return nib.load(folder / "nifti.nii.gz").affine


def values(folder: Path) -> np.ndarray:
    return np.asarray(nib.load(folder / "nifti.nii.gz").dataobj)


SOURCES: dict[str, tuple[str, Callable[[Path], Any], dict[str, Any]]] = {
    "NIfTI": ("nifti", lambda folder: folder / "nifti.nii.gz", {}),
    "NIfTI, path as text": ("nifti", lambda folder: str(folder / "nifti.nii.gz"), {}),
    "4D NIfTI": ("four", lambda folder: folder / "four.nii", {}),
    "NRRD": ("nrrd", lambda folder: folder / "nrrd.nrrd", {}),
    "MHA": ("mha", lambda folder: folder / "mha.mha", {}),
    "MGZ": ("mgz", lambda folder: folder / "mgz.mgz", {}),
    "DICOM folder": ("series", lambda folder: folder / "series", {}),
    "list of DICOM files": ("series", lambda folder: sorted((folder / "series").iterdir())[::-1], {}),
    "folder of slices": ("slices", lambda folder: folder / "slices", {"spacing": SPACING}),
    "list of slices": ("slices", lambda folder: sorted((folder / "slices").iterdir()), {"spacing": SPACING}),
    "nibabel": ("nifti", lambda folder: nib.load(folder / "nifti.nii.gz"), {}),
    "nibabel, made in memory": ("nifti", lambda folder: nib.Nifti1Image(values(folder), affine(folder)), {}),
    "nibabel, 4D": ("four", lambda folder: nib.load(folder / "four.nii"), {}),
    "nibabel, MGZ": ("mgz", lambda folder: nib.load(folder / "mgz.mgz"), {}),
    "ITK": ("nrrd", lambda folder: itk.imread(str(folder / "nrrd.nrrd")), {}),
    "SimpleITK": ("nrrd", lambda folder: simple_itk(folder / "nrrd.nrrd"), {}),
    "MetaTensor": ("nifti", lambda folder: LoadImage(ensure_channel_first=True)(folder / "nifti.nii.gz"), {}),
    "array with affine": ("nifti", values, {"affine": affine}),
    "tensor with affine": ("nifti", lambda folder: torch.from_numpy(values(folder)), {"affine": affine}),
    "array with spacing": ("slices", values, {"spacing": SPACING}),
}
"""What is segmented: the command's case, what makes the source, and further arguments."""


def simple_itk(file: Path) -> Any:
    return pytest.importorskip("SimpleITK").ReadImage(str(file))


class TestSources:
    @pytest.mark.parametrize("kind", SOURCES)
    def test_call_gives_the_voxels_and_measurements_of_the_command(
        self, kind: str, forms: Forms, segmenter: mri_seg.Segmenter
    ) -> None:
        case, make, options = SOURCES[kind]
        options = {name: value(forms.folder) if callable(value) else value for name, value in options.items()}
        found, folder = segmenter(make(forms.folder), **options), forms.result(case)
        for name in ("mask", "probability"):
            expected = nib.load(folder / f"{folder.name}_{name}.nii.gz")
            np.testing.assert_array_equal(np.asarray(getattr(found, name)), np.asarray(expected.dataobj))
            np.testing.assert_allclose(getattr(found, name).affine, expected.affine, atol=1e-4)
        assert found.mask.sum() > 100  # a mask worth comparing
        measured = json.loads((folder / f"{folder.name}_measurements.json").read_text(encoding="utf-8"))
        own = json.loads(json.dumps(found.measurements))
        assert own.pop("flags") == measured.pop("flags") == found.flags
        for key in ("case", "input"):  # images in memory are of no file
            own.pop(key), measured.pop(key)
        assert _close(own, measured)

    def test_case_is_named_as_by_the_command_or_by_the_caller(self, forms: Forms, segmenter: mri_seg.Segmenter) -> None:
        image = nib.load(forms.folder / "nifti.nii.gz")
        assert segmenter(forms.folder / "series").case == forms.result("series").name
        assert segmenter(image).case == "nifti"
        assert segmenter(image, case="P/1").case == "P_1"
        assert segmenter(values(forms.folder), spacing=SPACING).case == "volume"

    def test_spacing_of_the_segmenter_is_that_of_arrays(self, forms: Forms) -> None:
        found = mri_seg.segment(values(forms.folder), **QUICK, spacing=SPACING)
        assert found.measurements["spacing_mm"] == SPACING

    def test_geometry_that_a_file_has_itself_is_refused(self, forms: Forms, segmenter: mri_seg.Segmenter) -> None:
        with pytest.raises(ValueError, match=r"nifti\.nii\.gz has its own"):
            segmenter(forms.folder / "nifti.nii.gz", spacing=SPACING)
        with pytest.raises(ValueError, match="affine: is for arrays"):
            segmenter(forms.folder / "nifti.nii.gz", affine=np.eye(4))

    def test_folder_of_several_cases_is_an_error_that_names_them(
        self, forms: Forms, segmenter: mri_seg.Segmenter
    ) -> None:
        with pytest.raises(ValueError, match=r"holds 7 cases, expected one: .*mgz.*nifti.*slices"):
            segmenter(forms.folder)

    def test_error_of_a_transform_is_raised_as_it_is_and_the_next_case_is_segmented(
        self, forms: Forms, segmenter: mri_seg.Segmenter
    ) -> None:
        with pytest.raises(ValueError, match="ndarray in memory: its only values are 0 and 1"):
            segmenter(np.indices((8, 8, 8)).sum(0) % 2, spacing=SPACING)
        assert segmenter(forms.folder / "nifti.nii.gz").mask.any()


def _close(own: Any, expected: Any) -> bool:
    """Whether measurements are equal; an affine of a file has the precision of its format."""
    if isinstance(expected, dict):
        return own.keys() == expected.keys() and all(_close(own[key], expected[key]) for key in expected)
    if isinstance(expected, list):
        return len(own) == len(expected) and all(map(_close, own, expected))
    return own == (pytest.approx(expected, rel=1e-4, abs=1e-3) if isinstance(expected, float) else expected)


class TestSegmenter:
    def test_weights_are_loaded_once(self, head: nib.Nifti1Image, weights: Path, tmp_path: Path) -> None:
        shutil.copy(weights, tmp_path / "model.pt")
        segmenter = mri_seg.Segmenter(**{**QUICK, "checkpoint": tmp_path / "model.pt"})
        (tmp_path / "model.pt").unlink()
        assert segmenter(head).mask.equal(segmenter(head).mask)

    def test_threads_get_the_results_of_their_own_cases(
        self, head: nib.Nifti1Image, segmenter: mri_seg.Segmenter
    ) -> None:
        turned = nib.Nifti1Image(np.asarray(head.dataobj)[::-1], head.affine)
        expected = [np.asarray(segmenter(image).probability) for image in (head, turned)]
        found: dict[int, np.ndarray] = {}

        def call(number: int) -> None:
            found[number] = np.asarray(segmenter((head, turned)[number % 2]).probability)

        threads = [threading.Thread(target=call, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not np.array_equal(*expected)
        for number in range(4):
            np.testing.assert_array_equal(found[number], expected[number % 2])

    def test_options_are_those_of_the_command(self, head: nib.Nifti1Image, segmenter: mri_seg.Segmenter) -> None:
        probability = segmenter(head).probability
        found = mri_seg.segment(
            head,
            **QUICK,
            threshold=0.05,
            min_lesion_volume=0,
            min_brain_fraction=0,
            min_lesion_fraction=0,
            min_lesion_slices=1,
            fill_holes=False,
        )
        np.testing.assert_array_equal(np.asarray(found.mask), np.asarray(probability) >= 0.05)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"treshold": 0.4}, "treshold: no such option. Did you mean --threshold"),
            ({"threshold": 4}, "threshold: 4, expected a number, 0 to 1"),
            ({"flip": True}, "`flip` is now `tta_flip`"),
            ({"runtime": "tensorrt"}, "runtime: expected one of torch"),
            ({"dataset_dir": "in"}, "dataset_dir: .*give the case to the call"),
            ({"output_dir": "out"}, "output_dir: .*save"),
        ],
    )
    def test_wrong_options_are_named(self, options: dict, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            mri_seg.Segmenter(**options)

    def test_missing_bundle_and_weights_are_named(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"inference\.json: no such file. Give bundle_root"):
            mri_seg.Segmenter(bundle_root=tmp_path)
        with pytest.raises(FileNotFoundError, match="nowhere"):
            mri_seg.Segmenter(checkpoint=tmp_path / "nowhere.pt")

    def test_another_bundle_is_used_with_its_own_options(
        self, head: nib.Nifti1Image, weights: Path, tmp_path: Path
    ) -> None:
        shutil.copytree(BUNDLE / "configs", tmp_path / "configs")
        (tmp_path / "models").mkdir()
        shutil.copy(weights, tmp_path / "models" / "model.pt")
        file = tmp_path / "configs" / "inference.json"
        own = {name: value for name, value in QUICK.items() if name != "checkpoint"} | {"min_lesion_volume": 1e6}
        file.write_text(json.dumps({**json.loads(file.read_text(encoding="utf-8")), **own}))
        assert not mri_seg.segment(head, bundle_root=tmp_path).mask.any()

    def test_random_numbers_and_switches_of_the_program_stay(self, head: nib.Nifti1Image) -> None:
        before = torch.get_rng_state(), np.random.get_state()[1].tolist()
        switches = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark, torch.is_grad_enabled()
        mri_seg.segment(head, **QUICK)
        assert before[0].equal(torch.get_rng_state())
        assert before[1] == np.random.get_state()[1].tolist()
        now = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark, torch.is_grad_enabled()
        assert switches == now

    def test_log_warnings_and_hooks_of_the_program_stay(self, head: nib.Nifti1Image, forms: Forms) -> None:
        root = logging.getLogger()
        loggers = [root, *map(logging.getLogger, ("monai", "monai.bundle.workflows", "ignite", "highdicom", "pydicom"))]

        def state() -> list[Any]:
            logs = [(log.handlers[:], log.filters[:], log.level, log.disabled, log.propagate) for log in loggers]
            return [logs, warnings.filters[:], sys.excepthook, warnings.showwarning]

        handler, level = logging.NullHandler(), root.level
        root.addHandler(handler)
        root.setLevel(logging.WARNING)
        try:
            before = state()
            mri_seg.segment(forms.folder / "nifti.nii.gz", **QUICK)
            assert state() == before
        finally:
            root.removeHandler(handler)
            root.setLevel(level)


@pytest.mark.slow
class TestProcess:
    """In a process of its own, where libraries warn as they do for users."""

    @pytest.mark.parametrize("log", ["", "import logging; logging.basicConfig(level='ERROR')", "import logging"])
    def test_call_prints_nothing_but_warnings_about_the_case(self, forms: Forms, log: str) -> None:
        source = str(forms.folder / "nifti.nii.gz")
        code = f"import mri_seg; result = mri_seg.segment({source!r}, **{QUICK!r}); result._repr_html_()"
        ended = subprocess.run([sys.executable, "-c", f"{log}\n{code}"], cwd=ROOT, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr
        assert ended.stdout == ""
        assert [line for line in ended.stderr.splitlines() if not line.startswith("nifti: ")] == []


class TestSaving:
    def test_saved_files_are_those_of_the_command(self, forms: Forms, tmp_path: Path) -> None:
        segmenter = mri_seg.Segmenter(**QUICK, spacing=SPACING, volume=1)
        saved, written = segmenter(forms.folder / "nifti.nii.gz").save(tmp_path, OUTPUTS), forms.result("nifti")
        assert saved == tmp_path / "nifti"
        assert {file.name for file in saved.iterdir()} == {file.name for file in written.iterdir()}
        for name in ("nifti_measurements.json", "nifti_provenance.json"):
            assert json.loads((saved / name).read_text()) == json.loads((written / name).read_text())
        assert (tmp_path / "summary.csv").read_text().splitlines()[0] == (
            forms.results / "summary.csv"
        ).read_text().splitlines()[0]

    def test_spacing_of_a_call_is_recorded_like_the_option(self, forms: Forms, tmp_path: Path) -> None:
        segmenter = mri_seg.Segmenter(**QUICK, volume=1)
        found, written = segmenter(forms.folder / "slices", spacing=SPACING), forms.result("slices")
        name = f"{found.case}_provenance.json"
        saved = json.loads((found.save(tmp_path, "mask", overwrite=True) / name).read_text())
        expected = json.loads((written / f"{written.name}_provenance.json").read_text())
        assert saved["options"] == expected["options"]
        with pytest.raises(ValueError, match=r"spacing was .*, is "):
            segmenter(forms.folder / "slices", spacing=[1, 1, 5]).save(tmp_path, "mask")

    def test_dicom_gets_a_segmentation_of_its_series(
        self, forms: Forms, segmenter: mri_seg.Segmenter, tmp_path: Path
    ) -> None:
        pytest.importorskip("highdicom", reason="needs the extra `dicom`")
        from mri_seg.dicom.seg import read_segmentation

        found = segmenter(forms.folder / "series")
        (file,) = found.save(tmp_path, "seg").glob("*_seg.dcm")
        expected = np.asarray(found.mask) > 0
        np.testing.assert_array_equal(read_segmentation(file, sorted((forms.folder / "series").iterdir())), expected)

    def test_results_of_several_cases_share_their_tables(
        self, head: nib.Nifti1Image, segmenter: mri_seg.Segmenter, tmp_path: Path
    ) -> None:
        for case in ("a", "b"):
            segmenter(head, case=case).save(tmp_path, "mask,measurements")
        rows = (tmp_path / "measurements.csv").read_text(encoding="utf-8").splitlines()
        assert [row.split(",")[0] for row in rows] == ["case", "a", "b"]

    def test_results_of_another_image_or_other_options_are_not_overwritten_unless_asked(
        self, head: nib.Nifti1Image, segmenter: mri_seg.Segmenter, tmp_path: Path
    ) -> None:
        turned = nib.Nifti1Image(np.asarray(head.dataobj)[::-1], head.affine)
        segmenter(head, case="a").save(tmp_path, "mask")
        segmenter(head, case="a").save(tmp_path, "mask")  # the same
        with pytest.raises(ValueError, match="holds results of other files: input was Nifti1Image in memory"):
            segmenter(turned, case="a").save(tmp_path, "mask")
        with pytest.raises(ValueError, match=r"threshold was 0\.5, is 0\.4"):
            mri_seg.segment(head, case="a", **QUICK, volume=1, threshold=0.4).save(tmp_path, "mask")
        found = segmenter(turned, case="a")
        found.save(tmp_path, "mask", overwrite=True)
        written = nib.load(tmp_path / "a" / "a_mask.nii.gz")
        np.testing.assert_array_equal(np.asarray(written.dataobj), np.asarray(found.mask))

    def test_unknown_output_is_named(self, head: nib.Nifti1Image, segmenter: mri_seg.Segmenter, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="outputs: movie is not known"):
            segmenter(head).save(tmp_path, "movie")
        assert list(tmp_path.iterdir()) == []

    def test_changes_to_a_mask_do_not_reach_the_files(
        self, head: nib.Nifti1Image, segmenter: mri_seg.Segmenter, tmp_path: Path
    ) -> None:
        found = segmenter(head, case="a")
        expected = np.asarray(found.mask)
        found.mask[:] = 1
        written = nib.load(found.save(tmp_path, "mask") / "a_mask.nii.gz")
        np.testing.assert_array_equal(np.asarray(written.dataobj), expected)


class TestNotebook:
    def test_picture_is_the_sheet_of_the_command(
        self, head: nib.Nifti1Image, segmenter: mri_seg.Segmenter, tmp_path: Path
    ) -> None:
        found = segmenter(head, case="a")
        (tmp_path / "shown.png").write_bytes(found._repr_png_())
        sheet = found.save(tmp_path, ["sheet"]) / "a_sheet.png"
        shown, expected = (np.asarray(Image.open(file)) for file in (tmp_path / "shown.png", sheet))
        np.testing.assert_array_equal(shown, expected)

    def test_text_has_the_name_as_text_the_volume_and_the_warnings(
        self, forms: Forms, segmenter: mri_seg.Segmenter
    ) -> None:
        image = nib.load(forms.folder / "nifti.nii.gz")
        header = image.header.copy()
        header["qform_code"] = header["sform_code"] = 0
        found = segmenter(nib.Nifti1Image(values(forms.folder), header.get_best_affine(), header), case="a & b")
        page = found._repr_html_()
        assert "<b>a &amp; b</b>: " in page
        assert "does not give the orientation of the head" in page
        assert "data:image/png;base64," in page
        assert re.fullmatch(r"Segmentation\('a & b': .*, 96 x 96 x 6 voxels, [1-9] warnings?\)", repr(found))
        assert re.search(r"\d mL in \d lesion", segmenter(image)._repr_html_())


class TestDocument:
    def test_examples_of_the_document_run(
        self, forms: Forms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for extra in ("openvino", "highdicom"):
            pytest.importorskip(extra)
        monkeypatch.chdir(tmp_path)
        shutil.copy(forms.folder / "nifti.nii.gz", "flair.nii.gz")
        shutil.copytree(forms.folder / "series", "study")
        shutil.copytree(forms.folder / "slices", "slices")
        text = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
        examples = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
        assert examples
        names: dict[str, Any] = {}
        for example in examples:
            if "SimpleITK" not in example or _has_simple_itk():
                exec(compile(example, "docs/python.md", "exec"), names)
        assert "mL in 1 lesion" in capsys.readouterr().out


def _has_simple_itk() -> bool:
    try:
        import SimpleITK  # noqa: F401
    except ImportError:
        return False
    return True
