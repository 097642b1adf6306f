"""Which outputs are written, what becomes of results that are there, and of cases that fail."""

from __future__ import annotations

import importlib.util
import json
import os
import re
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from monai.data import MetaTensor
from PIL import Image
from written_cases import NIFTI, SHAPE, TIFF, item, names, source, table, write

import mri_seg
from mri_seg.inference import outputs
from mri_seg.inference.case_dataset import CaseDataset
from mri_seg.inference.writer import CaseWriter
from mri_seg.utils.case_flags import add_flag
from mri_seg.utils.files import sha256
from mri_seg.visualize.overlays import REFERENCE

pytestmark = pytest.mark.usefixtures("inputs")


class TestOutputs:
    def test_outputs_of_nifti_by_default(self, tmp_path: Path) -> None:
        write(CaseWriter(tmp_path), NIFTI)
        expected = ["a.html", "a_mask.nii.gz", "a_measurements.json", "a_provenance.json", "a_sheet.png"]
        assert names(tmp_path) == [
            *(f"a/{name}" for name in expected),
            "measurements.csv",
            "summary.csv",
            "summary.json",
        ]

    def test_outputs_of_tiff_by_default_hold_a_mask_a_slice(self, tmp_path: Path) -> None:
        write(CaseWriter(tmp_path), TIFF)
        assert {"a/x_10_mask.TIFF", "a/x_2_mask.tif", "a/x_9_mask.tif"} < set(names(tmp_path))

    def test_outputs_with_a_reference_hold_a_panel(self, tmp_path: Path) -> None:
        write(CaseWriter(tmp_path), {**NIFTI, "label": ["in/head_mask.nii.gz"]})
        sheet, panel = (np.asarray(Image.open(tmp_path / "a" / f"a_{kind}.png")) for kind in ("sheet", "panel"))
        assert (sheet[18:] == np.array(REFERENCE)).all(-1).any()
        assert panel.size

    @pytest.mark.parametrize("chosen", ["mask, measurements", ("mask", "measurements"), ["measurements", "mask"]])
    def test_outputs_may_be_chosen(self, tmp_path: Path, chosen: object) -> None:
        write(CaseWriter(tmp_path, outputs=chosen), TIFF)
        assert names(tmp_path / "a") == ["a_mask.nii.gz", "a_measurements.json", "a_provenance.json"]

    def test_outputs_may_be_added_to_the_default(self, tmp_path: Path) -> None:
        write(CaseWriter(tmp_path, outputs="auto,probability"), NIFTI)
        assert "a_probability.nii.gz" in names(tmp_path / "a")
        assert len(names(tmp_path / "a")) == 6

    @pytest.mark.parametrize("chosen", ["masks", "mask,nothing", ""])
    def test_outputs_that_are_not_known_are_refused_with_those_that_are(self, tmp_path: Path, chosen: str) -> None:
        with pytest.raises(ValueError, match="expected one or more of auto, mask, probability"):
            CaseWriter(tmp_path, outputs=chosen)

    def test_outputs_for_dicom_name_the_extra_where_it_is_missing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        with pytest.raises(ImportError, match=r'highdicom.*pip install "mri_seg\[dicom\]"'):
            CaseWriter(tmp_path, outputs="seg")
        assert "seg" not in CaseWriter(tmp_path).missing(source(["a.dcm"], "dicom"))

    @pytest.mark.parametrize(("case", "told"), [(NIFTI, False), (source(["in/c.dcm"], "dicom"), True)])
    def test_missing_extra_is_told_if_there_is_a_series_that_needs_it(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
        case: dict[str, Any],
        told: bool,
    ) -> None:
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        caplog.set_level("INFO")
        CaseWriter(tmp_path).remaining([case])
        assert ("DICOM series get no DICOM SEG" in caplog.text) == told

    def test_outputs_that_do_not_fit_a_case_are_left_out(self, tmp_path: Path) -> None:
        pytest.importorskip("highdicom", reason="needs the extra `dicom`")
        writer = CaseWriter(tmp_path, outputs="mask,seg,sr,slices,panel")
        assert writer.missing(NIFTI) == ["mask"]
        assert writer.missing(TIFF) == ["mask", "slices"]
        assert writer.missing(source(["a.dcm"], "dicom")) == ["mask", "seg", "sr"]


class TestExistingResults:
    def test_existing_results_are_kept(self, tmp_path: Path) -> None:
        write(CaseWriter(tmp_path), NIFTI)
        (tmp_path / "a" / "a_mask.nii.gz").write_bytes(b"mine")
        writer = CaseWriter(tmp_path)
        assert writer.remaining([NIFTI]) == []
        writer.finish()
        assert (tmp_path / "a" / "a_mask.nii.gz").read_bytes() == b"mine"
        row = table(tmp_path / "summary.csv")["a"]
        assert (row["status"], row["lesion_count"]) == ("kept", "1")

    def test_existing_results_are_added_to(self, tmp_path: Path) -> None:
        write(CaseWriter(tmp_path), NIFTI)
        (tmp_path / "a" / "a_mask.nii.gz").write_bytes(b"mine")
        (tmp_path / "a" / "a.html").unlink()
        write(CaseWriter(tmp_path, outputs="auto,probability"), NIFTI)
        assert (tmp_path / "a" / "a_mask.nii.gz").read_bytes() == b"mine"
        assert {"a_probability.nii.gz", "a.html"} < set(names(tmp_path / "a"))

    @pytest.mark.parametrize("overwrite", [True, "true"])
    def test_existing_results_are_written_anew_when_asked(self, tmp_path: Path, overwrite: object) -> None:
        write(CaseWriter(tmp_path), NIFTI)
        (tmp_path / "a" / "a_mask.nii.gz").write_bytes(b"mine")
        write(CaseWriter(tmp_path, overwrite=overwrite), NIFTI)
        assert nib.load(tmp_path / "a" / "a_mask.nii.gz").shape == SHAPE

    def test_results_of_other_cases_stay_in_the_tables(self, tmp_path: Path) -> None:
        write(CaseWriter(tmp_path), NIFTI)
        write(CaseWriter(tmp_path), source(["b.nii"], "volume", "b"))
        for name in ("summary.csv", "measurements.csv"):
            assert list(table(tmp_path / name)) == ["a", "b"]

    def test_writing_results_leaves_nothing_half_written(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(*args: object) -> None:
            raise OSError("No space left on device")

        monkeypatch.setattr(nib, "save", broken)
        write(CaseWriter(tmp_path, outputs="mask"), NIFTI)
        assert names(tmp_path) == ["a/a_provenance.json", "summary.csv", "summary.json"]


class TestResultsOfOtherRuns:
    """Results that this run would not give are never taken for its own."""

    @pytest.fixture
    def weights(self, inputs: Path) -> Path:
        file = inputs / "model.pt"
        file.write_bytes(b"weights")
        return file

    @staticmethod
    def writer(folder: Path, weights: Path, **change: object) -> CaseWriter:
        options = {"threshold": 0.5, "flip": True} | change.pop("options", {})
        return CaseWriter(folder, **{"checkpoint": weights, "options": options} | change)

    def refuses(self, writer: CaseWriter, match: str, cases: tuple = (NIFTI,)) -> None:
        before = {file: file.read_bytes() for file in writer.output_dir.rglob("*") if file.is_file()}
        with pytest.raises(ValueError, match=match) as error:
            writer.remaining(list(cases))
        assert "--overwrite true" in str(error.value)
        assert "another --output_dir" in str(error.value)
        assert before == {file: file.read_bytes() for file in writer.output_dir.rglob("*") if file.is_file()}

    def test_results_of_the_same_settings_are_kept(self, tmp_path: Path, weights: Path) -> None:
        write(self.writer(tmp_path, weights), NIFTI)
        moved = weights.rename(weights.with_name("moved.pt"))
        assert self.writer(tmp_path, moved).remaining([NIFTI]) == []

    def test_results_of_other_weights_are_refused(self, tmp_path: Path, weights: Path) -> None:
        write(self.writer(tmp_path, weights), NIFTI)
        weights.write_bytes(b"WEIGHTS")
        self.refuses(self.writer(tmp_path, weights), "checkpoint_sha256 was 9a129038d9a0, is 14422b042349")

    @pytest.mark.parametrize(
        ("change", "told"),
        [
            ({"options": {"threshold": 0.4}}, "threshold was 0.5, is 0.4"),
            ({"options": {"flip": False}}, "flip was true, is false"),
            ({"options": {"check_image": True}}, "check_image was null, is true"),
            ({"ensemble": ["in/c.nii"]}, r"ensemble_sha256 was \[\], is \[\w{12}\]"),
        ],
    )
    def test_results_of_other_options_are_refused(self, tmp_path: Path, weights: Path, change: dict, told: str) -> None:
        write(self.writer(tmp_path, weights), NIFTI)
        self.refuses(self.writer(tmp_path, weights, **change), told)

    def test_results_of_another_version_are_refused(
        self, tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write(self.writer(tmp_path, weights), NIFTI)
        monkeypatch.setattr(mri_seg, "__version__", "99.0")
        self.refuses(self.writer(tmp_path, weights), 'mri_seg_version was ".*", is "99.0"')

    def test_results_of_8_bit_weights_that_were_made_anew_are_refused(self, tmp_path: Path, weights: Path) -> None:
        quantized = {"options": {"runtime": "openvino-int8"}}
        weights.with_suffix(".int8.bin").write_bytes(b"1")
        write(self.writer(tmp_path, weights, **quantized), NIFTI)
        weights.with_suffix(".int8.bin").write_bytes(b"2")
        self.refuses(self.writer(tmp_path, weights, **quantized), "int8_sha256 was")

    def test_results_without_a_record_are_refused(self, tmp_path: Path, weights: Path) -> None:
        write(self.writer(tmp_path, weights), NIFTI)
        (tmp_path / "a" / "a_provenance.json").unlink()
        self.refuses(self.writer(tmp_path, weights), "no provenance record")

    def test_results_of_other_outputs_are_refused_as_well(self, tmp_path: Path, weights: Path) -> None:
        write(self.writer(tmp_path, weights, outputs="sheet"), NIFTI)
        self.refuses(self.writer(tmp_path, weights, outputs="mask", options={"threshold": 0.4}), "threshold")

    def test_results_of_cases_that_are_not_part_of_this_run_are_refused_in_one_table(
        self, tmp_path: Path, weights: Path
    ) -> None:
        write(self.writer(tmp_path, weights), NIFTI)
        other = source(["b.nii"], "volume", "b")
        self.refuses(self.writer(tmp_path, weights, options={"threshold": 0.4}), "threshold was 0.5", (other,))
        assert self.writer(tmp_path, weights).remaining([other]) == [other]

    def test_results_of_another_input_fail_and_leave_the_others(
        self, tmp_path: Path, weights: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        other = source(["b.nii"], "volume", "b")
        for case in (NIFTI, other):
            write(self.writer(tmp_path, weights), case)
        Path("b.nii").write_bytes(b"another image")
        writer = self.writer(tmp_path, weights)
        assert writer.remaining([NIFTI, other]) == []
        with pytest.raises(SystemExit):
            writer.finish()
        rows = table(tmp_path / "summary.csv")
        assert {case: row["status"] for case, row in rows.items()} == {"a": "kept", "b": "failed"}
        assert re.search(r"input was .*b\.nii \(1 file, SHA-256 .*--overwrite true", rows["b"]["error"])
        assert list(table(tmp_path / "measurements.csv")) == ["a"]

    def test_results_of_another_reference_fail(self, tmp_path: Path, weights: Path) -> None:
        case = {**NIFTI, "label": ["in/head_mask.nii.gz"]}
        write(self.writer(tmp_path, weights), case)
        Path("in/head_mask.nii.gz").write_bytes(b"corrected")
        writer = self.writer(tmp_path, weights)
        assert writer.remaining([case]) == []
        assert "reference was" in writer.rows["a"]["error"]

    def test_results_of_moved_and_touched_files_are_kept(self, tmp_path: Path, weights: Path, inputs: Path) -> None:
        write(self.writer(tmp_path, weights), TIFF)
        moved = (inputs / "in").rename(inputs / "elsewhere")
        for file in moved.iterdir():
            os.utime(file, (1, 1))
        case = {**TIFF, "image": [name.replace("in/", "elsewhere/") for name in TIFF["image"]]}
        writer = self.writer(tmp_path, weights)
        assert writer.remaining([case]) == []
        assert writer.rows["a"]["status"] == "kept"

    def test_results_of_slices_in_another_order_fail(self, tmp_path: Path, weights: Path) -> None:
        write(self.writer(tmp_path, weights), TIFF)
        writer = self.writer(tmp_path, weights)
        writer.remaining([{**TIFF, "image": TIFF["image"][::-1]}])
        assert writer.rows["a"]["status"] == "failed"

    def test_results_of_voxels_beside_their_header_fail(self, tmp_path: Path, weights: Path) -> None:
        Path("in/h.mhd").write_text("NDims = 3\nElementDataFile = h.raw\n")
        Path("in/h.raw").write_bytes(b"1")
        case = source(["in/h.mhd"], "volume")
        write(self.writer(tmp_path, weights), case)
        Path("in/h.raw").write_bytes(b"2")
        writer = self.writer(tmp_path, weights)
        writer.remaining([case])
        assert writer.rows["a"]["status"] == "failed"

    def test_results_of_other_runs_are_replaced_when_asked_and_nothing_of_them_stays(
        self, tmp_path: Path, weights: Path
    ) -> None:
        write(self.writer(tmp_path, weights, outputs="auto,probability,slices"), TIFF)
        (tmp_path / "a" / "notes.txt").write_text("mine")
        change = {"options": {"threshold": 0.4}, "overwrite": True, "outputs": "mask"}
        write(self.writer(tmp_path, weights, **change), TIFF)
        assert names(tmp_path / "a") == ["a_mask.nii.gz", "a_provenance.json", "notes.txt"]
        assert self.writer(tmp_path, weights, options={"threshold": 0.4}, outputs="mask").remaining([TIFF]) == []

    def test_results_of_other_runs_stay_beside_replaced_ones_with_a_warning(
        self, tmp_path: Path, weights: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        write(self.writer(tmp_path, weights), source(["b.nii"], "volume", "b"))
        write(self.writer(tmp_path, weights, options={"threshold": 0.4}, overwrite=True), NIFTI)
        assert "of b): threshold was 0.5, is 0.4" in caplog.text

    def test_results_that_were_stopped_midway_are_completed(
        self, tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(outputs, "contact_sheet", lambda *args, **kwargs: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                write(self.writer(tmp_path, weights), NIFTI)
        assert "a_mask.nii.gz" in names(tmp_path / "a")
        assert "a_sheet.png" not in names(tmp_path / "a")
        self.refuses(self.writer(tmp_path, weights, options={"threshold": 0.4}), "threshold")
        write(self.writer(tmp_path, weights), NIFTI)
        assert "a_sheet.png" in names(tmp_path / "a")

    def test_results_are_not_mixed_by_a_loader_of_its_own(self, tmp_path: Path, weights: Path) -> None:
        write(self.writer(tmp_path, weights), NIFTI)
        writer = self.writer(tmp_path, weights, options={"threshold": 0.4}, outputs="mask,probability")
        found = item(NIFTI["image"])  # handed over without asking what is to be done
        writer.write({}, found)
        assert writer.rows["a"]["status"] == "failed"
        assert "a_probability.nii.gz" not in names(tmp_path / "a")


class TestWhatWasSegmented:
    """Every output says of what it is, what made it, and what to know of it."""

    def case(self, **more: object) -> dict:
        case = {**NIFTI, "source": "volume", "series_uid": "1.2.3", "series_description": "AX T1", **more}
        add_flag(case, "timing_not_flair", "By its timing this is not FLAIR.")
        return case

    def found(self) -> dict[str, MetaTensor]:
        found = item(NIFTI["image"])
        add_flag(found["flair"].meta, "few_values", "it has few values.")
        add_flag(found["flair"].meta, "timing_not_flair", "By its timing this is not FLAIR.")
        found["image"] = found["flair"].clone()
        found["image"].meta = dict(found["flair"].meta)
        add_flag(found["image"].meta, "coronal", "It is <coronal>.")
        return found

    @pytest.fixture
    def folder(self, tmp_path: Path, inputs: Path) -> Path:
        for name in ("model.pt", "other.pt"):
            (inputs / name).write_bytes(name.encode())
        write(CaseWriter(tmp_path, checkpoint="model.pt", ensemble=["other.pt"]), self.case(), self.found())
        return tmp_path

    def test_what_was_segmented_is_in_the_tables(self, folder: Path, inputs: Path) -> None:
        for name in ("summary.csv", "measurements.csv"):
            row = table(folder / name)["a"]
            assert row["input"] == str(inputs / "in" / "head.nii.gz")
            assert (row["series_uid"], row["series_description"]) == ("1.2.3", "AX T1")
            assert row["flags"] == "timing_not_flair;few_values;coronal"
            assert row["warnings"] == "By its timing this is not FLAIR. It has few values. It is <coronal>."
            assert row["checkpoint_sha256"] == sha256("model.pt")
            assert row["ensemble_sha256"] == sha256("other.pt")
            assert row["mri_seg_version"] == mri_seg.__version__

    def test_what_was_segmented_is_in_json(self, folder: Path, inputs: Path) -> None:
        for name in ("measurements", "provenance"):
            found = json.loads((folder / "a" / f"a_{name}.json").read_text())
            assert found["series_uid"] == "1.2.3"
            assert found["flags"][1] == {"name": "few_values", "message": "It has few values."}
            assert found["checkpoint_sha256"] == sha256("model.pt")
            assert found["ensemble_sha256"] == [sha256("other.pt")]
            assert found["mri_seg_version"] == mri_seg.__version__

    def test_what_was_segmented_is_on_the_page(self, folder: Path, inputs: Path) -> None:
        page = (folder / "a" / "a.html").read_text(encoding="utf-8")
        flags, _, rest = page.partition("Tumour: ")
        assert flags.count("<li>") == 3
        assert "It is &lt;coronal&gt;." in flags
        footer = rest.partition("<footer>")[2]
        for text in (str(inputs / "in" / "head.nii.gz"), "AX T1", "1.2.3", sha256("model.pt"), mri_seg.__version__):
            assert text in footer

    def test_what_was_segmented_stays_with_results_that_are_kept(self, folder: Path) -> None:
        before = table(folder / "summary.csv")["a"]
        writer = CaseWriter(folder, checkpoint="model.pt", ensemble=["other.pt"])
        assert writer.remaining([self.case()]) == []
        writer.finish()
        assert table(folder / "summary.csv")["a"] == {**before, "status": "kept"}

    def test_what_was_segmented_is_said_of_failed_cases(self, tmp_path: Path) -> None:
        CaseWriter(tmp_path).remaining([self.case(error="cannot be read")])
        row = table(tmp_path / "summary.csv")["a"]
        assert row["flags"] == "timing_not_flair"
        assert row["input"].endswith("head.nii.gz")

    def test_input_of_several_files_is_their_folder(self, tmp_path: Path, inputs: Path) -> None:
        write(CaseWriter(tmp_path, outputs="mask"), TIFF)
        assert table(tmp_path / "summary.csv")["a"]["input"] == str(inputs / "in")

    def test_results_without_flags_say_nothing_of_them(self, tmp_path: Path) -> None:
        write(CaseWriter(tmp_path), NIFTI)
        assert "Please check" not in (tmp_path / "a" / "a.html").read_text(encoding="utf-8")
        assert table(tmp_path / "summary.csv")["a"]["warnings"] == ""


class TestIndex:
    """The page that leads to all cases."""

    def index(self, folder: Path) -> str:
        return (folder / "index.html").read_text(encoding="utf-8")

    def test_index_leads_to_the_page_of_each_case(self, tmp_path: Path) -> None:
        writer = CaseWriter(tmp_path)
        write(writer, NIFTI)
        write(writer, source(["a&b.nii"], "volume", "a&b<i> #1"))
        writer.finish()
        index = self.index(tmp_path)
        assert '<a href="a/a.html">a</a>' in index
        assert '<a href="a%26b%3Ci%3E%20%231/a%26b%3Ci%3E%20%231.html">a&amp;b&lt;i&gt; #1</a>' in index
        assert index.count('<img src="data:image/webp;base64,') == 2

    def test_index_shows_failed_cases_with_their_reason_and_without_a_link(self, tmp_path: Path) -> None:
        writer = CaseWriter(tmp_path)
        write(writer, NIFTI)
        writer.remaining([source(["in/x.dcm"], "dicom", "study", error="has no <FLAIR>")])
        with pytest.raises(SystemExit):
            writer.finish()
        assert "has no &lt;FLAIR&gt;" in self.index(tmp_path)
        assert "study.html" not in self.index(tmp_path)

    def test_index_of_a_second_run_counts_all_cases_of_the_summary(self, tmp_path: Path) -> None:
        for names_of_run in (["a", "b"], ["b", "c"]):
            writer = CaseWriter(tmp_path)
            for name in names_of_run:
                write(writer, source([f"{name}.nii" if name != "a" else "in/head.nii.gz"], "volume", name))
            writer.finish()
        assert sorted(table(tmp_path / "summary.csv")) == ["a", "b", "c"]
        assert "3 cases:" in self.index(tmp_path)
        for name in "abc":
            assert f'href="{name}/{name}.html"' in self.index(tmp_path)

    def test_index_is_not_written_without_pages_but_kept_up_to_date(self, tmp_path: Path) -> None:
        writer = CaseWriter(tmp_path / "masks", outputs="mask")
        write(writer, NIFTI)
        writer.finish()
        assert "index.html" not in names(tmp_path / "masks")
        for name, chosen in (("a", "page"), ("b", "mask")):
            writer = CaseWriter(tmp_path / "both", outputs=chosen)
            write(writer, source(["in/head.nii.gz"], "volume", name))
            writer.finish()
        assert "2 cases:" in self.index(tmp_path / "both")

    def test_index_of_somebody_else_is_kept(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        (tmp_path / "index.html").write_text("<h1>Mine</h1>")
        writer = CaseWriter(tmp_path)
        write(writer, NIFTI)
        writer.finish()
        assert self.index(tmp_path) == "<h1>Mine</h1>"
        assert "is not of this program and is kept" in caplog.text


class TestFailures:
    def test_failures_leave_the_others_and_are_in_the_summary(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def read(case: dict) -> dict:
            if case["case"] == "bad":
                raise ValueError("in/bad.nii: cannot be read.\nCopy it again.")
            return {"read": case["case"]}

        writer = CaseWriter(tmp_path)
        cases = [
            NIFTI,
            source(["in/bad.nii"], "volume", "bad"),
            source(["in/x.dcm"], "dicom", "study", error="no FLAIR"),
            source(["in/c.nii"], "volume", "c"),
        ]
        assert list(CaseDataset(cases, read, writer)) == [{"read": "a"}, {"read": "c"}]
        with pytest.raises(SystemExit) as status:
            writer.finish()
        assert status.value.code == 1
        assert "failed: 4." in capsys.readouterr().out
        summary = table(tmp_path / "summary.csv")
        assert summary["bad"]["error"] == "in/bad.nii: cannot be read. Copy it again."
        assert summary["study"]["error"] == "no FLAIR"
        assert summary["a"]["error"].startswith("not reached")  # read, and never written
        assert {row["status"] for row in summary.values()} == {"failed"}

    def test_failures_in_writing_leave_the_others(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(*args: object, **kwargs: object) -> None:
            raise ValueError("cannot be measured")

        monkeypatch.setattr("mri_seg.inference.writer._WAIT_FACTOR", 0)  # write the tables after every case
        writer = CaseWriter(tmp_path)
        with monkeypatch.context() as patch:
            patch.setattr(outputs, "measure", broken)
            write(writer, NIFTI)
        write(writer, source(["b.nii"], "volume", "b"))
        summary = table(tmp_path / "summary.csv")
        assert summary["a"]["status"] == "failed"
        assert "measurements: cannot be measured" in summary["a"]["error"]
        assert "a/a_mask.nii.gz" in names(tmp_path)
        assert summary["b"]["status"] == "done"

    def test_failures_are_tried_again(self, tmp_path: Path) -> None:
        CaseWriter(tmp_path).failed("a", "was away")
        writer = CaseWriter(tmp_path)
        write(writer, NIFTI)
        writer.finish()
        assert table(tmp_path / "summary.csv")["a"]["error"] == ""

    def test_failures_do_not_matter_where_there_are_none(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        writer = CaseWriter(tmp_path)
        write(writer, NIFTI)
        writer.finish()
        assert "Cases segmented: 1, kept as they were: 0, failed: 0." in capsys.readouterr().out


class TestStrict:
    """A case with a flag of a check fails if the checks are strict."""

    def flagged(self, name: str) -> dict:
        found = item(NIFTI["image"])
        add_flag(found["pred"].meta, name, "something was seen. Look at it.")
        return found

    def test_flag_of_a_check_is_a_warning_by_default(self, tmp_path: Path) -> None:
        write(CaseWriter(tmp_path), NIFTI, self.flagged("lesion_doubtful"))
        row = table(tmp_path / "summary.csv")["a"]
        assert (row["status"], row["flags"]) == ("done", "lesion_doubtful")
        assert "Something was seen" in (tmp_path / "a" / "a.html").read_text(encoding="utf-8")

    @pytest.mark.parametrize("strict", [True, "true"])
    def test_flag_of_a_check_makes_the_case_fail_without_results(self, tmp_path: Path, strict: bool | str) -> None:
        write(CaseWriter(tmp_path, strict=strict), NIFTI, self.flagged("not_flair"))
        row = table(tmp_path / "summary.csv")["a"]
        assert row["status"] == "failed"
        assert "Something was seen" in row["error"]
        assert "--strict" in row["error"]
        assert [name for name in names(tmp_path) if name.startswith("a/")] == []

    def test_other_flags_stay_warnings(self, tmp_path: Path) -> None:
        write(CaseWriter(tmp_path, strict=True), NIFTI, self.flagged("few_values"))
        assert table(tmp_path / "summary.csv")["a"]["status"] == "done"

    def test_results_that_are_there_fail_as_well(self, tmp_path: Path) -> None:
        write(CaseWriter(tmp_path), NIFTI, self.flagged("head_cut"))
        again = CaseWriter(tmp_path, strict=True)
        assert again.remaining([NIFTI]) == []
        assert again.rows["a"]["status"] == "failed"
