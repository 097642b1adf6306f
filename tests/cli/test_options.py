"""How commands read their words: values as MONAI reads them, keys at any depth, mistakes that name what was meant."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from commands import Caught, command
from fire.parser import DefaultParseValue

from mri_seg.cli.config_command import ConfigCommand, Given
from mri_seg.cli.main import cli
from mri_seg.cli.values import as_path, parse_value
from mri_seg.utils.bundle_folder import bundle_folder


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> Caught:
    caught = Caught()
    for name in ("segment", "train", "evaluate", "quantize"):
        monkeypatch.setattr(cli.commands[name], "run", caught)
    return caught


def overrides(caught: Caught, *words: object) -> dict[str, Any]:
    """The config keys that a command line gives, but for the bundle's folder."""
    ended = command(*words)
    assert ended.status == 0, ended.stderr
    return {key: value for key, value in caught.given[-1].overrides.items() if key != "bundle_root"}


class TestValues:
    @pytest.mark.parametrize(
        "word",
        ["0.4", "-1", "1e-3", "[0.9,0.9,5]", "[mask,page]", "{a: 1}", "None", "True", "true", "two words", "$1+1"],
    )
    def test_words_are_read_as_by_monai(self, word: str) -> None:
        assert parse_value(word) == DefaultParseValue(word)

    @pytest.mark.parametrize("word", ["FLAIR #2", "#1", "7 # of 9", "[1,2] # two"])
    def test_words_are_not_cut_at_number_signs(self, word: str) -> None:
        assert parse_value(word) == word

    def test_number_signs_within_quotes_are_read_too(self) -> None:
        assert parse_value("['a#1', 'b']") == ["a#1", "b"]

    @pytest.mark.parametrize("word", ["__import__('os').getcwd()", "print(1)", "2*3"])
    def test_nothing_is_evaluated(self, word: str) -> None:
        assert parse_value(word) == word

    @pytest.mark.parametrize("name", ["$a.nii", "@a", "%a#b"])
    def test_paths_with_a_first_letter_that_means_something_to_monai_stay_paths(self, name: str) -> None:
        assert as_path(name) == f"./{name}"


class TestKeys:
    @pytest.mark.parametrize(
        ("words", "key", "value"),
        [
            (["--threshold", "0.4"], "threshold", 0.4),
            (["--threshold=0.4"], "threshold", 0.4),
            (["--min-lesion-volume", "0"], "min_lesion_volume", 0),
            (["--network_def#channels", "[8,16]"], "network_def#channels", [8, 16]),
            (["--network_def#channels=[8,16]"], "network_def#channels", [8, 16]),
            (["--inferer::enabled", "false"], "inferer::enabled", "false"),
            (["--network_def", "{_target_: UNet}"], "network_def", {"_target_": "UNet"}),
            (["--_own", "1"], "_own", 1),
            (["--overwrite"], "overwrite", "true"),
            (["--overwrite", "false"], "overwrite", "false"),
            (["--series_description", "--t2"], "series_description", "--t2"),
            (["--checkpoint", "$@bundle_root + '/x.pt'"], "checkpoint", "$@bundle_root + '/x.pt'"),
        ],
    )
    def test_keys_of_the_config_are_given_at_any_depth(
        self, given: Caught, words: list[str], key: str, value: object
    ) -> None:
        found = overrides(given, "segment", "in", "out", *words)
        assert found == {"dataset_dir": "in", "output_dir": "out", key: value}

    def test_switch_without_a_value_leaves_the_paths_after_it(self, given: Caught) -> None:
        found = overrides(given, "segment", "--overwrite", "--fail_fast", "in", "out")
        assert found == {"overwrite": "true", "fail_fast": "true", "dataset_dir": "in", "output_dir": "out"}

    def test_keys_of_any_command_reach_its_configs(self, given: Caught) -> None:
        assert overrides(given, "train", "data", "--train#trainer#max_epochs", "3") == {
            "train#trainer#max_epochs": 3,
            "dataset_dir": "data",
        }
        assert overrides(given, "evaluate", "data", "--section", "test")["section"] == "test"
        assert overrides(given, "quantize", "data", "--calibration_slices", "9")["calibration_slices"] == 9

    def test_configs_are_those_of_the_bundle_with_further_ones_over_the_first(
        self, given: Caught, tmp_path: Path
    ) -> None:
        (tmp_path / "own.json").write_text("{}")
        command("evaluate", "data", "--config_file", "published_recipe.json", "--config_file", tmp_path / "own.json")
        folder = bundle_folder() / "configs"
        assert given.given[-1].files == [
            *(folder / "train.json", folder / "published_recipe.json", tmp_path / "own.json", folder / "evaluate.json")
        ]

    def test_tracking_takes_a_name_of_monai_or_a_file_of_the_bundle(self, given: Caught) -> None:
        for word in ("mlflow", "mlflow.json"):
            assert command("train", "data", "--tracking", word).status == 0
        assert [one.tracking for one in given.given] == ["mlflow", str(bundle_folder() / "configs" / "mlflow.json")]
        ended = command("train", "data", "--tracking", "none.json")
        assert (ended.status, "Invalid value for --tracking: none.json: no such file" in ended.stderr) == (2, True)

    def test_flags_of_the_command_are_no_keys(self, given: Caught) -> None:
        command("segment", "in", "out", "--quiet", "--dry-run")
        assert given.given[-1] == Given(
            [bundle_folder() / "configs" / "inference.json"],
            {"dataset_dir": "in", "output_dir": "out"},
            quiet=True,
            dry_run=True,
        )


class TestPaths:
    def test_last_path_is_the_output_and_the_others_are_inputs(self, given: Caught) -> None:
        found = overrides(given, "segment", "a.nii.gz", "study", "$b.nii", "out")
        assert found == {"dataset_dir": ["a.nii.gz", "study", "./$b.nii"], "output_dir": "out"}

    def test_paths_may_be_given_as_keys(self, given: Caught) -> None:
        found = overrides(given, "segment", "--dataset_dir", "in", "--output_dir", "out")
        assert found == {"dataset_dir": "in", "output_dir": "out"}
        assert overrides(given, "segment", "a", "b", "--output_dir", "out")["dataset_dir"] == ["a", "b"]

    @pytest.mark.parametrize("words", [["segment"], ["segment", "in"], ["segment", "a", "b", "--dataset_dir", "c"]])
    def test_paths_that_are_missing_or_too_many_are_told_with_the_usage(self, given: Caught, words: list[str]) -> None:
        ended = command(*words)
        assert ended.status == 2
        assert "Usage: mri-seg segment [OPTIONS] INPUT... OUTPUT" in ended.stderr
        assert given.given == []

    @pytest.mark.parametrize("words", [["train"], ["train", "a", "b"], ["evaluate", "a", "--dataset_dir", "b"]])
    def test_training_data_are_one_folder(self, given: Caught, words: list[str]) -> None:
        ended = command(*words)
        assert ended.status == 2
        assert "Expected one folder, DATASET" in ended.stderr


class TestMistakes:
    @pytest.mark.parametrize(
        ("words", "meant"),
        [
            (["segmnt"], "Did you mean 'segment'?"),
            (["segment", "a", "b", "--treshold", "0.4"], "Did you mean '--threshold'?"),
            (["segment", "a", "b", "--treshold=0.4"], "Did you mean '--threshold'?"),
            (["train", "a", "--epoch", "1"], "'--epochs'"),
            (["segment", "a", "b", "--flip", "true"], "--flip is now --tta_flip."),
            (["segment", "a", "b", "--networkdef#channels", "[1]"], "No such option '--networkdef#channels'"),
            (["segment", "a", "b", "--config_file", "none.json"], "none.json: no such file"),
        ],
    )
    def test_misspelt_words_name_what_was_meant(self, given: Caught, words: list[str], meant: str) -> None:
        ended = command(*words)
        assert ended.status == 2
        assert meant in ended.stderr
        assert given.given == []


class TestHelp:
    @pytest.mark.parametrize("name", ["segment", "follow", "train", "evaluate", "quantize"])
    def test_help_has_values_unit_default_and_meaning_of_every_option(self, name: str) -> None:
        found = "".join(command(name, "--help").stdout.split())
        of_command = cli.commands[name]
        assert isinstance(of_command, ConfigCommand)
        listed = [
            option
            for option in of_command.described
            if option.name not in ("bundle_root", "dataset_dir", "output_dir") and option.expected
        ]
        assert len(listed) > 10
        for option in listed:
            assert f"--{option.name}VALUE" in found
            for words in (option.unit, "" if option.value is None else option.default):
                assert f"{''.join(words.replace('`', '').split())}" in found, option.name
            plain = re.sub(r"`|\[[^]]*\]\(([^)]*)\)", lambda link: f"docs/{link[1]}" if link[1] else "", option.meaning)
            assert "".join(f"{plain[1:]}.".split()) in found, option.name

    def test_help_says_what_values_an_option_takes(self) -> None:
        found = " ".join(command("segment", "--help").stdout.split())
        assert "Probability from which a voxel counts as tumour. [a number, 0 to 1; default: 0.5]" in found
        assert "Stop at the first case that fails. [true or false; default: false]" in found
        assert (
            'whose files carry none. [three numbers above 0, rows, columns and slices in mm, as in "[0.9,0.9,5]"; '
            in (found)
        )
        assert "if it is not found by itself. [a SeriesInstanceUID; default: none]" in found

    def test_help_tells_a_default_once(self) -> None:
        found = " ".join(command("segment", "--help").stdout.split())
        assert "by default quality.json beside checkpoint, and false for none." in found
        assert "None" not in found

    def test_links_in_help_are_files(self) -> None:
        found = " ".join(command("segment", "--help").stdout.split())
        assert "see docs/own_data.md" in found

    @pytest.mark.parametrize("name", ["follow", "train", "evaluate", "quantize"])
    def test_help_begins_with_what_the_command_adds_and_leaves_out_what_it_does_not_use(self, name: str) -> None:
        text = command(name, "--help").stdout
        listed = re.findall(r"^  --(\w+)\b", text[text.index("Options of ") :], flags=re.MULTILINE)
        first = {"follow": "timeline", "train": "datalist", "evaluate": "section", "quantize": "checkpoint"}
        assert listed.index(first[name]) < listed.index("pixdim")
        assert ("epochs" in listed) == (name == "train")

    def test_options_that_help_leaves_out_may_be_given(self, given: Caught) -> None:
        assert overrides(given, "evaluate", "data", "--epochs", "3")["epochs"] == 3

    def test_help_lists_no_key_that_follows_from_others(self) -> None:
        found = command("train", "--help").stdout
        assert "--epochs VALUE" in found
        assert not re.search(r"--(steps|network|run_dir|summary_writer|bundle_root|dataset_dir) ", found)

    @pytest.mark.parametrize(
        ("name", "listed"),
        [("report", "--compare"), ("phantom", "--patients"), ("export", "--formats"), ("fetch", "DIR")],
    )
    def test_help_of_other_commands_is_that_of_their_modules(self, name: str, listed: str) -> None:
        ended = command(name, "--help")
        assert ended.status == 0
        assert ended.stdout.startswith(f"usage: mri-seg {name} ")
        assert listed in ended.stdout
