"""Following by the command and by MONAI's own command line, from another folder, with a small network."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import nibabel
import pytest
from bundle_weights import small_weights
from command_line import SMALL as SMALL_OPTIONS
from command_line import bundle
from commands import SMALL, Ended, command
from heads_over_time import head_scan, pose

DATES = {"ses-1": "2020-01-01", "ses-2": "2021-07-01"}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_weights(tmp_path_factory.mktemp("weights") / "small.pt")


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BIDS data set of one subject with two sessions."""
    folder = tmp_path_factory.mktemp("studies")
    (folder / "dataset_description.json").write_text('{"Name": "two scans", "BIDSVersion": "1.8.0"}')
    for session in DATES:
        scan = head_scan(to_scanner=pose((0, 0, 4 * int(session[-1]))))
        file = folder / "sub-1" / session / "anat" / f"sub-1_{session}_FLAIR.nii.gz"
        file.parent.mkdir(parents=True)
        nibabel.save(nibabel.Nifti1Image(scan.image, scan.affine), file)
    rows = "".join(f"{session}\t{date}\n" for session, date in DATES.items())
    (folder / "sub-1" / "sub-1_sessions.tsv").write_text(f"session_id\tacq_time\n{rows}")
    return folder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder where the user stands."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def follow(weights: Path, *words: object) -> Ended:
    options = ("--checkpoint", weights, "--outputs", "mask", "--quality", "false")
    return command("follow", *words, *options, *SMALL)


def dates(folder: Path) -> list[str]:
    with (folder / "follow_up" / "sub-1" / "sub-1_timeline.csv").open() as stream:
        return [row["date"] for row in csv.DictReader(stream) if row["lesion"] == "all"]


class TestCommand:
    def test_patients_are_followed_and_told(self, studies: Path, here: Path, weights: Path) -> None:
        ended = follow(weights, studies, "out")
        assert ended.status == 0, ended.stderr
        assert "sub-1: 2 scans, 2020-01-01 to 2021-07-01" in ended.stdout
        assert ended.stdout.endswith("Patients followed: 1, failed: 0. Timelines are in out/follow_up\n")
        assert dates(here / "out") == list(DATES.values())

    def test_second_run_with_an_event_keeps_the_masks(self, studies: Path, here: Path, weights: Path) -> None:
        follow(weights, studies, "out")
        (here / "events.csv").write_text("patient,date,event\nsub-1,2021-01-01,radiotherapy\n")
        ended = follow(weights, studies, "out", "--timeline", "events.csv")
        assert ended.status == 0, ended.stderr
        assert "Cases segmented: 0, kept as they were: 2" in ended.stdout
        found = json.loads((here / "out" / "follow_up" / "sub-1" / "sub-1_timeline.json").read_text())
        assert [scan["event"] for scan in found["scans"]] == ["", "radiotherapy"]

    def test_wrong_timeline_ends_before_anything_is_segmented(self, studies: Path, here: Path, weights: Path) -> None:
        (here / "events.csv").write_text("patient,date,event\nsub-2,2021-01-01,radiotherapy\n")
        ended = follow(weights, studies, "out", "--timeline", "events.csv")
        assert ended.status == 1
        assert "error: events.csv, line 2: there is no patient sub-2; found: sub-1." in ended.stderr
        assert not (here / "out").exists()

    def test_dry_run_lists_patients_with_their_scans_in_order(self, studies: Path, here: Path) -> None:
        ended = command("follow", studies, "out", "--dry_run")
        assert ended.status == 0, ended.stderr
        assert "  sub-1: 2 scans, 2020-01-01 to 2021-07-01\n    2020-01-01: sub-1_ses-1_FLAIR\n" in ended.stdout
        assert not (here / "out").exists()


class TestBundleRun:
    def test_monais_command_line_follows_too(self, studies: Path, here: Path, weights: Path) -> None:
        options = {"checkpoint": weights, "outputs": "mask", "quality": "false", **SMALL_OPTIONS}
        configs = ("inference.json", "follow_up.json")
        ended = bundle("follow_up", *configs, dataset_dir=studies, output_dir="out", **options)
        assert ended.status == 0, ended.stderr
        assert "Patients followed: 1, failed: 0." in ended.stdout
        assert dates(here / "out") == list(DATES.values())
