"""What pydicom warns of is dropped where DICOM is read, and nowhere else."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_series import ramp, write_multiframe, write_series
from pydicom.valuerep import validate_value

from mri_seg.dicom import find_series, order_frames
from mri_seg.dicom.quiet import quiet_pydicom
from mri_seg.dicom.reader import DICOMReader

IMAGE = ramp(8, 6, 4)


def with_long_values(files: list[Path]) -> list[Path]:
    """Values longer than their VR allows, private and public, as scanners write them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for file in files:
            data = pydicom.dcmread(file)
            block = data.private_block(0x0051, "SIEMENS MR HEADER", create=True)
            block.add_new(0x0E, "SH", "Tra>Cor(-12.3)>Sag(-4.5)")
            data.add_new(0x00080050, "SH", "A" * 30)  # AccessionNumber
            data.add_new(0x0008103E, "LO", "FLAIR " * 20)  # SeriesDescription
            data.add_new(0x00200010, "SH", "S" * 30)  # StudyID
            data.save_as(file)
    return files


class Heard:
    """What came through, as warnings and in the log."""

    def __init__(self, warned: list[warnings.WarningMessage], caplog: pytest.LogCaptureFixture) -> None:
        self.warned, self.caplog = warned, caplog

    def clear(self) -> None:
        self.warned.clear()
        self.caplog.clear()

    def of_pydicom(self) -> list[str]:
        logged = [record for record in self.caplog.records if record.levelno >= logging.WARNING]
        return [str(one.message) for one in self.warned if "pydicom" in one.filename] + [
            record.getMessage() for record in logged if record.name.startswith("pydicom")
        ]


@pytest.fixture
def heard(caplog: pytest.LogCaptureFixture) -> Iterator[Heard]:
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always", UserWarning)
        yield Heard(warned, caplog)


def let_pydicom_warn(length: int) -> None:
    validate_value("SH", "A" * length, pydicom.config.WARN)


class TestNoWordOfPydicom:
    @pytest.mark.parametrize("multiframe", [False, True])
    def test_pydicom_is_quiet_on_reading_long_values(self, tmp_path: Path, heard: Heard, multiframe: bool) -> None:
        made = [write_multiframe(tmp_path / "a.dcm", IMAGE)] if multiframe else write_series(tmp_path, IMAGE)
        files = with_long_values(made)
        str(pydicom.dcmread(files[0]))
        assert heard.of_pydicom()  # it speaks, when nobody asks it not to
        heard.clear()
        (series,) = find_series(files)
        order_frames(series.files)
        DICOMReader().read(series.files)
        assert heard.of_pydicom() == []

    def test_pydicom_is_quiet_on_writing_a_seg_and_a_report(self, tmp_path: Path, heard: Heard) -> None:
        pytest.importorskip("highdicom")
        from mri_seg.dicom.seg import write_segmentation
        from mri_seg.dicom.sr import write_report
        from mri_seg.measurements.lesions import measure

        files = with_long_values(write_series(tmp_path, IMAGE))
        heard.clear()
        mask = np.zeros(IMAGE.shape, bool)
        mask[2:5, 2:5, 1] = True
        write_segmentation(tmp_path / "seg.dcm", mask, files, algorithm_version="1")
        measured = measure(mask, order_frames(files).affine)
        write_report(tmp_path / "sr.dcm", measured, tmp_path / "seg.dcm", files, algorithm_version="1")
        assert heard.of_pydicom() == []

    def test_pydicom_is_quiet_of_numbers_that_are_too_long(self, tmp_path: Path, heard: Heard) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            files = write_series(tmp_path, IMAGE)
            for file in files:
                content = file.read_bytes()
                at = content.index(b"\x18\x00\x80\x00DS")  # RepetitionTime: as many bytes as before, none a number
                file.write_bytes(content[: at + 8] + b"9x0y" + content[at + 12 :])
        heard.clear()
        find_series(files)
        DICOMReader().read(files)
        assert heard.of_pydicom() == []


class TestTheHostProcess:
    def test_host_process_is_left_as_it_was(self, tmp_path: Path) -> None:
        logger = logging.getLogger("pydicom")
        settings = vars(pydicom.config.settings).copy()
        before = list(warnings.filters), list(logger.filters), warnings.showwarning
        DICOMReader().read(with_long_values(write_series(tmp_path, IMAGE)))
        (tmp_path / "bad.dcm").write_bytes(b"nothing")
        with pytest.raises(ValueError, match="cannot be read"):
            find_series([tmp_path / "bad.dcm"])
        assert (list(warnings.filters), list(logger.filters), warnings.showwarning) == before
        assert vars(pydicom.config.settings) == settings

    def test_host_process_still_hears_pydicom_in_other_threads(self, heard: Heard) -> None:
        inside, done = threading.Event(), threading.Event()

        def read() -> None:
            with quiet_pydicom():
                let_pydicom_warn(30)
                inside.set()
                done.wait(10)

        thread = threading.Thread(target=read)
        thread.start()
        assert inside.wait(10)
        let_pydicom_warn(40)
        done.set()
        thread.join()
        assert len(heard.of_pydicom()) == 2  # a warning, and a line in the log
        assert all("length (40)" in words for words in heard.of_pydicom())

    def test_host_process_hears_other_warnings_meanwhile(self, heard: Heard) -> None:
        with quiet_pydicom():
            warnings.warn("of the host", stacklevel=1)
        assert [str(one.message) for one in heard.warned] == ["of the host"]

    def test_host_process_that_leaves_its_own_filters_meanwhile_is_no_error(self) -> None:
        before = list(warnings.filters)
        with warnings.catch_warnings():
            quiet = quiet_pydicom()
            quiet.__enter__()
        quiet.__exit__(None, None, None)
        assert list(warnings.filters) == before

    def test_host_process_may_nest_quiet_pydicom(self, heard: Heard) -> None:
        with quiet_pydicom():
            with quiet_pydicom():
                pass
            let_pydicom_warn(30)
        assert heard.of_pydicom() == []
        let_pydicom_warn(40)
        assert len(heard.of_pydicom()) == 2
