"""Time the steps from DICOM files to a SEG and a report, against reading only the headers with pydicom.

    python benchmarks/dicom.py
    git worktree add /tmp/before f0d5032 && python benchmarks/dicom.py --before /tmp/before

Files are made by the program: an enhanced MR file of 240 frames of 64 x 64, with sequences of unknown length and the
functional groups of each frame in full, as Philips has them, private ones too; a study of 94 such files, of which the
one of 240 frames is FLAIR and the others have 20 frames each; and a series of 100 single images of 256 x 256. Every
repeat is a process of its own; trees alternate. Times are CPU times of the process, so other load on the machine
matters little; imports are not counted.
"""

from __future__ import annotations

import argparse
import copy
import sys
import tempfile
from pathlib import Path
from typing import Any

import measuring
import numpy as np
import pydicom
from measuring import ROOT
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

STEPS = ("pydicom", "find", "volume", "seg", "sr")

CHILD = """
import sys
from pathlib import Path
sys.path.insert(0, options["tree"])
import numpy, pydicom, highdicom, highdicom.seg, highdicom.sr, itk
from mri_seg.dicom.reader import DICOMReader
from mri_seg.dicom import choose_flair, find_series
try:
    from mri_seg.dicom.seg import write_segmentation
    from mri_seg.dicom.sr import write_report
    from mri_seg.measurements.lesions import measure
except ImportError:  # the version to compare with may be older than these modules
    from mri_seg.dicom.report import write_report
    from mri_seg.dicom.segmentation import write_segmentation
    from mri_seg.measurements import measure
assert sys.modules["mri_seg"].__file__.startswith(options["tree"])
pydicom.sr.codedict.codes.SCT.Brain  # its tables are read once
out, found = Path(options["out"]), {}

def timed(name, run):
    began = time.process_time()
    result = run()
    found[name] = time.process_time() - began
    return result

files = sorted(Path(options["data"]).iterdir())
timed("pydicom", lambda: [pydicom.dcmread(file, stop_before_pixels=True) for file in files])
series = choose_flair(timed("find", lambda: find_series(files)))
reader = DICOMReader()
volume, meta = reader.get_data(timed("volume", lambda: reader.read(series.files)))
mask = numpy.zeros(volume.shape, bool)
mask[10:20, 10:20, 3:7] = True
measured = measure(mask, meta["affine"])
files, version = [str(file) for file in series.files], {"algorithm_version": "1"}
timed("seg", lambda: write_segmentation(out / "seg.dcm", mask, files, **version))
timed("sr", lambda: write_report(out / "sr.dcm", measured, out / "seg.dcm", files, **version))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="a checkout of an earlier commit, to be timed in turn")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    trees = {"now": ROOT} | ({"before": args.before.resolve()} if args.before else {})
    found: dict[str, dict[str, list[dict]]] = {}
    with tempfile.TemporaryDirectory() as name:
        for data in make(Path(name)):
            runs: dict[str, list[dict]] = {tree: [] for tree in trees}
            for _ in range(args.repeats):
                for tree, folder in trees.items():
                    runs[tree].append(measuring.in_process(CHILD, tree=folder, data=data, out=name))
            found[data.name] = runs
            show(data.name, runs)
    measuring.write(args.json, {"machine": measuring.machine(), "runs": found})


def show(name: str, runs: dict[str, list[dict]]) -> None:
    """CPU milliseconds of each step, as a multiple of pydicom's headers, and of the earlier tree's."""
    print(f"{name}: step | CPU ms | times pydicom's headers" + (" | times before" if "before" in runs else ""))
    for step in STEPS:
        for tree, repeats in runs.items():
            ms = measuring.spread([1000 * run[step] for run in repeats], 1)
            ratio = measuring.spread([run[step] / run["pydicom"] for run in repeats])
            gain = ""
            if "before" in runs and tree == "now":
                gain = measuring.spread([now[step] / then[step] for now, then in zip(repeats, runs["before"])], 3)
            print(f"  {step:8} {tree:8} {ms:28} {ratio:24} {gain}")


def make(folder: Path) -> list[Path]:
    """Write the three inputs, each in a folder."""
    sys.path.insert(0, str(ROOT / "tests"))
    from dicom_series import ramp, write_series

    enhanced, study, single = (folder / name for name in ("enhanced", "study", "single"))
    uid = generate_uid()
    write_enhanced(enhanced / "flair.dcm", 240, uid, "FLAIR")
    write_enhanced(study / "flair.dcm", 240, uid, "FLAIR")
    write_enhanced(folder / "t1.dcm", 20, uid, "T1", series_uid="1.2.3.100", echo_time=10.0, inversion_time=None)
    content = (folder / "t1.dcm").read_bytes()
    for number in range(93):
        (study / f"{number}.dcm").write_bytes(content.replace(b"1.2.3.100", f"1.2.3.{number + 100}".encode()))
    noise = np.random.default_rng(0).integers(0, 500, (256, 256, 100)).astype(ramp().dtype)
    write_series(single, noise, series_number=3)
    return [enhanced, study, single]


def write_enhanced(path: Path, frames: int, study_uid: str, description: str, **values: Any) -> None:
    """Write an enhanced MR file whose frames each have all functional groups, in sequences of unknown length."""
    from dicom_series import ramp, write_multiframe

    write_multiframe(path, ramp(64, 64, frames), study_uid=study_uid, description=description, **values)
    data = pydicom.dcmread(path)
    shared = data.SharedFunctionalGroupsSequence[0]
    private = Dataset()
    block = private.private_block(0x2005, "Philips MR Imaging DD 005", create=True)
    for element in range(40):
        block.add_new(element, "DS", "1.5")
    for groups in data.PerFrameFunctionalGroupsSequence:
        groups.update(copy.deepcopy(shared))
        groups.private_block(0x2005, "Philips MR Imaging DD 001", create=True).add_new(0x0F, "SQ", [private])
    data.SharedFunctionalGroupsSequence = [Dataset()]
    end_by_delimiters(data)
    data.save_as(path)


def end_by_delimiters(data: Dataset) -> None:
    """Give all sequences and their items an unknown length, as most scanners write them."""
    for element in data:
        if element.VR == "SQ":
            element.is_undefined_length = True
            for item in element.value:
                item.is_undefined_length_sequence_item = True
                end_by_delimiters(item)


if __name__ == "__main__":
    main()
