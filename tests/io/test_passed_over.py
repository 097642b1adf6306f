"""What is not segmented is counted by kind, with what to do."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from case_folders import touch
from dicom_series import write_series

from mri_seg.io.cases import find_cases


class TestPassedOver:
    def test_what_is_passed_over_is_counted_by_kind_in_one_line(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        touch(tmp_path, "P_FLAIR.nii", "P_T1.nii", "P_T2.nii", "P_mask.nii", "Q_mask.nii", "x.zip", "notes.txt", "raw")
        with caplog.at_level(logging.INFO):
            find_cases(tmp_path)
        (line,) = [record.message for record in caplog.records if record.levelno == logging.INFO]
        for part in (
            "2 volumes of another contrast (P_T1.nii, P_T2.nii)",
            "1 label used as reference (P_mask.nii)",
            "1 unused label (Q_mask.nii)",
            "1 zip file (x.zip): unpack it",
            "1 .txt file (notes.txt)",
            "1 file without suffix (raw)",
        ):
            assert part in line

    def test_what_is_passed_over_is_not_said_where_there_is_nothing(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        touch(tmp_path, "a.nii", ".hidden.zip")
        with caplog.at_level(logging.INFO):
            find_cases(tmp_path)
        assert not caplog.records

    @pytest.mark.parametrize(
        ("names", "message"),
        [
            (["a.zip"], "1 zip file (a.zip): unpack it"),
            (["a.tar.gz", "b.7z"], "2 archives (a.tar.gz, b.7z): unpack it"),
            (["a.PAR", "a.REC"], "2 PAR/REC files (a.PAR, a.REC): convert with dcm2niix"),
            (["a+orig.HEAD", "a+orig.BRIK"], "2 AFNI files (a+orig.BRIK, a+orig.HEAD): convert with 3dAFNItoNIFTI"),
            (["s/2dseq"], "1 Bruker file (2dseq): convert with"),
            (["a.h5", "meas_1.dat"], "2 files of raw k-space data (a.h5, meas_1.dat): reconstruct images"),
            (["a.img"], "1 file of an Analyze or NIfTI pair without its other half (a.img)"),
            (["a.npy", "b.npy", "c.npy", "d.npy"], "4 array files (a.npy, b.npy, c.npy, ...): save it as NIfTI"),
            (["1_mask.png", "2_mask.png"], "2 unused labels (1_mask.png, 2_mask.png)"),
            ([], "It is empty."),
        ],
    )
    def test_what_is_passed_over_is_what_the_error_of_a_folder_without_cases_says(
        self, tmp_path: Path, names: list[str], message: str
    ) -> None:
        touch(tmp_path, *names)
        with pytest.raises(ValueError, match="holds no case to segment") as caught:
            find_cases(tmp_path)
        assert message in str(caught.value)

    @pytest.mark.parametrize(
        ("sop_class", "message"),
        [
            ("1.2.840.10008.5.1.4.1.1.2", "3 CT images (IM0000.dcm, IM0001.dcm, IM0002.dcm)"),
            ("1.2.840.10008.5.1.4.1.1.66.4", "3 DICOM objects (Segmentation)"),
            ("1.2.3", "3 DICOM files of unknown kind"),
        ],
    )
    def test_dicom_that_is_passed_over_is_named_by_its_kind(self, tmp_path: Path, sop_class: str, message: str) -> None:
        write_series(tmp_path, np.zeros((8, 6, 3), np.int16), np.diag([1.0, 1, 5, 1]), SOPClassUID=sop_class)
        with pytest.raises(ValueError, match="holds no case to segment") as caught:
            find_cases(tmp_path)
        assert message in str(caught.value)
