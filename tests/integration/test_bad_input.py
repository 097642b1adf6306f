"""Bad input, case by case: what is refused with which words, and what is odd but works."""

from __future__ import annotations

import csv
import json
import os
import pickle
import re
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import nibabel
import numpy as np
import pytest
import tifffile
import torch
from bundle_weights import bundle_network, small_weights
from command_line import ROOT, SMALL, Ended, bundle, module
from inputs import BAD, ODD, Input, slice_pixels

MOST_LINES = 4
TRAINING = ("training", "train.json")
EVALUATION = ("evaluation", "train.json", "evaluate.json")
INFERENCE = ("inference", "inference.json")
QUICK = {"epochs": 1, "slices_per_epoch": 2, "batch_size": 2, "spatial_size": "[32,32]", "roi_size": "[32,32]"}


def says(ended: Ended, pattern: str) -> None:
    """The command failed with one short error that a user understands."""
    assert ended.status != 0
    assert re.search(pattern, ended.stderr, re.DOTALL), ended.stderr
    assert "Traceback" not in ended.stderr + ended.stdout
    errors = [line for line in ended.stderr.splitlines() if "it/s]" not in line and line.strip()]
    assert len(errors) <= MOST_LINES, ended.stderr


def half_written(folder: Path) -> list[Path]:
    return [file for file in folder.rglob("*") if file.name.startswith((".part-", ".fetch-"))]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of the small network that the commands here are told to use."""
    return small_weights(tmp_path_factory.mktemp("weights") / "model.pt")


def write_patient(
    folder: Path, name: str = "P_1", slices: int = 2, mask: np.ndarray | None = None, image: np.ndarray | None = None
) -> Path:
    patient = folder / name
    patient.mkdir(parents=True)
    tumour = np.zeros((32, 32), np.uint8)
    tumour[10:20, 10:20] = 255
    for n in range(1, slices + 1):
        pixels = slice_pixels(shape=(32, 32, 3)) if image is None else image
        tifffile.imwrite(patient / f"{name}_{n}.tif", pixels, photometric="rgb" if pixels.ndim == 3 else "minisblack")
        tifffile.imwrite(patient / f"{name}_{n}_mask.tif", tumour if mask is None else mask, photometric="minisblack")
    return patient


def write_data(folder: Path) -> Path:
    """A data set of two patients with a split."""
    for name in ("P_1", "P_2"):
        write_patient(folder, name)
    (folder / "split.json").write_text(json.dumps({"training": ["P_1"], "validation": ["P_2"]}))
    return folder


class TestFilesOfAFolder:
    """All files in one folder and one run: each bad one is told, each other one is done."""

    @pytest.fixture(scope="class")
    @classmethod
    def run(cls, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Ended, dict[str, dict], Path]:
        folder = tmp_path_factory.mktemp("files")
        for given in (*BAD, *ODD):
            (folder / "in" / given.id).mkdir(parents=True)
            given.make(folder / "in" / given.id)
        options = {**SMALL, "checkpoint": weights, "outputs": "mask,measurements", "dataset_dir": folder / "in"}
        ended = bundle(*INFERENCE, output_dir=folder / "out", **options)
        with (folder / "out" / "summary.csv").open(encoding="utf-8", newline="") as file:
            return ended, {row["case"]: row for row in csv.DictReader(file)}, folder / "out"

    @staticmethod
    def row(rows: dict[str, dict], given: Input) -> dict:
        (name,) = [case for case in rows if case == given.id or re.match(rf"{re.escape(given.id)}(_\d|\.dcm)", case)]
        return rows[name]

    @pytest.mark.parametrize("given", BAD, ids=lambda given: given.id)
    def test_bad_files_of_a_folder_are_refused(self, run: tuple[Ended, dict[str, dict], Path], given: Input) -> None:
        row = self.row(run[1], given)
        assert row["status"] == "failed"
        assert re.search(given.says, row["error"]), row["error"]
        assert len(row["error"]) < 700
        assert not (run[2] / row["case"]).exists()

    @pytest.mark.parametrize("given", ODD, ids=lambda given: given.id)
    def test_odd_files_of_a_folder_work(self, run: tuple[Ended, dict[str, dict], Path], given: Input) -> None:
        row = self.row(run[1], given)
        assert row["status"] == "done", row["error"]
        mask = nibabel.load(run[2] / row["folder"] / f"{row['case']}_mask.nii.gz")
        assert set(np.unique(mask.dataobj)) <= {0, 1}
        assert np.isfinite(mask.affine).all()

    def test_the_command_says_so_and_leaves_nothing_half_written(
        self, run: tuple[Ended, dict[str, dict], Path]
    ) -> None:
        ended, _, folder = run
        assert ended.status == 1
        assert f"Cases segmented: {len(ODD)}, kept as they were: 0, failed: {len(BAD)}." in ended.stdout
        assert "Traceback" not in ended.stdout + ended.stderr
        assert not half_written(folder)


class Command(NamedTuple):
    """A command that must fail: what it is told beside what it needs, and a pattern of its error."""

    id: str
    run: tuple[str, ...]
    options: dict[str, Any]
    says: str


COMMANDS = [
    Command("misspelt", TRAINING, {"lerning_rate": 0.1}, r"--lerning_rate: no such option\. .*--learning_rate\?"),
    Command("with a dash", TRAINING, {"lerning-rate": 0.1}, r"--lerning_rate: no such option"),
    Command("misspelt in inference", INFERENCE, {"output": "mask"}, r"--output: no such option\. .*--outputs"),
    Command("misspelt in evaluation", EVALUATION, {"sektion": "test"}, r"--sektion: no such option\. .*--section"),
    Command("negative epochs", TRAINING, {"epochs": -3}, r"--epochs: -3, expected a whole number, 1 or more"),
    Command("epochs in words", TRAINING, {"epochs": "many"}, r"--epochs: 'many', expected a whole number"),
    Command("epochs and a half", TRAINING, {"epochs": 1.5}, r"--epochs: 1\.5, expected a whole number"),
    Command("batch of none", TRAINING, {"batch_size": 0}, r"--batch_size: 0, expected a whole number, 1 or more"),
    Command("batch over epoch", TRAINING, {"batch_size": 9, "slices_per_epoch": 8}, "no more than --slices_per_epoch"),
    Command("learning rate of 0", TRAINING, {"learning_rate": 0}, r"--learning_rate: 0, expected a number above 0"),
    Command("learning rate in words", TRAINING, {"learning_rate": "fast"}, "--learning_rate: 'fast', expected"),
    Command("all warmup", TRAINING, {"warmup_fraction": 2}, r"--warmup_fraction: 2, expected a number, 0 to 1"),
    Command("even neighbours", TRAINING, {"num_slices": 2}, "--num_slices: 2, expected a whole odd"),
    Command("crop of one", TRAINING, {"roi_size": 160}, r"--roi_size: 160, expected two multiples of 32"),
    Command("odd crop", TRAINING, {"roi_size": "[30,30]"}, r"--roi_size: \[30, 30\], expected two multiples of 32"),
    Command("crop over plane", TRAINING, {"roi_size": "[512,512]"}, "expected no more than --spatial_size"),
    Command("fraction of 2", TRAINING, {"tumor_fraction": 2}, r"--tumor_fraction: 2, expected a number, 0 to 1"),
    Command("resume maybe", TRAINING, {"resume": "maybe"}, "--resume: 'maybe', expected true or false"),
    Command("no such device", TRAINING, {"device": "gpu"}, "--device: 'gpu', expected a device, such as cpu"),
    Command(
        "split of nobody", TRAINING, {"split": "folds/9"}, "folds/9: is neither a shipped split nor a file.*folds/5"
    ),
    Command("no such folder", TRAINING, {"dataset_dir": "nowhere"}, r"nowhere: no such folder\. Give --dataset_dir"),
    Command("a number for a folder", TRAINING, {"dataset_dir": 5}, "--dataset_dir: 5, expected a path"),
    Command("no such section", EVALUATION, {"section": "exam"}, "no section 'exam', expected training, validation"),
    Command("no limit", TRAINING, {"max_voxels": 0}, "--max_voxels: 0, expected a number above 0"),
    Command("threshold of 2", INFERENCE, {"threshold": 2}, r"--threshold: 2, expected a number, 0 to 1"),
    Command("two spacings", INFERENCE, {"spacing": "[1,1]"}, r"--spacing: \[1, 1\], expected three numbers above 0"),
    Command("spacing of 0", INFERENCE, {"spacing": "[1,1,0]"}, r"--spacing: \[1, 1, 0\], expected three numbers"),
    Command(
        "no such output", INFERENCE, {"outputs": "film"}, "outputs: film is not known; expected one or more of auto"
    ),
    Command("volume in words", INFERENCE, {"volume": "flair"}, "--volume: 'flair', expected a whole number"),
    Command("overwrite perhaps", INFERENCE, {"overwrite": "perhaps"}, "--overwrite: 'perhaps', expected true or"),
    Command("nothing to infer on", INFERENCE, {"dataset_dir": "nowhere"}, "nowhere: no such folder or file"),
]


class TestOptions:
    @pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.id)
    def test_options_that_cannot_work_stop_the_command_at_once(
        self, command: Command, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        data = write_data(tmp_path / "data")
        options: dict[str, Any] = {"dataset_dir": data, "output_dir": tmp_path / "out"}
        if command.run[0] != "inference":
            options |= {"split": data / "split.json"}
        if command.run[0] != "training":
            options |= {"checkpoint": weights}
        ended = bundle(*command.run, **{**options, **command.options})
        says(ended, command.says)
        assert not [file for file in (tmp_path / "out").rglob("*") if file.suffix in (".pt", ".csv", ".gz", ".html")]
        assert not half_written(tmp_path)


class Touch:
    """A pickle that makes a file when it is opened."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple:
        return Path.touch, (self.file,)


def save(name: str, content: Any) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        torch.save(content, folder / name)
        return folder / name

    return make


def malicious(folder: Path) -> Path:
    (folder / "malicious.pt").write_bytes(pickle.dumps(Touch(folder / "executed")))
    return folder / "malicious.pt"


def malicious_archive(folder: Path) -> Path:
    torch.save({"weight": Touch(folder / "executed")}, folder / "archive.pt")
    return folder / "archive.pt"


def text(folder: Path) -> Path:
    (folder / "text.pt").write_text("no weights")
    return folder / "text.pt"


def cut(folder: Path) -> Path:
    file = save("cut.pt", bundle_network(**{"network_def#channels": [2, 4]}).state_dict())(folder)
    file.write_bytes(file.read_bytes()[:-3000])
    return file


CHECKPOINTS = [
    ("missing", lambda folder: folder / "missing.pt", "missing.pt: no such file"),
    ("a folder", lambda folder: folder, "no such file"),
    ("not a checkpoint", text, r"text\.pt: cannot be read as weights.*Give weights"),
    ("cut short", cut, r"cut\.pt: cannot be read as weights.*Give weights"),
    ("a list", save("list.pt", [1, 2]), r"list\.pt: holds no weights, but list"),
    ("malicious", malicious, r"malicious\.pt: cannot be read as weights.*more than tensors"),
    ("malicious archive", malicious_archive, r"archive\.pt: cannot be read as weights.*more than tensors"),
    ("another network", save("other.pt", torch.nn.Linear(2, 2).state_dict()), r"other\.pt: belongs to another network"),
    (
        "other channels",
        save("channels.pt", bundle_network(**{"network_def#channels": [4, 8]}).state_dict()),
        r"channels\.pt: belongs to a network of another size: .*expected \(2, 4, 3, 3\)",
    ),
    (
        "one input channel",
        save("one.pt", bundle_network(**{"network_def#channels": [2, 4], "num_slices": 1}).state_dict()),
        r"one\.pt: was trained with .*num_slices 1, but the config gives .*num_slices 3\. Give --num_slices 1",
    ),
]


class TestCheckpoints:
    @pytest.mark.parametrize(
        ("run", "make", "pattern"),
        [
            *(pytest.param(INFERENCE, *row[1:], id=row[0]) for row in CHECKPOINTS),
            *(pytest.param(EVALUATION, *row[1:], id=f"evaluation, {row[0]}") for row in CHECKPOINTS[::3]),
        ],
    )
    def test_files_that_are_no_checkpoints_are_refused_and_never_executed(
        self, run: tuple[str, ...], make: Callable[[Path], Path], pattern: str, tmp_path: Path
    ) -> None:
        data = write_data(tmp_path / "data")
        options = {"network_def#channels": "[2,4]", "dataset_dir": data, "output_dir": tmp_path / "out"}
        if run is EVALUATION:
            options |= {"split": data / "split.json"}
        says(bundle(*run, checkpoint=make(tmp_path), **options), pattern)
        assert not (tmp_path / "executed").exists()
        assert not half_written(tmp_path)


def noise(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)


def broken(data: Path, name: str, change: Callable[[Path], Any]) -> None:
    change(data / "P_1" / name)


DATA = [
    (
        "empty slice",
        lambda data: broken(data, "P_1_2.tif", lambda f: f.write_bytes(b"")),
        r"P_1_2\.tif: cannot be read",
    ),
    (
        "cut mask",
        lambda data: broken(data, "P_1_1_mask.tif", lambda f: f.write_bytes(f.read_bytes()[:600])),
        r"P_1_1_mask\.tif: cannot be read as TIFF",
    ),
    ("no mask", lambda data: broken(data, "P_1_2_mask.tif", Path.unlink), r"P_1_2\.tif: its mask is missing"),
    (
        "mask of another size",
        lambda data: [
            tifffile.imwrite(data / "P_1" / f"P_1_{n}_mask.tif", np.zeros((16, 16), np.uint8)) for n in (1, 2)
        ],
        r"P_1_1_mask\.tif: this label does not fit its image .*P_1_1\.tif\.",
    ),
    ("patient twice", lambda data: write_patient(data / "copy", "P_1"), "patient P_1 is there twice"),
    ("unknown patient", lambda data: write_patient(data, "P_3"), "in no section of the split: P_3"),
    ("nobody", lambda data: [f.unlink() for f in data.rglob("*.tif")], "is no data set to train or evaluate on"),
]


class TestTraining:
    @pytest.mark.parametrize(("change", "pattern"), [row[1:] for row in DATA], ids=[row[0] for row in DATA])
    def test_training_on_bad_data_names_the_file(
        self, change: Callable[[Path], Any], pattern: str, tmp_path: Path
    ) -> None:
        data = write_data(tmp_path / "data")
        change(data)
        options = {"network_def#channels": "[2,4]", "dataset_dir": data, "split": data / "split.json"}
        says(bundle(*TRAINING, output_dir=tmp_path / "out", **QUICK, **options), pattern)
        assert not list(tmp_path.rglob("*.pt"))
        assert not half_written(tmp_path)


def mixed(folder: Path) -> None:
    """One patient with a defect of each kind."""
    write_patient(folder)


CHECKED = [
    ("empty folder", lambda folder: folder.mkdir(), r"no patient found, expected folders <patient>"),
    ("no folder", lambda folder: None, r"no such folder\. .*mri_seg\.datasets\.lgg fetch"),
    ("a file", lambda folder: folder.write_text(""), r"not a folder, expected one that holds patient folders"),
    ("empty slice", lambda f: (write_patient(f) / "P_1_1.tif").write_bytes(b""), r"P_1_1\.tif: cannot be decoded"),
    ("text", lambda f: (write_patient(f) / "P_1_1.tif").write_bytes(b"text"), r"P_1_1\.tif: cannot be decoded"),
    ("mask gone", lambda f: (write_patient(f) / "P_1_1_mask.tif").unlink(), r"P_1_1\.tif: its mask is missing"),
    ("gap", lambda f: [p.unlink() for p in write_patient(f, slices=3).glob("*_2*")], "gap in the numbering, slice 2"),
    ("rgba", lambda f: write_patient(f, image=noise((32, 32, 4))), r"4 channels .*expected 3"),
    ("16 bit", lambda f: write_patient(f, image=noise((32, 32, 3)).astype(np.uint16)), r"type uint16, expected uint8"),
    ("float mask", lambda f: write_patient(f, mask=np.zeros((32, 32), np.float32)), r"type float32, expected uint8"),
    ("grey mask", lambda f: write_patient(f, mask=noise((32, 32))), r"values 1, 2, .* more, expected 0 and 255"),
    (
        "small mask",
        lambda f: write_patient(f, mask=np.zeros((9, 9), np.uint8)),
        r"shape \(9, 9\), but its image is 32 x",
    ),
    ("twice", lambda f: [write_patient(f / n) for n in "ab"], r"patient P_1 is there twice"),
    (
        "pages",
        lambda f: tifffile.imwrite(write_patient(f) / "P_1_1_mask.tif", noise((3, 32, 32)), photometric="minisblack"),
        "3 images in the file, expected 1",
    ),
    ("huge", lambda f: enlarge(write_patient(f) / "P_1_2.tif"), r"P_1_2\.tif: .*declares .*60000 x 60000"),
    ("patient without slices", lambda f: (f / "TCGA_CS_4941_19960909").mkdir(parents=True), "folder without slices"),
]


def enlarge(file: Path) -> None:
    with tifffile.TiffFile(file, mode="r+b") as tiff:
        for name in ("ImageLength", "ImageWidth"):
            tiff.pages[0].tags[name].overwrite(60000)


class TestCheck:
    @pytest.mark.parametrize(("make", "pattern"), [row[1:] for row in CHECKED], ids=[row[0] for row in CHECKED])
    def test_check_finds_every_defect(self, make: Callable[[Path], Any], pattern: str, tmp_path: Path) -> None:
        make(tmp_path / "data")
        ended = module("mri_seg.datasets.lgg", "check", str(tmp_path / "data"))
        assert ended.status == 1
        assert re.search(pattern, ended.stdout + ended.stderr), ended
        assert "Traceback" not in ended.stderr

    def test_check_follows_links_once(self, tmp_path: Path) -> None:
        patient = write_patient(tmp_path / "data")
        (patient / "up").symlink_to(tmp_path / "data", target_is_directory=True)
        (tmp_path / "data" / "itself").symlink_to("itself")
        ended = module("mri_seg.datasets.lgg", "check", str(tmp_path / "data"))
        assert (ended.status, ended.stdout.splitlines()[-1]) == (0, "no defects")


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[Path]:
    """A folder that may not be read."""
    folder = tmp_path / "locked"
    write_patient(folder)
    folder.chmod(0)
    yield folder
    folder.chmod(0o700)


@pytest.mark.interpreter
class TestProcess:
    """The command line itself: status, standard error, and nothing else."""

    @staticmethod
    def run(*words: object, **options: Any) -> Ended:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-W", "ignore", "-m", *map(str, words)]
        ended = subprocess.run(command, capture_output=True, encoding="utf-8", env=environment, check=False, **options)
        return Ended(ended.returncode, ended.stdout, ended.stderr)

    def test_command_tells_an_unknown_option(self, tmp_path: Path) -> None:
        config = ROOT / "bundle" / "configs" / "train.json"
        words = ["monai.bundle", "run", "training", "--config_file", config, "--lerning_rate", 1]
        ended = self.run(*words, cwd=tmp_path)
        says(ended, r"^error: --lerning_rate: no such option\. Did you mean --learning_rate\?")
        assert ended.status == 1
        assert not list(tmp_path.iterdir())

    def test_command_shows_where_with_debug(self, tmp_path: Path) -> None:
        ended = bundle(*INFERENCE, dataset_dir="nowhere", output_dir=tmp_path / "out", debug="true")
        assert ended.status == 1
        assert "Traceback" in ended.stderr
        assert "nowhere: no such folder or file" in ended.stderr

    @pytest.mark.skipif(sys.platform == "win32", reason="needs permissions of POSIX")
    def test_command_tells_a_folder_that_may_not_be_read(self, locked: Path) -> None:
        if os.geteuid() == 0:
            pytest.skip("root may read everything")
        ended = self.run("mri_seg.datasets.lgg", "check", locked)
        says(ended, r"^error: .*locked: permission denied")


def test_bombs_take_no_memory(tmp_path: Path) -> None:
    """Each is refused by its header: what they declare is 3.6 GB and more."""
    from mri_seg.io.cases import find_cases
    from mri_seg.io.load import LoadVolumed

    load = LoadVolumed("image")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for given in BAD:
        if given.id.startswith(("huge", "lying", "jpeg_")) and given.id != "huge_pixels":
            (tmp_path / given.id).mkdir()
            given.make(tmp_path / given.id)
            (case,) = find_cases(tmp_path / given.id)
            with pytest.raises(ValueError, match=given.says):
                load(case)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert after - before < 200 * 1024  # KiB
