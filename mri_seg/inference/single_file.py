"""One case in, one file out: the mask under the name that the user gives, instead of a folder of cases."""

from __future__ import annotations

import gzip
import shutil
import tempfile
from collections.abc import Collection, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from mri_seg.inference.outputs import OUTPUTS, Result
from mri_seg.io.nibabel_files import is_pair
from mri_seg.io.slice_reader import PICTURE_SUFFIXES, TIFF_SUFFIXES
from mri_seg.utils.files import atomic_write
from mri_seg.utils.messages import reason

__all__ = ["check_single", "named_file", "single_outputs", "write_single"]

_NIFTI = (".nii.gz", ".nii")
_OTHER_IMAGES = (".nrrd", ".mha", ".mhd", ".mgh", ".mgz", ".dcm", *TIFF_SUFFIXES, *PICTURE_SUFFIXES)
_SHOWN = 3  # cases that an error names


def named_file(output_dir: PathLike | str) -> Path | None:
    """The file that an output path names; None if it names a folder.

    Args:
        output_dir: a path; one that ends with ``.nii.gz`` or ``.nii``, and is no existing folder, names a file.

    Raises:
        ValueError: when it names an image of another format.
    """
    path = Path(output_dir)
    name = path.name.lower()
    if path.is_dir():
        return None
    if name.endswith(_NIFTI):
        return path
    if name.endswith(_OTHER_IMAGES) or is_pair(path):
        raise ValueError(
            f"output_dir: {path} names an image, but a single mask is written as NIfTI. Write "
            f"{path.with_suffix('.nii.gz').name}, or give a folder, in which other formats are written too."
        )
    return None


def single_outputs(outputs: str | Sequence[str]) -> list[str]:
    """Names of the outputs beside a single file: ``auto`` is the mask alone, and the mask is always written.

    Args:
        outputs: names, as a list or separated by commas.
    """
    names = outputs.split(",") if isinstance(outputs, str) else list(outputs)
    return ["mask", *(name for name in names if name.strip() not in ("auto", "mask", ""))]


def check_single(
    file: Path, cases: Sequence[Mapping[str, Any]], outputs: Mapping[str, Collection[str]], *, overwrite: bool
) -> None:
    """Refuse several cases for one file, files that exist already, and an input that would be overwritten.

    Args:
        file: the file of the mask.
        cases: the cases that were found.
        outputs: names of the outputs of each case, by its name.
        overwrite: whether existing files are replaced.

    Raises:
        ValueError: with what was found, and what to do.
    """
    if len(cases) > 1:
        shown = ", ".join(case["case"] for case in cases[:_SHOWN]) + (", ..." if len(cases) > _SHOWN else "")
        raise ValueError(
            f"{file}: names one file, but {len(cases)} cases were found ({shown}). Give a folder as output_dir, or one "
            "case as dataset_dir."
        )
    for case in cases:
        inputs = {Path(name).resolve() for key in ("image", "label") for name in case.get(key, ())}
        names = [name for output in outputs[case["case"]] for name in OUTPUTS[output].names(case)]
        for target in (_target(file, case["case"], name) for name in names):
            if target.resolve() in inputs:
                raise ValueError(f"{target}: is an input of this run. Give another output_dir.")
            if target.exists() and not overwrite:
                raise ValueError(
                    f"{target}: is there already. Use --overwrite true to overwrite it, or give another output_dir."
                )


def write_single(file: Path, outputs: Collection[str], result: Result) -> list[str]:
    """Write the outputs of a case beside each other; if one fails, none is written.

    Args:
        file: the file of the mask; names of other outputs begin with its name.
        outputs: names of the outputs.
        result: the case.

    Returns:
        the errors.
    """
    problems = []
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=file.parent, prefix=".part-") as made:
            for name in outputs:
                try:
                    OUTPUTS[name].write(Path(made), result)
                except Exception as error:
                    problems.append(f"{name}: {reason(error)}")
            for written in sorted(Path(made).iterdir()) if not problems else ():
                _move(written, _target(file, result.case, written.name))
    except OSError as error:
        problems.append(reason(error))
    return problems


def _target(file: Path, case: str, name: str) -> Path:
    """Where a file of a case goes: ``flair_mask.nii.gz`` to the file itself, ``flair.html`` beside it."""
    if name == f"{case}_mask.nii.gz":
        return file
    stem = next(file.name[: -len(suffix)] for suffix in _NIFTI if file.name.lower().endswith(suffix))
    return file.with_name(stem + name.removeprefix(case) if name.startswith(case) else name)


def _move(written: Path, target: Path) -> None:
    if written.name.endswith(".gz") and not target.name.lower().endswith(".gz"):
        with atomic_write(target) as unfinished, gzip.open(written) as packed, unfinished.open("wb") as plain:
            shutil.copyfileobj(packed, plain)
    else:
        written.replace(target)
