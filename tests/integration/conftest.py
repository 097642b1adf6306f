"""Phantom cases that the workflows train and infer on."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of six small synthetic cases with a split."""
    pytest.importorskip("nilearn", reason="needs the extra `phantom`")
    from mri_seg.datasets.phantom import make_phantom

    folder = tmp_path_factory.mktemp("data") / "phantom"
    make_phantom(folder, patients=6, slices=5, size=64)
    return folder
