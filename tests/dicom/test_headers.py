"""Headers read in part, files without a preamble, and what is kept of files."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_series import AXIAL, ramp, write_multiframe, write_series
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from mri_seg.dicom import find_series, is_dicom, order_frames
from mri_seg.dicom.headers import FileCache, read_header
from mri_seg.dicom.reader import DICOMReader
from mri_seg.io.cases import find_cases

IMAGE = ramp(8, 6, 4)


def without_preamble(file: Path, *, keep_meta: bool = False, keep_preamble: bool = False) -> Path:
    """Cut the preamble and its mark, and the file meta information, off a file."""
    content = file.read_bytes()
    meta_length = 12 + int.from_bytes(content[140:144], "little")
    begin = content[:132] if keep_preamble else b""
    file.write_bytes(begin + content[132 if keep_meta else 132 + meta_length :])
    return file


def end_by_delimiters(data: Dataset) -> None:
    """Give all sequences and their items an unknown length."""
    for element in data:
        if element.VR == "SQ":
            element.is_undefined_length = True
            for item in element.value:
                item.is_undefined_length_sequence_item = True
                end_by_delimiters(item)


class TestFilesWithoutPreamble:
    @pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian])
    @pytest.mark.parametrize("names", ["IM{}", "IM{}.dcm"])
    def test_files_without_preamble_are_read_whatever_their_encoding_and_name(
        self, tmp_path: Path, syntax: str, names: str
    ) -> None:
        files = write_series(tmp_path, IMAGE, transfer_syntax=syntax, names=names)
        for file in files:
            without_preamble(file)
        (case,) = find_cases(tmp_path)
        reader = DICOMReader()
        volume, meta = reader.get_data(reader.read(case["image"]))
        np.testing.assert_array_equal(volume, IMAGE)
        np.testing.assert_allclose(meta["affine"], AXIAL)

    def test_files_without_preamble_but_with_file_meta_are_read_compressed_or_not(self, tmp_path: Path) -> None:
        for syntax in (ExplicitVRLittleEndian, RLELossless, DeflatedExplicitVRLittleEndian):
            files = write_series(tmp_path / syntax, IMAGE, transfer_syntax=syntax, names="IM{}")
            for file in files:
                assert is_dicom(without_preamble(file, keep_meta=True))
            reader = DICOMReader()
            np.testing.assert_array_equal(reader.get_data(reader.read(tmp_path / syntax))[0], IMAGE)

    def test_files_without_preamble_or_with_a_preamble_and_no_file_meta_are_read(self, tmp_path: Path) -> None:
        files = [without_preamble(file, keep_preamble=True) for file in write_series(tmp_path, IMAGE)]
        reader = DICOMReader()
        np.testing.assert_array_equal(reader.get_data(reader.read(files))[0], IMAGE)

    def test_files_without_preamble_of_frames_are_read(self, tmp_path: Path) -> None:
        file = without_preamble(write_multiframe(tmp_path / "IM0", IMAGE))
        (series,) = find_series([file])
        assert (series.image_count, series.echo_time) == (4, 120)
        reader = DICOMReader()
        np.testing.assert_array_equal(reader.get_data(reader.read(file))[0], IMAGE)

    def test_files_without_preamble_of_ct_are_dicom_but_no_series(self, tmp_path: Path) -> None:
        files = write_series(tmp_path, IMAGE, names="IM{}", SOPClassUID="1.2.840.10008.5.1.4.1.1.2")
        assert is_dicom(without_preamble(files[0]))
        assert find_series(files[:1]) == []

    def test_files_without_preamble_whose_compression_is_not_named_are_refused(self, tmp_path: Path) -> None:
        (file,) = write_series(tmp_path, IMAGE[..., :1], transfer_syntax=RLELossless, names="IM{}")
        with pytest.raises(ValueError, match=r"IM0: pixels are stored as unknown"):
            DICOMReader().read(without_preamble(file))

    def test_files_without_preamble_give_a_seg(self, tmp_path: Path) -> None:
        pytest.importorskip("highdicom")
        from mri_seg.dicom.seg import read_segmentation, write_segmentation

        files = [without_preamble(file) for file in write_series(tmp_path, IMAGE, names="IM{}")]
        mask = IMAGE > 100
        write_segmentation(tmp_path / "seg.dcm", mask, files, algorithm_version="1")
        np.testing.assert_array_equal(read_segmentation(tmp_path / "seg.dcm", files), mask)

    @pytest.mark.parametrize(
        "content",
        [
            b"\x08\0\x16\0UI\x1a\0" + b"1.2.840.10008.1.1".ljust(26, b"\0"),  # a SOP class that stores nothing
            b"\x08\0\x16\0UI\x1a\0" + b"1.2.3.4.5.6.7.8.9.10.11.12",
            b"\x08\0\x05\0CS\x0a\0ISO_IR 100",
            b"\x02\0" + bytes(300),
            b"\x08\0" * 3000,
            b"\0\x08" + b"some table of numbers " * 200,
            b"8, 16, 24\n" * 500,
        ],
        ids=["verification", "unknown class", "no class", "zeros", "eights", "words", "text"],
    )
    def test_files_without_preamble_that_only_begin_like_dicom_are_not(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "IM0").write_bytes(content)
        assert not is_dicom(tmp_path / "IM0")


class TestFilesThatAreNotWhatTheirNameSays:
    def test_files_misnamed_dicom_make_one_row_a_folder(self, tmp_path: Path) -> None:
        write_series(tmp_path / "good", IMAGE)
        for folder, count in (("a", 5), ("b", 1)):
            (tmp_path / folder).mkdir()
            for number in range(count):
                (tmp_path / folder / f"{number}.dcm").write_bytes(b"\x01" * (300 + number))
        errors = [case["error"] for case in find_cases(tmp_path) if "error" in case]
        assert len(errors) == 2
        (several,) = [error for error in errors if "4 more files" in error]
        assert str(tmp_path / "a" / "0.dcm") in several
        assert "cannot be read as DICOM" in several

    def test_files_misnamed_dicom_of_several_kinds_make_a_row_each(self, tmp_path: Path) -> None:
        files = write_series(tmp_path, IMAGE[..., :2], SeriesInstanceUID=None)
        (tmp_path / "x.dcm").write_bytes(b"nothing")
        errors = sorted(case["error"] for case in find_cases(tmp_path))
        assert len(errors) == 2
        assert f"{files[0]}: has no SeriesInstanceUID" in errors[0]
        assert errors[0].endswith(f"1 more files in {tmp_path} have the same error.")


class TestHeadersReadInPart:
    @pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian])
    @pytest.mark.parametrize("delimited", [False, True])
    def test_headers_read_in_part_hold_the_groups_of_the_first_frame(
        self, tmp_path: Path, syntax: str, delimited: bool
    ) -> None:
        data = pydicom.dcmread(write_multiframe(tmp_path / "a.dcm", IMAGE, transfer_syntax=syntax))
        shared = data.SharedFunctionalGroupsSequence[0]
        for number, groups in enumerate(data.PerFrameFunctionalGroupsSequence):
            groups.MREchoSequence = [Dataset()]
            groups.MREchoSequence[0].EffectiveEchoTime = 90.0 + number
        del shared.MREchoSequence
        if delimited:
            end_by_delimiters(data)
        data.save_as(tmp_path / "a.dcm")
        (series,) = find_series([tmp_path / "a.dcm"])
        assert (series.echo_time, series.inversion_time, series.image_count) == (90, 2500, 4)
        np.testing.assert_allclose(order_frames([tmp_path / "a.dcm"]).affine, AXIAL)

    def test_headers_read_in_part_do_not_hold_those_of_other_frames(self, tmp_path: Path) -> None:
        file = write_multiframe(tmp_path / "a.dcm", IMAGE)
        tags = ["NumberOfFrames", "PerFrameFunctionalGroupsSequence"]
        assert len(read_header(file, tags, first_frame=True).PerFrameFunctionalGroupsSequence) == 1
        assert len(read_header(file, tags).PerFrameFunctionalGroupsSequence) == 4

    @pytest.mark.parametrize("empty", [False, True])
    def test_headers_read_in_part_need_no_groups(self, tmp_path: Path, empty: bool) -> None:
        value = [] if empty else None
        file = write_multiframe(tmp_path / "a.dcm", IMAGE, PerFrameFunctionalGroupsSequence=value)
        assert find_series([file])[0].image_count == 4


class TestFileCache:
    def test_file_cache_gives_what_was_made_while_the_files_stay(self, tmp_path: Path) -> None:
        file = tmp_path / "a"
        file.write_bytes(b"one")
        cache: FileCache[bytes] = FileCache(2)
        assert cache.get([file], file.read_bytes) == b"one"
        assert cache.get([file], lambda: b"not asked") == b"one"
        file.write_bytes(b"other")
        assert cache.get([file], file.read_bytes) == b"other"

    def test_file_cache_keeps_a_few(self, tmp_path: Path) -> None:
        cache: FileCache[int] = FileCache(2)
        files = [tmp_path / str(number) for number in range(50)]
        for number, file in enumerate(files):
            file.touch()
            cache.put([file], number)
        assert len(cache) == 2
        assert cache.get(files[-1:], lambda: -1) == 49
        assert cache.get(files[:1], lambda: -1) == -1

    def test_file_cache_keeps_nothing_of_missing_files(self, tmp_path: Path) -> None:
        cache: FileCache[int] = FileCache(2)
        assert cache.get([tmp_path / "none"], lambda: 1) == 1
        assert cache.get([tmp_path / "none"], lambda: 2) == 2

    def test_file_cache_serves_threads(self, tmp_path: Path) -> None:
        cache: FileCache[str] = FileCache(3)
        files = [tmp_path / str(number) for number in range(8)]
        for file in files:
            file.touch()
        wrong: list[str] = []

        def use() -> None:
            for _ in range(200):
                for file in files:
                    if (found := cache.get([file], lambda file=file: file.name)) != file.name:
                        wrong.append(found)

        threads = [threading.Thread(target=use) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []
        assert len(cache) <= 3


class TestGridsThatAreKept:
    def test_kept_grids_are_not_read_again(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        files = write_series(tmp_path, IMAGE)
        DICOMReader().read(files)

        def fail(*_: object, **__: object) -> None:
            raise AssertionError("read again")

        monkeypatch.setattr("mri_seg.dicom.geometry.read_header", fail)
        assert order_frames([str(file) for file in files]).shape == (8, 6, 4)

    def test_kept_grids_of_files_that_changed_are_read_again(self, tmp_path: Path) -> None:
        files = write_series(tmp_path, IMAGE)
        assert order_frames(files).affine[2, 3] == -40
        for file in files:
            data = pydicom.dcmread(file)
            data.ImagePositionPatient[2] += 100
            data.save_as(file)
        assert order_frames(files).affine[2, 3] == 60

    def test_kept_grids_of_files_that_are_gone_are_not_given(self, tmp_path: Path) -> None:
        files = write_series(tmp_path / "in", IMAGE)
        order_frames(files)
        shutil.rmtree(tmp_path / "in")
        with pytest.raises(FileNotFoundError, match=r"IM0000\.dcm: no such file"):
            order_frames(files)

    def test_kept_grids_cannot_be_changed(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="read-only"):
            order_frames(write_series(tmp_path, IMAGE)).affine[0, 0] = 7
