"""The same cases in every form of data set: found, split, read alike and checked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_set_forms import FORMS, PATIENTS, SECTIONS, SHAPE, Case, make_cases, options_of
from monai.bundle import ConfigParser

from mri_seg.datasets.check import check
from mri_seg.datasets.data_set import DataSet, datalist

CONFIGS = Path(__file__).resolve().parents[2] / "bundle" / "configs"


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    return make_cases()


def prepared(root: Path, form: str, section: str) -> list[dict[str, Any]]:
    """Cases of a section as training sees them."""
    options = options_of(form, root)
    data_set = DataSet(root, options.get("datalist"))  # type: ignore[arg-type]
    parser = ConfigParser(json.loads((CONFIGS / "train.json").read_text()))
    parser["spatial_size"] = [64, 64]
    prepare = parser.get_parsed_content("train#preprocessing")
    return [prepare(case) for case in datalist(data_set, options.get("split", "auto"), section)]  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def expected(cases: list[Case], tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    root = tmp_path_factory.mktemp("lgg") / "data"
    FORMS["TCGA-LGG"](root, cases)
    return {section: prepared(root, "TCGA-LGG", section) for section in SECTIONS}


@pytest.mark.parametrize("form", FORMS)
class TestEveryForm:
    def test_every_form_gives_the_same_volumes_in_the_same_order(
        self, form: str, cases: list[Case], expected: dict[str, list[dict]], tmp_path: Path
    ) -> None:
        root = tmp_path / "data"
        FORMS[form](root, cases)
        for section, patients in SECTIONS.items():
            found = prepared(root, form, section)
            assert len(found) == len(patients)
            for case, other in zip(found, expected[section]):
                np.testing.assert_array_equal(case["label"].numpy(), other["label"].numpy())
                np.testing.assert_allclose(case["image"].numpy(), other["image"].numpy(), rtol=0, atol=1e-6)

        report = check(DataSet(root, options_of(form, root).get("datalist")))  # type: ignore[arg-type]
        assert report.defects == []
        assert [(one.slices, one.matrix) for one in report.cases] == [(SHAPE[2], SHAPE[:2])] * len(PATIENTS)
        tumor_slices = [int(case.label.any(axis=(0, 1)).sum()) for case in cases]
        assert [one.tumor_slices for one in report.cases] == tumor_slices
        if report.cases[0].spacing != (None, None, None):  # slices carry none
            np.testing.assert_allclose(
                [one.spacing for one in report.cases], [(0.94, 0.94, 5)] * len(PATIENTS), atol=1e-3
            )
