"""A small TCGA-LGG folder and a split of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from lgg_folders import OTHER, PATIENT, write_patient


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Two patients, of 3 and 2 slices, beside what Kaggle's folder holds besides patients."""
    folder = tmp_path / "kaggle_3m"
    write_patient(folder, PATIENT, slices=3)
    write_patient(folder, OTHER, slices=2)
    (folder / "data.csv").write_text("Patient,tumor\n", encoding="utf-8")
    (folder / "README.md").write_text("# Data\n", encoding="utf-8")
    return folder
