"""Files that share a SOPInstanceUID: copies count once, and what only seems to be a copy is refused."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_series import ramp, write_multiframe, write_series
from pydicom.uid import JPEGLSLossless, generate_uid

from mri_seg.dicom import find_series, order_frames
from mri_seg.dicom.reader import DICOMReader
from mri_seg.io.cases import find_cases

IMAGE = ramp(8, 6, 4)


def changed(path: Path, **values: object) -> Path:
    """Change attributes of a file in place."""
    data = pydicom.dcmread(path)
    for keyword, value in values.items():
        setattr(data, keyword, value)
    data.save_as(path)
    return path


class TestCopies:
    def test_dicom_copies_of_a_whole_series_count_once_and_are_told_in_one_line(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        write_series(tmp_path / "a", IMAGE)
        shutil.copytree(tmp_path / "a", tmp_path / "b")
        with caplog.at_level(logging.INFO, logger="mri_seg"):
            (series,) = find_series(sorted(tmp_path.rglob("*.dcm")))
        assert series.image_count == 4
        assert {file.parent.name for file in series.files} == {"a"}
        (record,) = caplog.records
        assert record.levelno == logging.INFO
        assert str(tmp_path / "b" / "IM0000.dcm") in record.message
        assert "Copies among the 8 files of the series: 4." in record.message

    def test_dicom_copies_make_one_case_that_is_read(self, tmp_path: Path) -> None:
        write_series(tmp_path / "a", IMAGE)
        shutil.copytree(tmp_path / "a", tmp_path / "a" / "copy")
        (case,) = find_cases(tmp_path)
        assert "error" not in case
        reader = DICOMReader()
        np.testing.assert_array_equal(reader.get_data(reader.read(case["image"]))[0], IMAGE)

    def test_dicom_copies_of_an_enhanced_file_count_once(self, tmp_path: Path) -> None:
        file = write_multiframe(tmp_path / "a.dcm", IMAGE)
        shutil.copy(file, tmp_path / "b.dcm")
        (series,) = find_series([file, tmp_path / "b.dcm"])
        assert (series.image_count, series.files) == (4, (file,))

    def test_dicom_copies_given_to_the_reader_count_once(self, tmp_path: Path) -> None:
        files = write_series(tmp_path, IMAGE)
        copy = shutil.copy(files[1], tmp_path / "copy.dcm")
        assert order_frames([*files, copy]).shape == (8, 6, 4)
        reader = DICOMReader()
        np.testing.assert_array_equal(reader.get_data(reader.read([copy, *files]))[0], IMAGE)

    def test_dicom_copies_that_were_compressed_or_given_other_private_values_on_export_are_copies(
        self, tmp_path: Path
    ) -> None:
        uids = [generate_uid() for _ in range(4)]
        header = {"series_uid": "1.2.3", "study_uid": "1.2", "SOPInstanceUID": lambda k: uids[k]}
        header["FrameOfReferenceUID"] = "1.2.4"
        files = write_series(tmp_path / "a", IMAGE, **header)
        files += write_series(tmp_path / "b", IMAGE, transfer_syntax=JPEGLSLossless, **header)
        changed(files[-1], StationName="ARCHIVE")
        (series,) = find_series(files)
        assert series.files == tuple(files[:4])

    def test_dicom_copies_without_a_sop_instance_uid_are_images_of_their_own(self, tmp_path: Path) -> None:
        files = write_series(tmp_path, IMAGE)
        for file in files:
            changed(file, SOPInstanceUID="")
        assert find_series(files)[0].image_count == 4


class TestImagesOfOneUID:
    def test_images_of_one_uid_whose_pixels_differ_are_refused(self, tmp_path: Path) -> None:
        files = write_series(tmp_path, IMAGE)
        data = pydicom.dcmread(files[2])
        data.PixelData = bytes(len(data.PixelData))
        data.save_as(tmp_path / "other.dcm")
        with pytest.raises(
            ValueError, match=r"other\.dcm: has the SOPInstanceUID of .*IM0002\.dcm, but differs from it in its values"
        ):
            find_series([*files, tmp_path / "other.dcm"])

    def test_images_of_one_uid_whose_rescale_differs_are_refused(self, tmp_path: Path) -> None:
        files = write_series(tmp_path, IMAGE)
        shutil.copy(files[0], tmp_path / "other.dcm")
        changed(tmp_path / "other.dcm", RescaleSlope="2", RescaleIntercept="0")
        with pytest.raises(ValueError, match=r"other\.dcm: .*IM0000\.dcm, but differs from it in its values"):
            find_series([*files, tmp_path / "other.dcm"])

    def test_images_of_one_uid_that_lie_elsewhere_are_refused(self, tmp_path: Path) -> None:
        files = write_series(tmp_path, IMAGE, SOPInstanceUID="1.2.3.4")
        with pytest.raises(ValueError, match=r"IM0001\.dcm: .*IM0000\.dcm.* in ImagePositionPatient.*gen-inst-uid"):
            find_series(files)
        with pytest.raises(ValueError, match="in ImagePositionPatient"):
            order_frames(files)

    def test_images_of_one_uid_whose_frames_lie_elsewhere_are_refused(self, tmp_path: Path) -> None:
        file = write_multiframe(tmp_path / "a.dcm", IMAGE)
        data = pydicom.dcmread(file)
        data.PerFrameFunctionalGroupsSequence[3].PlanePositionSequence[0].ImagePositionPatient = [0, 0, 7]
        data.save_as(tmp_path / "b.dcm")
        with pytest.raises(ValueError, match=r"b\.dcm: .*a\.dcm, but differs from it in ImagePositionPatient"):
            find_series([file, tmp_path / "b.dcm"])

    def test_images_of_one_uid_make_a_row_with_the_error_beside_other_series(self, tmp_path: Path) -> None:
        write_series(tmp_path / "good", IMAGE, patient_id="A")
        write_series(tmp_path / "bad", IMAGE, patient_id="B", SOPInstanceUID="1.2.3.4")
        errors = [case.get("error", "") for case in find_cases(tmp_path)]
        assert len(errors) == 2
        assert sorted("SOPInstanceUID" in error for error in errors) == [False, True]
