"""The report is one whole file that needs nothing else, says what was found, and names what is missing."""

from __future__ import annotations

import json
import logging
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from evaluated import SHAPE, make_case, make_cases, write_evaluation
from ignite.engine import Engine
from torch.utils.tensorboard import SummaryWriter

from mri_seg.report import ReportWriter, document, load_case, write_report
from mri_seg.report.__main__ import main


class Page(HTMLParser):
    """The parts of a page that tests ask for."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.source = file.read_text(encoding="utf-8")
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(self.source)
        self.text = " ".join(" ".join(self.texts).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] not in ("script", "style"):
            self.texts.append(data)

    def ids(self) -> list[str]:
        return [attributes["id"] for _, attributes in self.tags if attributes.get("id")]

    def links(self) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == "a"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_evaluation(tmp_path_factory.mktemp("evaluation"))


@pytest.fixture(scope="module")
def page(folder: Path) -> Page:
    return Page(write_report(folder))


class TestReport:
    def test_report_lies_in_the_folder_of_the_evaluation(self, folder: Path, page: Page) -> None:
        assert (folder / "report.html").is_file()
        assert not list(folder.glob(".part-*"))

    def test_report_asks_nothing_from_outside(self, page: Page) -> None:
        for tag, attributes in page.tags:
            for name in ("src", "href", "xlink:href", "srcset", "data", "poster", "action"):
                value = attributes.get(name) or ""
                assert not value or value.startswith(("data:image/png", "#")), (tag, name, value[:80])
        assert "@import" not in page.source
        assert not re.search(r"url\((?!#|[\"']?data:)", page.source)

    def test_policy_of_the_report_forbids_the_rest(self, page: Page) -> None:
        policy = next(a["content"] for t, a in page.tags if t == "meta" and "http-equiv" in a)
        assert "default-src 'none'" in policy
        assert "script-src 'sha256-" in policy

    def test_report_has_the_sections_in_order(self, page: Page) -> None:
        sections = [attributes["id"] for tag, attributes in page.tags if tag == "section"]
        assert sections == ["summary", "distributions", "errors", "gallery", "patients"]

    def test_report_has_no_id_twice_and_no_link_to_nowhere(self, page: Page) -> None:
        ids = page.ids()
        assert sorted(ids) == sorted(set(ids))
        assert {link["href"][1:] for link in page.links()} <= set(ids)

    def test_report_has_both_protocols_beside_the_published_figures(self, folder: Path, page: Page) -> None:
        metrics = json.loads((folder / "metrics.json").read_text())
        for protocol, score, mean in (("slice", "precision", "mean"), ("patient", "dice", "median")):
            assert f"{metrics[f'{protocol}_protocol'][score][mean]:.3f} [" in page.text
        for figure in ("0.7424", "0.8401", "0.8339", "15 test patients"):
            assert figure in page.text

    def test_report_says_what_was_evaluated(self, page: Page) -> None:
        for words in ("validation", "published", "data/shapes", "bundle/models/model.pt", "0123456789abcdef", "0.5"):
            assert words in page.text

    def test_every_patient_has_a_viewer_and_links_to_it(self, page: Page) -> None:
        viewers = {a["data-case"]: a["id"] for _, a in page.tags if "viewer" in (a.get("class") or "").split()}
        assert list(sorted(viewers)) == [case.case for case in make_cases()]
        assert {f"#{viewer}" for viewer in viewers.values()} <= {link["href"] for link in page.links()}

    def test_gallery_holds_best_median_worst_and_the_largest_false_lesion(self, page: Page) -> None:
        for words in (
            "Best patient: TCGA_CS_0001_20000101",
            "Worst patient: TCGA_DU_0004_20000101",
            "Median patient, largest false lesion: TCGA_DU_0003_20000101",
        ):
            assert words in page.text

    def test_the_largest_false_lesion_is_open(self, page: Page) -> None:
        article = next(a for t, a in page.tags if t == "article" and a["data-case"] == "TCGA_DU_0003_20000101")
        assert article["data-slice"] == "6"

    def test_errors_add_up_to_all_false_pixels(self, page: Page) -> None:
        false = sum(int((case.label ^ case.pred).sum()) for case in make_cases())
        assert f"{false:,}" in page.text

    def test_same_input_same_file(self, folder: Path, page: Page, tmp_path: Path) -> None:
        assert write_report(folder, tmp_path / "again.html").read_text(encoding="utf-8") == page.source

    def test_names_cannot_break_out_of_the_report(self, tmp_path: Path) -> None:
        case = make_case("<!--<script>&<b>", 1)
        page = Page(write_report(write_evaluation(tmp_path, [case], section="</title><u>mine</u>")))
        assert not {"u", "b"} & {tag for tag, _ in page.tags}
        assert page.source.count("<script") == 3  # one viewer, the settings, the script
        assert "<!--" not in page.source

    def test_report_is_written_without_tumour_anywhere(self, tmp_path: Path) -> None:
        nothing = np.zeros(SHAPE, bool)
        case = make_case("EMPTY", 1, label=nothing, pred=nothing)
        assert "No separate false lesion" in Page(write_report(write_evaluation(tmp_path, [case]))).text

    def test_report_says_how_empty_masks_count_in_distances(self, tmp_path: Path) -> None:
        nothing = np.zeros(SHAPE, bool)
        missed, empty = make_case("MISSED", 1, pred=nothing), make_case("EMPTY", 1, label=nothing, pred=nothing)
        text = Page(write_report(write_evaluation(tmp_path, [make_case("FOUND", 1), missed, empty]))).text
        assert "2 patients. In 1 of them exactly one mask is empty: the Hausdorff distance is then the diagonal" in text
        assert "1 with both masks empty left out" in text
        assert "adjacent slices count as 1 apart" in text

    def test_report_is_written_of_an_evaluation_that_did_not_count_empty_masks(self, tmp_path: Path) -> None:
        file = write_evaluation(tmp_path, [make_case("A", 1)]) / "metrics.json"
        metrics = json.loads(file.read_text())
        for key in ("hd95_pixel", "surface_dice_pixel"):
            for name in ("one_mask_empty", "both_masks_empty"):
                del metrics["patient_protocol"][key][name]
        file.write_text(json.dumps(metrics))
        assert "mask empty" not in Page(write_report(tmp_path)).text


class TestGroups:
    def test_groups_are_those_of_the_table(self, tmp_path: Path) -> None:
        page = Page(write_report(write_evaluation(tmp_path)))
        assert "CS: 2 patients" in page.source
        assert "DU: 3 patients" in page.source

    def test_tables_of_earlier_versions_have_none(self, tmp_path: Path) -> None:
        file = write_evaluation(tmp_path) / "patients.csv"
        file.write_text("".join(f"{line.rpartition(',')[0]}\n" for line in file.read_text().splitlines()))
        assert "group" not in file.read_text()
        assert "all: 5 patients" in Page(write_report(tmp_path)).source


class TestReading:
    def test_every_case_is_read_once(self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        read = []
        monkeypatch.setattr(document, "load_case", lambda path: (read.append(path.stem), load_case(path))[1])
        write_report(folder, tmp_path / "report.html")
        assert read == [case.case for case in make_cases()]


class TestLearningCurves:
    @pytest.mark.parametrize("place", ["run/evaluation", "evaluation"])
    def test_learning_curves_are_of_the_run_around_the_evaluation_or_at_its_checkpoint(
        self, place: str, tmp_path: Path
    ) -> None:
        with SummaryWriter(tmp_path / "run") as writer:
            for epoch in (1, 2, 3):
                writer.add_scalar("validation/patient_dice", epoch / 4, epoch)
        checkpoint = str(tmp_path / "run" / "model.pt")
        write_evaluation(tmp_path / place, [make_case("A", 1)], checkpoint=checkpoint)
        assert "Learning curves" in Page(write_report(tmp_path / place)).text

    def test_report_has_no_learning_curves_without_a_run(self, page: Page) -> None:
        assert "Learning curves" not in page.text


class TestComparison:
    def test_comparison_has_differences_and_links_to_slices(self, folder: Path, tmp_path: Path) -> None:
        better = [replace(case, pred=case.label) for case in make_cases()]
        other = write_evaluation(tmp_path / "better", better, threshold=0.7)
        page = Page(write_report(folder, tmp_path / "report.html", other=other))
        assert "compare" in page.ids()
        assert "0 better, 4 worse, 1 equal" in page.text
        assert "Probability threshold 0.5 0.7" in page.text
        assert any(link.get("data-slice") == "6" for link in page.links())

    def test_comparison_of_other_patients_is_an_error(self, folder: Path, tmp_path: Path) -> None:
        other = write_evaluation(tmp_path / "other", [make_case("SOMEONE", 1)])
        with pytest.raises(ValueError, match="share no patient"):
            write_report(folder, tmp_path / "report.html", other=other)


class TestFindingTheFolder:
    def test_folder_of_the_report_is_found_in_a_run(self, tmp_path: Path) -> None:
        write_evaluation(tmp_path / "run" / "evaluation")
        assert write_report(tmp_path / "run") == tmp_path / "run" / "evaluation" / "report.html"

    def test_several_in_a_run_are_listed(self, tmp_path: Path) -> None:
        for name in ("one", "two"):
            write_evaluation(tmp_path / name, [make_case("A", 1)])
        with pytest.raises(ValueError, match=r"2 evaluations: .*one, .*two"):
            write_report(tmp_path)

    def test_folder_that_is_missing_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match="not a folder"):
            write_report(tmp_path / "missing")

    @pytest.mark.parametrize("name", ["metrics.json", "patients.csv", "slices.csv"])
    def test_a_missing_file_is_named_and_how_to_make_it(self, name: str, tmp_path: Path) -> None:
        (write_evaluation(tmp_path, [make_case("A", 1)]) / name).unlink()
        with pytest.raises(FileNotFoundError, match=rf"{name} is missing.*mri-seg evaluate DATASET"):
            write_report(tmp_path)

    def test_a_missing_case_is_named(self, tmp_path: Path) -> None:
        (write_evaluation(tmp_path, [make_case("A", 1)]) / "cases" / "A.npz").unlink()
        with pytest.raises(FileNotFoundError, match=r"A\.npz is missing.*--report true"):
            write_report(tmp_path)

    def test_a_damaged_table_is_named_with_its_line(self, tmp_path: Path) -> None:
        file = write_evaluation(tmp_path, [make_case("A", 1)]) / "slices.csv"
        file.write_text(file.read_text().replace("A,2,", "A,two,"))
        with pytest.raises(ValueError, match=r"slices\.csv, line 3"):
            write_report(tmp_path)

    def test_files_of_different_evaluations(self, tmp_path: Path) -> None:
        file = write_evaluation(tmp_path, [make_case("A", 1)]) / "slices.csv"
        file.write_text("".join(file.read_text().splitlines(keepends=True)[:-1]))
        with pytest.raises(ValueError, match=r"5 slices of A, but patients.csv says 6"):
            write_report(tmp_path)

    def test_metrics_of_something_else(self, tmp_path: Path) -> None:
        (write_evaluation(tmp_path, [make_case("A", 1)]) / "metrics.json").write_text("{}")
        with pytest.raises(ValueError, match="has no 'slice_protocol'"):
            write_report(tmp_path)


class TestSize:
    def test_report_keeps_to_the_limit_and_says_whose_viewer_is_left_out(self, folder: Path, tmp_path: Path) -> None:
        whole = write_report(folder, tmp_path / "whole.html").stat().st_size
        small = write_report(folder, tmp_path / "small.html", largest_megabytes=(whole - 1000) / 1e6)
        assert small.stat().st_size <= whole - 1000
        page = Page(small)
        assert "viewers of 1 of 5 patients are left out" in page.text
        # Of the two patients outside the gallery, the one with fewer false pixels.
        assert re.search(r"keep this file small: TCGA_CS_0002_20000101\.", page.text)
        assert {link["href"][1:] for link in page.links()} <= set(page.ids())
        assert page.source.count("left out to keep this file small") == 1

    def test_pictures_stay_when_no_viewer_fits(
        self, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.WARNING):
            page = Page(write_report(folder, tmp_path / "small.html", largest_megabytes=0.01))
        assert "more than the limit of 0.01 MB" in caplog.text
        assert "viewers of 5 of 5 patients" in page.text
        assert sum(tag == "img" for tag, _ in page.tags) == 3


class TestWhole:
    def test_a_failure_leaves_the_old_file(self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        file = tmp_path / "report.html"
        file.write_text("old")

        def fail(*_: object) -> None:
            raise OSError("disk full")

        monkeypatch.setattr(Path, "write_bytes", fail)
        with pytest.raises(OSError, match="disk full"):
            write_report(folder, file)
        assert file.read_text() == "old"
        assert list(tmp_path.iterdir()) == [file]

    def test_a_folder_is_no_output(self, folder: Path, tmp_path: Path) -> None:
        with pytest.raises(IsADirectoryError, match="Name the HTML file"):
            write_report(folder, tmp_path)


class TestCommand:
    def test_report_command_writes_and_says_where(
        self, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
    ) -> None:
        file = tmp_path / "report.html"
        assert main([str(folder), "--output", str(file), "--compare", str(folder)]) == 0
        assert file.is_file()
        assert str(file) in capsys.readouterr().out

    def test_an_error_is_one_line_and_status_2(self, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
        assert main([str(tmp_path)]) == 1
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert error.startswith("python -m mri_seg.report: ")


class TestReportWriter:
    def run(self, writer: ReportWriter, caplog: pytest.LogCaptureFixture) -> None:
        engine = Engine(lambda *_: None)
        writer.attach(engine)
        with caplog.at_level(logging.INFO):
            engine.logger.setLevel(logging.INFO)
            engine.run([0])

    def test_report_writer_writes_when_complete(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        write_evaluation(tmp_path, [make_case("A", 1)])
        self.run(ReportWriter(tmp_path), caplog)
        assert (tmp_path / "report.html").is_file()
        assert str(tmp_path / "report.html") in caplog.text

    @pytest.mark.parametrize("enabled", [False, "false"])
    def test_report_writer_can_be_switched_off(
        self, enabled: bool | str, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        self.run(ReportWriter(tmp_path, enabled), caplog)
        assert not list(tmp_path.iterdir())
