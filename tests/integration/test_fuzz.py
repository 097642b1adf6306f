"""Damaged input of every kind gives a documented error: no crash, no hang, no other exception.

Files are damaged in a process of its own (``tests/fuzzing.py``), for 8 s, or as many minutes as MRI_SEG_FUZZ_MINUTES
says; MRI_SEG_FUZZ_SEED sets where its draws begin. Names of folders and the JSON of splits are made up here.
"""

from __future__ import annotations

import faulthandler
import json
import os
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from dicom_series import ramp, write_multiframe, write_series
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mri_seg.datasets.lgg import SECTIONS, check, find_patients, load_split, slice_files
from mri_seg.io.cases import find_cases
from mri_seg.io.load import LoadVolumed
from mri_seg.io.slice_reader import SliceReader

MINUTES = float(os.environ.get("MRI_SEG_FUZZ_MINUTES", 0))
SEED = os.environ.get("MRI_SEG_FUZZ_SEED", "0")
ROOT = Path(__file__).resolve().parents[2]

quick = settings(
    max_examples=max(60, int(MINUTES * 300)), deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None
)


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [MINUTES * 60 or 8])
def test_damaged_files(tmp_path: Path, seconds: float) -> None:
    command = [sys.executable, ROOT / "tests" / "fuzzing.py", tmp_path / "files", str(seconds), SEED]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(command, capture_output=True, text=True, errors="replace", env=environment, check=False)
    tried = sorted(str(file) for file in tmp_path.glob("files/*/**/*") if file.is_file() and "valid" not in file.parts)
    assert ended.returncode == 0, f"with {tried}: {ended.stderr[-3000:]}"
    assert ended.stdout.count(" inputs") == 4


names = st.one_of(
    st.sampled_from(("P", "P_1", "P_1.tif", "P_1_1.tif", "P_1_01.tif", "P_1_1_mask.tif", "P_1_2.tif", "P_2_mask.tif")),
    st.sampled_from(
        ("sub-1_FLAIR.nii", "sub-1_T1w.nii.gz", "a.dcm", "DICOMDIR", "1.png", "a_1.jpg", "TCGA_CS_4941_19960909")
    ),
    st.from_regex(r"[\w.,;()\[\]{}+*?$ é-]{1,12}", fullmatch=True).filter(lambda name: name not in (".", "..")),
)
trees = st.recursive(st.binary(max_size=8), lambda below: st.dictionaries(names, below, max_size=5), max_leaves=12)


def write(path: Path, tree: bytes | dict) -> None:
    if isinstance(tree, bytes) and tree.startswith(b"\0"):
        path.symlink_to(path.parent, target_is_directory=True)
    elif isinstance(tree, bytes):
        path.write_bytes(tree)
    else:
        path.mkdir()
        for name, below in tree.items():
            write(path / name, below)


def outcome(call: Callable, argument: Any) -> tuple[Any, str]:
    """What a call gives, or the words of an error that is documented."""
    try:
        return call(argument), ""
    except (FileNotFoundError, ValueError) as error:
        return None, str(error)


@quick
@given(tree=st.dictionaries(names, trees, max_size=6))
def test_folders_of_any_make(tree: dict) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "P"
        write(root, tree)
        for patient in (outcome(find_patients, root)[0] or {}).values():
            numbers = [number for number, _, _ in outcome(slice_files, patient)[0] or ()]
            assert numbers == sorted(set(numbers))
        report, error = outcome(check, root)
        assert report or "no patient found" in error
        cases, error = outcome(find_cases, root)
        assert cases or "holds no case to segment" in error
        assert len({case["case"] for case in cases or ()}) == len(cases or ())


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=5) | st.sampled_from(SECTIONS), below),
    max_leaves=8,
)
contents = st.one_of(
    st.binary(max_size=60),
    values.map(lambda value: json.dumps(value).encode()),
    st.dictionaries(st.sampled_from((*SECTIONS, "description")), values).map(lambda value: json.dumps(value).encode()),
)


@quick
@given(content=contents)
def test_splits_of_any_content(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "split.json"
        path.write_bytes(content)
        split, error = outcome(load_split, path)
        assert str(path) in error or (split and split.keys() <= set(SECTIONS))


class TestFound:
    """What was found in longer runs."""

    @pytest.fixture(autouse=True)
    def no_hang(self) -> Iterator[None]:
        faulthandler.dump_traceback_later(120, exit=True)
        yield
        faulthandler.cancel_dump_traceback_later()

    def test_a_split_of_endless_brackets(self, tmp_path: Path) -> None:
        (tmp_path / "split.json").write_text("[" * 100_000)
        assert "not a JSON file" in outcome(load_split, tmp_path / "split.json")[1]

    def test_a_tiff_whose_pages_go_in_a_circle(self, tmp_path: Path) -> None:
        path = tmp_path / "a.tif"
        tifffile.imwrite(path, np.zeros((2, 8, 8), np.uint8), photometric="minisblack", metadata=None)
        with tifffile.TiffFile(path) as tiff:
            second, end = tiff.pages[1].offset, tiff.pages.next_page_offset
        data = bytearray(path.read_bytes())
        data[end : end + 4] = struct.pack("<I", second)
        path.write_bytes(data)
        assert "a.tif: cannot be read as TIFF (its list of pages has a loop" in outcome(SliceReader().read, path)[1]

    def test_a_metaimage_of_minus_one_dimensions(self, tmp_path: Path) -> None:
        header = "ObjectType = Image\nNDims = -1\nDimSize = 2 2\nTransformMatrix = 1 0 0 1\nElementType = MET_UCHAR\n"
        (tmp_path / "a.mha").write_text(header + "ElementDataFile = LOCAL\n0000")
        assert "NDims as -1, expected 1 to 5" in outcome(LoadVolumed("image"), {"image": tmp_path / "a.mha"})[1]

    def test_a_dicom_file_of_two_classes(self, tmp_path: Path) -> None:
        write_series(tmp_path, ramp(slices=1), SOPClassUID=["1.2.840.10008.5.1.4.1.1.4", "1.2.3"])
        assert "holds no case" in outcome(find_cases, tmp_path)[1]

    def test_a_dicom_file_with_a_damaged_sequence(self, tmp_path: Path) -> None:
        file = write_multiframe(tmp_path / "a.dcm", ramp())
        frames, pixels = b"\x00\x52\x30\x92SQ\0\0" + b"\2\0\0\0" + b"\1\2", b"\xe0\x7f\x10\x00OW"
        file.write_bytes(file.read_bytes().replace(pixels, frames + pixels))
        assert "a.dcm: has 4 frames, but no PlanePositionSequence" in outcome(LoadVolumed("image"), {"image": file})[1]
