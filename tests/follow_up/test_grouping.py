"""Cases are grouped by patient and ordered by time, whatever says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_series import write_series

from mri_seg.follow_up.dated_cases import DatedCase
from mri_seg.follow_up.grouping import Patient, group_cases
from mri_seg.io.cases import find_cases
from mri_seg.utils.case_flags import case_flags


def cases_of(folder: Path, *names: str) -> list[dict[str, Any]]:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return [{"case": f"case{n}", "image": [str(folder / name)], "source": "volume"} for n, name in enumerate(names)]


def grouped(folder: Path, *names: str, **options: Any) -> list[Patient]:
    return group_cases(cases_of(folder, *names), [folder], **options)


def files_of(patient: Patient) -> list[str]:
    return [Path(case.file).name for case in patient.cases]


def days_of(patient: Patient) -> list[str]:
    return [str(case.date) for case in patient.cases]


def csv_of(folder: Path, text: str | bytes) -> Path:
    file = folder / "times.csv"
    file.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))
    return file


def flags_of(case: DatedCase) -> list[str]:
    return [flag["name"] for flag in case_flags(case.case)]


class TestNames:
    @pytest.mark.parametrize(
        "names",
        [
            ("P1_20210301_FLAIR.nii.gz", "P1_2019-02-01_FLAIR.nii.gz"),
            ("P1/2021-03-01/flair.nii.gz", "P1/2019-02-01/flair.nii.gz"),
            ("P1/P1_2021_03_01.nii.gz", "P1/P1_2019_02_01.nii.gz"),
        ],
    )
    def test_dates_in_names_order_the_scans_of_a_patient(self, tmp_path: Path, names: tuple[str, ...]) -> None:
        (patient,) = grouped(tmp_path, *names)
        assert patient.name == "P1"
        assert days_of(patient) == ["2019-02-01", "2021-03-01"]

    def test_patients_are_kept_apart(self, tmp_path: Path) -> None:
        names = ("2020-01-01/A7.nii.gz", "2020-01-01/B7.nii.gz", "2021-01-01/A7.nii.gz", "2021-01-01/B7.nii.gz")
        assert [(p.name, days_of(p)) for p in grouped(tmp_path, *names)] == [
            ("A7", ["2020-01-01", "2021-01-01"]),
            ("B7", ["2020-01-01", "2021-01-01"]),
        ]

    def test_same_file_names_in_folders_of_patients_are_different_people(self, tmp_path: Path) -> None:
        found = grouped(tmp_path, "anna/scan1.nii.gz", "anna/scan2.nii.gz", "bert/scan1.nii.gz", "bert/scan2.nii.gz")
        assert [(p.name, files_of(p)) for p in found] == [
            ("anna", ["scan1.nii.gz", "scan2.nii.gz"]),
            ("bert", ["scan1.nii.gz", "scan2.nii.gz"]),
        ]

    def test_numbers_of_patients_are_no_visits(self, tmp_path: Path) -> None:
        assert [p.name for p in grouped(tmp_path, "patient_1.nii.gz", "patient_2.nii.gz")] == ["patient_1", "patient_2"]

    def test_visits_without_dates_are_in_the_order_of_their_numbers(self, tmp_path: Path) -> None:
        (patient,) = grouped(tmp_path, "P1_scan10.nii.gz", "P1_scan9.nii.gz")
        assert files_of(patient) == ["P1_scan9.nii.gz", "P1_scan10.nii.gz"]
        assert days_of(patient) == ["None", "None"]

    def test_date_may_have_the_time_of_day(self, tmp_path: Path) -> None:
        (patient,) = grouped(tmp_path, "P1_20190301120000.nii.gz", "P1_20200301T090000.nii.gz")
        assert (patient.name, days_of(patient)) == ("P1", ["2019-03-01", "2020-03-01"])

    def test_date_with_dots_has_the_day_first(self, tmp_path: Path) -> None:
        (patient,) = grouped(tmp_path, "P1_01.03.2019.nii.gz", "P1_2.3.2018.nii.gz")
        assert (patient.name, days_of(patient)) == ("P1", ["2018-03-02", "2019-03-01"])

    @pytest.mark.parametrize("names", [("1/FLAIR.nii.gz", "2/FLAIR.nii.gz"), ("exam_17.nii.gz", "exam_18.nii.gz")])
    def test_numbered_folders_and_exams_are_different_people(self, tmp_path: Path, names: tuple[str, str]) -> None:
        assert len(grouped(tmp_path, *(f"hospital/{name}" for name in names))) == 2

    def test_impossible_date_is_part_of_the_name(self, tmp_path: Path) -> None:
        (patient,) = grouped(tmp_path, "P20210231.nii.gz")
        assert days_of(patient) == ["None"]

    def test_two_dates_in_a_name_are_an_error_of_that_case(self, tmp_path: Path) -> None:
        (patient,) = grouped(tmp_path, "2020-01-01/P1_2021-01-01.nii.gz")
        assert "has two dates" in patient.cases[0].case["error"]

    def test_file_with_two_dates_is_not_followed_and_says_why(self, tmp_path: Path) -> None:
        (patient,) = grouped(tmp_path, "P1_2021-01-01_2020-01-01.nii.gz")
        assert "has two dates, expected one" in patient.error

    def test_patients_whose_names_give_the_same_folder_get_folders_of_their_own(self, tmp_path: Path) -> None:
        text = "patient,date,file\nA/1,2020-01-01,a.nii.gz\nA:1,2020-01-01,b.nii.gz\na_1,2020-01-01,c.nii.gz\n"
        found = grouped(tmp_path, "a.nii.gz", "b.nii.gz", "c.nii.gz", timeline=csv_of(tmp_path, text))
        assert len({patient.name.lower() for patient in found}) == 3
        assert sorted(files_of(patient)[0] for patient in found) == ["a.nii.gz", "b.nii.gz", "c.nii.gz"]

    def test_scan_without_date_beside_dated_ones_is_an_error_that_names_it(self, tmp_path: Path) -> None:
        (patient,) = grouped(tmp_path, "P1_2020-01-01.nii.gz", "P1.nii.gz")
        assert "P1.nii.gz: has no date" in patient.error


class TestBIDS:
    NAMES = ("sub-1/ses-b/anat/sub-1_ses-b_FLAIR.nii.gz", "sub-1/ses-a/anat/sub-1_ses-a_FLAIR.nii.gz")

    def test_sessions_table_has_the_dates(self, tmp_path: Path) -> None:
        cases = cases_of(tmp_path, *self.NAMES)
        table = "session_id\tacq_time\nses-a\t2021-05-01T10:00:00\nses-b\t2020-05-01\n"
        (tmp_path / "sub-1" / "sub-1_sessions.tsv").write_text(table)
        (patient,) = group_cases(cases, [tmp_path])
        assert patient.name == "sub-1"
        assert days_of(patient) == ["2020-05-01", "2021-05-01"]
        assert files_of(patient)[0] == "sub-1_ses-b_FLAIR.nii.gz"

    def test_sessions_without_dates_are_in_the_order_of_their_labels(self, tmp_path: Path) -> None:
        (patient,) = grouped(tmp_path, *self.NAMES)
        assert files_of(patient) == ["sub-1_ses-a_FLAIR.nii.gz", "sub-1_ses-b_FLAIR.nii.gz"]

    def test_tables_that_contradict_each_other_are_flagged(self, tmp_path: Path) -> None:
        cases = cases_of(tmp_path, *self.NAMES)
        (tmp_path / "sub-1" / "sub-1_sessions.tsv").write_text(
            "session_id\tacq_time\nses-a\t2020-01-01\nses-b\t2021-01-01\n"
        )
        (tmp_path / "sub-1" / "ses-b" / "sub-1_ses-b_scans.tsv").write_text(
            "filename\tacq_time\nanat/sub-1_ses-b_FLAIR.nii.gz\t2019-01-01T08:00:00\n"
        )
        (patient,) = group_cases(cases, [tmp_path])
        assert days_of(patient) == ["2020-01-01", "2021-01-01"]
        assert [flags_of(case) for case in patient.cases] == [[], ["dates_contradict"]]

    @pytest.mark.parametrize("label", ["ses-a", "a"])
    def test_label_of_a_session_may_lack_its_prefix(self, tmp_path: Path, label: str) -> None:
        cases = cases_of(tmp_path, self.NAMES[1])
        (tmp_path / "sub-1" / "sub-1_sessions.tsv").write_text(f"session_id\tacq_time\n{label}\t2020-01-01\n")
        assert days_of(group_cases(cases, [tmp_path])[0]) == ["2020-01-01"]

    @pytest.mark.parametrize(
        ("table", "said"),
        [
            (b"session_id\tacq_time\nses-a\t01.01.2020\n", "line 2: acq_time is 01.01.2020, expected YYYY-MM-DD"),
            (b"session_id\tacq_time\tnote\nses-a\t2020-01-01\tl\xe9sion\n", "cannot be read as a table in UTF-8"),
        ],
    )
    def test_table_that_cannot_be_read_is_an_error_of_the_patient_that_names_it(
        self, tmp_path: Path, table: bytes, said: str
    ) -> None:
        cases = cases_of(tmp_path, *self.NAMES)
        (tmp_path / "sub-1" / "sub-1_sessions.tsv").write_bytes(table)
        (patient,) = group_cases(cases, [tmp_path])
        assert f"{tmp_path / 'sub-1' / 'sub-1_sessions.tsv'}" in patient.error
        assert said in patient.error

    def test_table_without_dates_is_named_in_a_warning(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        cases = cases_of(tmp_path, *self.NAMES)
        (tmp_path / "sub-1" / "sub-1_sessions.tsv").write_text("session_id\tdate\nses-a\t2020-01-01\n")
        assert days_of(group_cases(cases, [tmp_path])[0]) == ["None", "None"]
        assert "sub-1_sessions.tsv: has no column acq_time" in caplog.text

    def test_equal_subjects_of_two_data_sets_are_different_people(self, tmp_path: Path) -> None:
        cases = cases_of(tmp_path, *(f"{site}/{self.NAMES[0]}" for site in ("bern", "paris")))
        for site in ("bern", "paris"):
            (tmp_path / site / "dataset_description.json").write_text("{}")
        names = [patient.name for patient in group_cases(cases, [tmp_path / "bern", tmp_path / "paris"])]
        assert names == ["bern_sub-1", "paris_sub-1"]

    def test_two_runs_of_a_session_without_date_are_flagged(self, tmp_path: Path) -> None:
        names = [f"sub-1/ses-a/anat/sub-1_ses-a_run-{n}_FLAIR.nii.gz" for n in (1, 2)]
        (patient,) = grouped(tmp_path, *names)
        assert [flags_of(case) for case in patient.cases] == [[], ["same_study"]]


class TestDICOM:
    VOLUME = np.ones((8, 6, 3), dtype=np.uint16)

    def group(self, folder: Path, **header: Any) -> list[Patient]:
        for name, day in (("b", "20210101"), ("a", "20190101")):
            own = {key: value[name] if isinstance(value, dict) else value for key, value in header.items()}
            own = {"StudyDate": day, "AcquisitionDate": None, "SeriesDate": None, **own}
            write_series(folder / name, self.VOLUME, **own)
        return group_cases(find_cases(folder), [folder])

    def test_patient_id_and_study_date_group_and_order(self, tmp_path: Path) -> None:
        (patient,) = self.group(tmp_path)
        assert (patient.name, patient.error) == ("P001", "")
        assert days_of(patient) == ["2019-01-01", "2021-01-01"]

    @pytest.mark.parametrize("keyword", ["AcquisitionDate", "AcquisitionDateTime", "SeriesDate"])
    def test_date_of_the_scan_alone_orders_the_studies(self, tmp_path: Path, keyword: str) -> None:
        time = "101500.000" if keyword.endswith("Time") else ""
        values = {"a": f"20190203{time}", "b": f"20200405{time}"}
        (patient,) = self.group(tmp_path, **{"StudyDate": "", "ContentDate": None, keyword: values})
        assert days_of(patient) == ["2019-02-03", "2020-04-05"]

    def test_scans_without_patient_id_are_flagged_and_not_compared(self, tmp_path: Path) -> None:
        found = self.group(tmp_path, PatientID="")
        assert [len(patient.cases) for patient in found] == [1, 1]
        assert [flags_of(patient.cases[0]) for patient in found] == [["no_patient_id"]] * 2

    @pytest.mark.parametrize(
        ("keyword", "values", "said"),
        [
            ("PatientSex", {"a": "M", "b": "F"}, "sex"),
            ("PatientBirthDate", {"a": "19600101", "b": "19700101"}, "birth date"),
        ],
    )
    def test_one_patient_id_of_two_people_is_an_error(
        self, tmp_path: Path, keyword: str, values: dict, said: str
    ) -> None:
        (patient,) = self.group(tmp_path, **{keyword: values})
        assert f"another {said}" in patient.error
        assert str(tmp_path / "a") in patient.error
        assert str(tmp_path / "b") in patient.error

    def test_dates_that_contradict_are_flagged(self, tmp_path: Path) -> None:
        (patient,) = self.group(tmp_path, AcquisitionDate="20150101")
        assert days_of(patient) == ["2019-01-01", "2021-01-01"]
        assert [flags_of(case) for case in patient.cases] == [["dates_contradict"]] * 2

    def test_user_who_names_the_patient_gets_a_flag_for_another_sex_and_no_error(self, tmp_path: Path) -> None:
        self.group(tmp_path, PatientSex={"a": "M", "b": "F"})
        table = csv_of(tmp_path, "patient,file\nX,a\nX,b\n")
        (patient,) = group_cases(find_cases(tmp_path), [tmp_path], timeline=table)
        assert patient.error == ""
        assert days_of(patient) == ["2019-01-01", "2021-01-01"]  # from the headers, since the table has no date
        assert [flags_of(case) for case in patient.cases] == [[], ["person_contradicts"]]

    def test_date_of_the_user_settles_what_headers_contradict(self, tmp_path: Path) -> None:
        self.group(tmp_path, AcquisitionDate="20150101")
        table = csv_of(tmp_path, "patient,date,file\nX,2018-01-01,a\nX,2020-01-01,b\n")
        (patient,) = group_cases(find_cases(tmp_path), [tmp_path], timeline=table)
        assert days_of(patient) == ["2018-01-01", "2020-01-01"]
        assert [flags_of(case) for case in patient.cases] == [[], []]


class TestTimelineFile:
    def test_file_says_patient_date_and_event(self, tmp_path: Path) -> None:
        text = "patient,date,file,event\nX,2021-01-01,b.nii.gz,\nX,2020-01-01,a.nii.gz,\nX,2020-06-01,,surgery\n"
        (patient,) = grouped(tmp_path, "a.nii.gz", "b.nii.gz", timeline=csv_of(tmp_path, text))
        assert (patient.name, files_of(patient)) == ("X", ["a.nii.gz", "b.nii.gz"])
        assert [case.event for case in patient.cases] == ["", "surgery"]

    def test_cases_that_are_not_named_are_left_out(self, tmp_path: Path) -> None:
        (patient,) = grouped(tmp_path, "a.nii.gz", "b.nii.gz", timeline=csv_of(tmp_path, "patient,file\nX,a.nii.gz\n"))
        assert files_of(patient) == ["a.nii.gz"]

    def test_cases_that_are_not_named_are_told(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        grouped(tmp_path, "a.nii.gz", "b.nii.gz", timeline=csv_of(tmp_path, "patient,file\nX,a.nii.gz\n"))
        assert f"does not name {tmp_path / 'b.nii.gz'}, which will not be followed" in caplog.text

    def test_file_of_events_alone_leaves_patients_and_dates_to_the_names(self, tmp_path: Path) -> None:
        table = csv_of(tmp_path, "patient,date,event\nP1,2020-03-01,surgery\nP1,2020-04-01,radiotherapy\n")
        names = ("P1_2020-01-01.nii.gz", "P1_2020-06-01.nii.gz", "P2_2020-06-01.nii.gz")
        one, other = grouped(tmp_path, *names, timeline=table)
        assert [case.event for case in one.cases] == ["", "surgery; radiotherapy"]
        assert [case.event for case in other.cases] == [""]

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("name,file\nX,a.nii.gz\n", "has no column patient; it has name, file"),
            ("patient,file,date\nX,a.nii.gz,1.2.2020\n", "line 2: 1.2.2020 is no date"),
            ("patient,file\nX,c.nii.gz\n", "line 2: c.nii.gz is no case"),
            ("patient,file\nX,a.nii.gz\nY,a.nii.gz\n", "line 3: a.nii.gz is named in line 2 too"),
            ("patient,file\n,a.nii.gz\n", "line 2: has no patient"),
            ("patient,file,date,event\nX,,,surgery\n", "line 2: has no file, so it needs a date"),
            ("patient,file,date,event\nX,a.nii.gz,2020-01-01,\nX,,2021-01-01,surgery\n", "is after all its scans"),
            ("patient,date,event\nY,2020-01-01,surgery\n", "line 2: there is no patient Y; found: a"),
            ("patient,date\nX,2020-01-01\n", "has no column file; it has patient, date"),
            ("patient,file\nM\u00fcller,a.nii.gz\n".encode("latin-1"), "cannot be read as a CSV file in UTF-8"),
            ("patient,file\n", "has no row, expected one for each scan or event"),
            ("", "has no column patient and file; it is empty"),
            ("patient,file,date\nX,a.nii.gz,20200101\n", "line 2: 20200101 is no date"),
            ("patient,date,event\na,2020-01-01,surgery\n", "has no place, as its scans have no dates"),
        ],
    )
    def test_wrong_file_is_an_error_that_names_the_line(self, tmp_path: Path, text: str | bytes, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            grouped(tmp_path, "a.nii.gz", timeline=csv_of(tmp_path, text))

    @pytest.mark.parametrize("separator", [";", "\t"])
    def test_other_separators_of_spreadsheets_are_read(self, tmp_path: Path, separator: str) -> None:
        text = "patient,date,file\nX,2020-01-01,a.nii.gz\n".replace(",", separator)
        (patient,) = grouped(tmp_path, "a.nii.gz", timeline=csv_of(tmp_path, text))
        assert (patient.name, days_of(patient)) == ("X", ["2020-01-01"])

    @pytest.mark.parametrize("text", ["-", "no", "None", "n/a"])
    def test_word_for_nothing_is_no_event(self, tmp_path: Path, text: str) -> None:
        table = csv_of(tmp_path, f"patient,date,file,event\nX,2020-01-01,a.nii.gz,{text}\n")
        (patient,) = grouped(tmp_path, "a.nii.gz", timeline=table)
        assert patient.cases[0].event == ""

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("patient,file,evnt\nX,a.nii.gz,surgery\n", "has columns that are not used: evnt"),
            ("patient,file\nAnna,a.nii.gz\nanna,b.nii.gz\n", "Anna and anna are different patients"),
        ],
    )
    def test_likely_mistakes_are_told(
        self, tmp_path: Path, text: str, said: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        grouped(tmp_path, "a.nii.gz", "b.nii.gz", timeline=csv_of(tmp_path, text))
        assert said in caplog.text

    def test_missing_file_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"none\.csv: no such file"):
            grouped(tmp_path, "a.nii.gz", timeline=tmp_path / "none.csv")
