"""The wheel, built from the sdist and unpacked elsewhere: it holds the bundle, works anywhere and stays as it was."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import nibabel
import numpy as np
import pytest
from command_line import ROOT, bundle

from mri_seg.utils.files import sha256

pytestmark = pytest.mark.slow

BUNDLE = ROOT / "bundle"
SOURCES = ("setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "mri_seg", "bundle")
LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.egg-info", ".*")
INFERENCE = {"outputs": "mask,probability", "tta_flip": "false", "amp": "false"}


def sums(folder: Path) -> dict[str, str]:
    """SHA-256 of all files of a folder, by their path in it."""
    return {file.relative_to(folder).as_posix(): sha256(file) for file in folder.rglob("*") if file.is_file()}


def build(folder: Path, kind: str, dest: Path) -> Path:
    code = f"from setuptools import build_meta; print(build_meta.build_{kind}({str(dest)!r}))"
    made = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    return dest / made.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked sdist of a copy of the repository, so that the build leaves nothing in this one."""
    pytest.importorskip("setuptools", minversion="77")
    folder = tmp_path_factory.mktemp("sdist")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / "checkout" / name, ignore=LEFT_OUT)
        else:
            (folder / "checkout").mkdir(exist_ok=True)
            shutil.copy(ROOT / name, folder / "checkout")
    (folder / "checkout" / "bundle" / "models" / "model.ts").write_bytes(b"exported here")
    with tarfile.open(build(folder / "checkout", "sdist", folder)) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (unpacked,) = (folder / "unpacked").iterdir()
    return unpacked


@pytest.fixture(scope="module")
def site(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the installed package, which nobody may write to."""
    folder = tmp_path_factory.mktemp("installed") / "site"
    with zipfile.ZipFile(build(sdist, "wheel", folder.parent)) as archive:
        archive.extractall(folder)
    everything = [folder, *folder.rglob("*")]
    for path in everything:
        path.chmod(0o555 if path.is_dir() else 0o444)
    yield folder
    for path in everything:
        path.chmod(0o755 if path.is_dir() else 0o644)


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """The folder in which the user stands."""
    (tmp_path / "elsewhere").mkdir()
    return tmp_path / "elsewhere"


def python(site: Path, folder: Path, *words: object) -> subprocess.CompletedProcess[str]:
    """``python words`` in a folder, with the installed package alone."""
    environment = {**os.environ, "PYTHONPATH": str(site), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", *map(str, words)]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def installed(site: Path, folder: Path, run_id: str, *configs: str, **options: object) -> subprocess.CompletedProcess:
    """``python -m monai.bundle run`` with the installed bundle, as the documents show it."""
    where = Path(python(site, folder, "-m", "mri_seg.bundle").stdout.strip())
    assert where == site / "mri_seg" / "_bundle"
    files = [str(where / "configs" / name) for name in configs]
    words = ["-m", "monai.bundle", "run", run_id, "--config_file", files, "--bundle_root", where]
    return python(site, folder, *words, *(word for key, value in options.items() for word in (f"--{key}", value)))


class TestContent:
    def test_wheel_and_sdist_hold_the_bundle_as_it_is_in_the_repository(self, site: Path, sdist: Path) -> None:
        tracked = subprocess.run(
            ["git", "ls-files", "-co", "--exclude-standard"], cwd=BUNDLE, capture_output=True, text=True, check=False
        )
        names = tracked.stdout.split() or [*sums(BUNDLE)]
        expected = {name: sha256(BUNDLE / name) for name in names if not name.endswith((".py", ".pyc", ".ts", ".onnx"))}
        assert {"LICENSE", "docs/data_license.txt", "models/model.pt", "models/model.int8.bin"} <= expected.keys()
        assert sums(site / "mri_seg" / "_bundle") == expected
        assert sums(sdist / "bundle") == expected

    def test_wheel_holds_every_module_and_every_file_that_modules_read(self, site: Path) -> None:
        found = sums(site / "mri_seg")
        read = {name: digest for name, digest in found.items() if not name.startswith("_bundle/")}
        assert read == {name: digest for name, digest in sums(ROOT / "mri_seg").items() if "__pycache__" not in name}

    def test_metadata_name_both_licences(self, site: Path) -> None:
        (folder,) = site.glob("*.dist-info")
        assert re.search(
            r"^License-Expression: Apache-2\.0 AND CC-BY-NC-SA-4\.0$", (folder / "METADATA").read_text(), re.M
        )
        texts = sorted(file.name for file in (folder / "licenses").rglob("*") if file.is_file())
        assert texts == ["LICENSE", "data_license.txt"]


class TestWorkflows:
    def test_masks_and_probabilities_equal_those_of_the_checkout_voxel_for_voxel(
        self, site: Path, elsewhere: Path, phantom: Path, tmp_path: Path
    ) -> None:
        before = sums(site)
        ended = installed(site, elsewhere, "inference", "inference.json", dataset_dir=phantom, **INFERENCE)
        assert ended.returncode == 0, ended.stderr[-3000:]
        here = bundle("inference", "inference.json", dataset_dir=phantom, output_dir=tmp_path / "here", **INFERENCE)
        assert here.status == 0, here.stderr[-3000:]
        files = sorted((tmp_path / "here").glob("*/*.nii.gz"))
        assert len(files) == 12
        for file in files:
            found = nibabel.load(elsewhere / "runs" / "inference" / file.relative_to(tmp_path / "here"))
            np.testing.assert_array_equal(found.affine, nibabel.load(file).affine)
            np.testing.assert_array_equal(np.asarray(found.dataobj), np.asarray(nibabel.load(file).dataobj))
        assert sums(site) == before

    def test_training_and_evaluation_write_to_runs_and_leave_the_package_as_it_was(
        self, site: Path, elsewhere: Path, phantom: Path
    ) -> None:
        before = sums(site)
        own = {"dataset_dir": phantom, "split": phantom / "split.json"}
        short = {"epochs": 1, "slices_per_epoch": 4, "batch_size": 4, "spatial_size": "[64,64]", "roi_size": "[64,64]"}
        trained = installed(site, elsewhere, "training", "train.json", output_dir="runs/mine", **own, **short)
        assert trained.returncode == 0, trained.stderr[-3000:]
        configs = ("train.json", "evaluate.json")
        evaluated = installed(site, elsewhere, "evaluation", *configs, checkpoint="runs/mine/model.pt", **own)
        assert evaluated.returncode == 0, evaluated.stderr[-3000:]
        assert (elsewhere / "runs" / "evaluation-validation" / "report.html").is_file()
        assert [path.name for path in elsewhere.iterdir()] == ["runs"]
        assert sums(site) == before

    def test_quantization_of_the_shipped_weights_writes_to_runs_and_its_weights_serve(
        self, site: Path, elsewhere: Path, phantom: Path
    ) -> None:
        pytest.importorskip("nncf", reason="needs the extra `openvino`")
        before = sums(site)
        own = {"dataset_dir": phantom, "split": phantom / "split.json", "calibration_slices": 4}
        ended = installed(site, elsewhere, "quantization", "train.json", "quantize.json", **own)
        assert ended.returncode == 0, ended.stderr[-3000:]
        (made,) = (elsewhere / "runs").glob("quantized-*")
        assert sorted(sums(made)) == ["SHA256SUMS", "model.int8.bin", "model.int8.xml", "model.pt"]
        int8 = {"checkpoint": made / "model.pt", "runtime": "openvino-int8"}
        ended = installed(site, elsewhere, "inference", "inference.json", dataset_dir=phantom, **int8, **INFERENCE)
        assert ended.returncode == 0, ended.stderr[-3000:]
        assert sums(site) == before

    def test_save_to_bundle_of_the_installed_bundle_is_refused_and_that_of_a_copy_works(
        self, site: Path, elsewhere: Path, phantom: Path
    ) -> None:
        before = sums(site)
        own = {"dataset_dir": phantom, "split": phantom / "split.json", "save_to_bundle": "last", "epochs": 1}
        short = {"slices_per_epoch": 4, "batch_size": 4, "spatial_size": "[64,64]", "roi_size": "[64,64]"}
        refused = installed(site, elsewhere, "training", "train.json", **own, **short)
        assert refused.returncode == 1
        assert "lies in the installed package" in refused.stderr
        assert list(elsewhere.iterdir()) == []
        copy = elsewhere / "my_bundle"
        shutil.copytree(site / "mri_seg" / "_bundle", copy, copy_function=shutil.copyfile)
        for folder in (copy, *copy.iterdir()):
            if folder.is_dir():
                folder.chmod(0o755)
        words = ["-m", "monai.bundle", "run", "training", "--config_file", copy / "configs" / "train.json"]
        options = {**own, **short, "bundle_root": "my_bundle", "output_dir": "runs/mine"}
        words += [word for key, value in options.items() for word in (f"--{key}", value)]
        saved = python(site, elsewhere, *words)
        assert saved.returncode == 0, saved.stderr[-3000:]
        assert sha256(copy / "models" / "model.pt") == sha256(elsewhere / "runs" / "mine" / "model_final.pt")
        assert sums(site) == before
