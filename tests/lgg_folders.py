"""Folders as those of TCGA-LGG, with patients of few small slices."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile

PATIENT = "TCGA_CS_4941_19960909"

OTHER = "TCGA_DU_5851_19950428"

THIRD = "TCGA_HT_7473_19970826"


def write_image(path: Path, shape: tuple[int, ...] = (8, 6, 3), dtype: type = np.uint8) -> None:
    photometric = "rgb" if shape[-1] == 3 else "minisblack"
    tifffile.imwrite(path, np.full(shape, 7, dtype), photometric=photometric)


def write_mask(path: Path, values: tuple[int, ...] = (0, 255), shape: tuple[int, ...] = (8, 6)) -> None:
    tifffile.imwrite(path, np.resize(np.array(values, np.uint8), shape), photometric="minisblack")


def write_patient(parent: Path, patient: str = PATIENT, slices: int = 3) -> Path:
    """A patient whose first mask is empty and whose others show tumour."""
    folder = parent / patient
    folder.mkdir(parents=True)
    for number in range(1, slices + 1):
        write_image(folder / f"{patient}_{number}.tif")
        write_mask(folder / f"{patient}_{number}_mask.tif", (0,) if number == 1 else (0, 255))
    return folder
