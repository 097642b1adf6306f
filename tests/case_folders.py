"""Folders of files, and the cases found in them."""

from __future__ import annotations

from pathlib import Path

from mri_seg.io.cases import find_cases


def touch(folder: Path, *files: str) -> Path:
    """Empty files: finding cases does not need their content."""
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def files(dataset_dir: Path) -> list[str]:
    """Files of all cases, from the folder on."""
    return [
        Path(file).relative_to(dataset_dir).as_posix() for case in find_cases(dataset_dir) for file in case["image"]
    ]


def found(dataset_dir: Path | str) -> dict[str, dict]:
    """Cases by name, their files by name alone."""
    cases = {}
    for case in find_cases(dataset_dir):
        assert set(case) <= {"case", "image", "label", "source"}
        entry = {key: [Path(file).name for file in case[key]] for key in ("image", "label") if key in case}
        cases[case["case"]] = entry
    return cases
