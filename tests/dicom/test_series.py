"""Series found among DICOM files, and the FLAIR series chosen."""

from __future__ import annotations

from pathlib import Path

import pytest
from dicom_series import ramp, write_multiframe, write_series
from pydicom.fileset import FileSet
from pydicom.uid import DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian, generate_uid

from mri_seg.dicom import Series, choose_flair, find_series, is_dicom

IMAGE = ramp(4, 3, 3)


def made(description: str = "", number: int = 1, **values: object) -> Series:
    """A series that needs no file."""
    defaults: dict = {
        "study_uid": "1.2",
        "uid": f"1.2.{number}",
        "patient_id": "P",
        "study_date": "20240305",
        "number": number,
        "description": description,
        "modality": "MR",
        "echo_time": None,
        "inversion_time": None,
        "image_count": 20,
        "files": (Path("study") / f"{number}.dcm",),
    }
    return Series(**(defaults | values))


class TestIsDicom:
    @pytest.mark.parametrize("name", ["a.dcm", "A.DCM", "a.dicom", "a.Ima"])
    def test_dicom_is_known_by_name(self, name: str) -> None:
        assert is_dicom(name)

    def test_dicom_is_known_by_the_mark_in_the_file(self, tmp_path: Path) -> None:
        files = write_series(tmp_path, IMAGE, names="IM{:06d}")
        assert all(is_dicom(file) for file in files)

    @pytest.mark.parametrize("content", [b"", b"DICM", b"\0" * 200, b"\0" * 128 + b"DIC"])
    def test_other_files_are_not(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "IM0").write_bytes(content)
        assert not is_dicom(tmp_path / "IM0")

    def test_folders_and_missing_files_are_not(self, tmp_path: Path) -> None:
        (tmp_path / "a.dcm").mkdir()
        assert not is_dicom(tmp_path)
        assert not is_dicom(tmp_path / "a.dcm")
        assert not is_dicom(tmp_path / "none")

    def test_directory_of_a_disc_is_not(self, tmp_path: Path) -> None:
        files = FileSet()
        files.add(write_series(tmp_path / "in", IMAGE)[0])
        files.write(tmp_path / "disc")
        assert (tmp_path / "disc" / "DICOMDIR").read_bytes()[128:132] == b"DICM"
        assert not is_dicom(tmp_path / "disc" / "DICOMDIR")


class TestFindSeries:
    def test_find_series_reads_what_a_series_is(self, tmp_path: Path) -> None:
        files = write_series(tmp_path, IMAGE, series_uid="1.2.3", study_uid="1.2", series_number=7)
        (series,) = find_series(files)
        assert series == Series(
            study_uid="1.2",
            uid="1.2.3",
            patient_id="P001",
            study_date="20240305",
            number=7,
            description="AX FLAIR",
            modality="MR",
            echo_time=120.0,
            inversion_time=2500.0,
            image_count=3,
            files=tuple(files),
            image_type=("ORIGINAL", "PRIMARY", "OTHER"),
        )

    def test_groups_by_series_whatever_the_folder(self, tmp_path: Path) -> None:
        study = generate_uid()
        first = write_series(tmp_path, IMAGE, names="a{}.dcm", study_uid=study, series_number=2, description="T1")
        second = write_series(tmp_path, IMAGE[..., :2], names="b{}.dcm", study_uid=study, series_number=10)
        third = write_series(tmp_path / "more", IMAGE, study_uid=study, series_number=1)
        found = find_series([*second, *third, *first])
        assert [(series.number, series.image_count) for series in found] == [(1, 3), (2, 3), (10, 2)]
        assert found[1].files == tuple(first)

    @pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
    def test_find_series_reads_any_encoding_of_headers(self, tmp_path: Path, syntax: str) -> None:
        (series,) = find_series(write_series(tmp_path, IMAGE, transfer_syntax=syntax))
        assert series.echo_time == 120

    def test_find_series_refuses_a_deflated_file_that_would_fill_the_memory(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("mri_seg.dicom.headers._LARGEST_DEFLATED", 100_000)
        files = write_series(tmp_path, ramp(300, 300, 1), transfer_syntax=DeflatedExplicitVRLittleEndian)
        with pytest.raises(ValueError, match=r"IM0000\.dcm: .*it inflates to more than"):
            find_series(files)

    def test_find_series_counts_frames_and_reads_functional_groups_of_an_enhanced_image(self, tmp_path: Path) -> None:
        (series,) = find_series([write_multiframe(tmp_path / "a.dcm", IMAGE, echo_time=90, inversion_time=2200)])
        assert (series.image_count, series.echo_time, series.inversion_time) == (3, 90, 2200)

    @pytest.mark.parametrize("keyword", ["ProtocolName", "SequenceName"])
    def test_description_of_a_series_falls_back(self, tmp_path: Path, keyword: str) -> None:
        (series,) = find_series(write_series(tmp_path, IMAGE, description=None, **{keyword: "ax flair"}))
        assert series.description == "ax flair"

    def test_missing_and_odd_values_are_unknown(self, tmp_path: Path) -> None:
        header = {"SeriesNumber": None, "PatientID": None, "StudyDate": "", "EchoTime": None, "InversionTime": 0}
        (series,) = find_series(write_series(tmp_path, IMAGE, **header))
        assert (series.number, series.patient_id, series.study_date) == (None, "", "")
        assert (series.echo_time, series.inversion_time) == (None, None)

    @pytest.mark.parametrize(
        "sop_class",
        ["1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.7", "1.2.840.10008.5.1.4.1.1.2"],
        ids=["segmentation", "secondary capture", "CT"],
    )
    def test_find_series_passes_over_what_is_not_an_mr_image(self, tmp_path: Path, sop_class: str) -> None:
        assert find_series(write_series(tmp_path, IMAGE, SOPClassUID=sop_class)) == []

    def test_find_series_passes_over_other_files(self, tmp_path: Path) -> None:
        (tmp_path / "notes.txt").write_text("hello", encoding="utf-8")
        assert find_series([tmp_path / "notes.txt"]) == []

    def test_find_series_names_the_file_that_cannot_be_read(self, tmp_path: Path) -> None:
        (tmp_path / "bad.dcm").write_bytes(b"nothing")
        with pytest.raises(ValueError, match=r"bad\.dcm: cannot be read as DICOM"):
            find_series([tmp_path / "bad.dcm"])

    def test_find_series_names_the_file_without_a_series(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"IM0000\.dcm: has no SeriesInstanceUID"):
            find_series(write_series(tmp_path, IMAGE, SeriesInstanceUID=None))

    @pytest.mark.parametrize("keyword", ["PatientID", "StudyInstanceUID"])
    def test_find_series_refuses_a_series_of_several_patients_or_studies(self, tmp_path: Path, keyword: str) -> None:
        files = write_series(tmp_path, IMAGE, **{keyword: lambda k: "1.7" if k < 2 else "1.8"})
        with pytest.raises(ValueError, match=rf'IM0002\.dcm: {keyword} is "1\.8", but "1\.7" in .*IM0000\.dcm'):
            find_series(files)


class TestName:
    @pytest.mark.parametrize(
        ("values", "name"),
        [
            ({"patient_id": "TCGA-CS-4941"}, "TCGA-CS-4941_20240305_3"),
            ({"patient_id": "../é b^c/"}, "é_b_c_20240305_3"),
            ({"patient_id": "患者 7"}, "患者_7_20240305_3"),
            ({"patient_id": ""}, "series_20240305_3"),
            ({"patient_id": "***", "study_date": "", "number": 2}, "series_2"),
            ({"patient_id": "con", "study_date": "", "number": None}, "con_"),
            ({"patient_id": "Lpt1.7", "study_date": "", "number": None}, "Lpt1_.7"),
            ({"patient_id": "..", "study_date": "", "number": None}, "series"),
        ],
    )
    def test_series_name_is_safe(self, values: dict, name: str) -> None:
        assert made(**({"number": 3} | values)).name == name


class TestLooksLikeFlair:
    @pytest.mark.parametrize(
        "description",
        [
            "AX FLAIR",
            "T2W_FLAIR SENSE",
            "eFLAIR_longTR",
            "t2_tirm_tra_dark-fluid",
            "t2_space_dark fluid_sag",
            "t2_spc_da-fl_sag_p2_iso",
            "Sag CUBE T2FLAIR +C",
        ],
    )
    def test_flair_is_known_by_description(self, description: str) -> None:
        assert made(description).looks_like_flair
        assert made(description, echo_time=120.0, inversion_time=2500.0).looks_like_flair

    @pytest.mark.parametrize(
        "description",
        ["AX T1 FLAIR", "T1W_FLAIR", "t2_tirm_cor", "T2 TSE", "DIR FLAIR", "ADC", "FLAIR DWI b1000", "localizer", ""],
    )
    def test_flair_is_not_known_by_other_descriptions(self, description: str) -> None:
        assert not made(description).looks_like_flair

    @pytest.mark.parametrize(
        ("echo_time", "inversion_time", "flair"),
        [
            (120.0, 2500.0, True),
            (390.0, 1650.0, True),
            (120.0, None, False),
            (None, 2500.0, False),
            (60.0, 150.0, False),
            (90.0, 150.0, False),
            (12.0, 1800.0, False),
        ],
        ids=["2D", "3D", "T2", "no echo time", "STIR", "long STIR", "perfusion"],
    )
    def test_flair_is_known_by_timing(self, echo_time: float | None, inversion_time: float | None, flair: bool) -> None:
        assert made("AX", echo_time=echo_time, inversion_time=inversion_time).looks_like_flair is flair

    def test_flair_is_not_known_with_the_timing_of_t1(self) -> None:
        assert not made("AX FLAIR", echo_time=10.0, inversion_time=900.0).looks_like_flair

    def test_flair_is_not_known_when_values_are_of_a_map(self) -> None:
        assert not made("FLAIR", image_type=("DERIVED", "PRIMARY", "ADC")).looks_like_flair


class TestDoubts:
    @pytest.mark.parametrize(
        "series",
        [
            made("AX FLAIR", echo_time=120.0, inversion_time=2500.0),
            made("AX FLAIR", echo_time=120.0),
            made("t2_tirm", echo_time=120.0, inversion_time=2500.0),
            made("AX T2", echo_time=120.0, inversion_time=2500.0),
        ],
    )
    def test_no_doubts_of_flair(self, series: Series) -> None:
        assert series.doubts == []

    @pytest.mark.parametrize(
        ("series", "names"),
        [
            (made("AX FLAIR"), ["no_echo_time"]),
            (made("T2", echo_time=90.0), ["named_other_contrast", "timing_not_flair"]),
            (made("AX FLAIR", echo_time=10.0), ["timing_not_flair"]),
            (made("AX T1", echo_time=120.0, inversion_time=2500.0), ["named_other_contrast"]),
            (made("FLAIR", image_type=("DERIVED", "PRIMARY", "SUBTRACTION")), ["not_flair_values"]),
        ],
    )
    def test_name_the_reason_and_the_series(self, series: Series, names: list[str]) -> None:
        assert [name for name, _ in series.doubts] == names
        assert all(str(series) in message for _, message in series.doubts)


class TestChooseFlair:
    def test_choose_flair_takes_the_one_that_looks_like_it(self) -> None:
        series = [made("T1", 1), made("AX FLAIR", 2), made("DWI", 3)]
        assert choose_flair(series) is series[1]

    def test_choose_flair_takes_a_single_series_whatever_it_is(self) -> None:
        series = made("unknown")
        assert choose_flair([series]) is series

    def test_choose_flair_takes_the_one_asked_for(self) -> None:
        series = [made("AX FLAIR", 1), made("COR FLAIR", 2)]
        assert choose_flair(series, series_uid="1.2.2") is series[1]
        assert choose_flair(series, series_description="ax fl") is series[0]

    @pytest.mark.parametrize("wish", ["FLAIR", "flair", " Flair "])
    @pytest.mark.parametrize("longer", ["FLAIR_ND", "FLAIR", "sag FLAIR"])
    def test_choose_flair_takes_the_one_whose_description_is_the_text_asked_for(self, wish: str, longer: str) -> None:
        series = [made(longer if longer != "FLAIR" else "FLAIR ND", 1), made("FLAIR", 2)]
        assert choose_flair(series, series_description=wish) is series[1]

    @pytest.mark.parametrize("description", ["FLAIR (FA 150)", "FLAIR FA=90", "FLAIR Sub", "sub-01 FLAIR", "EPI FLAIR"])
    def test_choose_flair_takes_flair_whose_description_holds_a_word_that_may_mean_a_map(
        self, description: str
    ) -> None:
        series = [made("AX T1", 1), made(description, 2), made("T2", 3)]
        assert choose_flair(series) is series[1]

    def test_choose_flair_takes_plain_flair_before_what_may_be_a_map_of_it(self) -> None:
        series = [made("FLAIR Sub", 1), made("FLAIR", 2), made("FLAIR FA", 3)]
        assert choose_flair(series) is series[1]

    @pytest.mark.parametrize(
        ("series", "wish", "message"),
        [
            ([made("T1", 1), made("T2", 2)], {}, "expected one series for FLAIR, none fits"),
            ([made("AX FLAIR", 1), made("COR FLAIR", 2)], {}, "expected one series for FLAIR, 2 of 2 series fit"),
            ([made("FLAIR", 1)], {"series_uid": "1.9"}, 'expected one series for series_uid "1.9", none fits'),
            (
                [made("AX FLAIR", 1), made("FLAIR 2", 2)],
                {"series_description": "flair"},
                'expected one series for series_description "flair", 2 of 2 series fit',
            ),
        ],
    )
    def test_choose_flair_lists_the_series_when_not_one_fits(
        self, series: list[Series], wish: dict, message: str
    ) -> None:
        with pytest.raises(ValueError, match="Choose one with series_uid, or with series_description") as caught:
            choose_flair(series, **wish)
        assert message in str(caught.value)
        for one in series:
            assert str(one) in str(caught.value)

    def test_choose_flair_refuses_nothing(self) -> None:
        with pytest.raises(ValueError, match="no MR image"):
            choose_flair([])


def test_files_cut_short_after_the_header_are_listed(tmp_path: Path) -> None:
    files = write_series(tmp_path, ramp(64, 64, 1))
    files[0].write_bytes(files[0].read_bytes()[:-8000])
    assert find_series(files)[0].image_count == 1
