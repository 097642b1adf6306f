"""What results were made of: the options found in a config, and files known again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from monai.bundle import ConfigParser

from mri_seg.inference.provenance import describe_input, input_differences, input_path, result_options, result_settings

CONFIG = Path(__file__).resolve().parents[2] / "bundle" / "configs" / "inference.json"


def options_of(**overrides: object) -> dict:
    """The options on which the results of ``inference.json`` depend."""
    config = json.loads(CONFIG.read_text())
    parser = ConfigParser({**config, "found": "$mri_seg.inference.provenance.result_options()"})
    parser.update(overrides)
    parser.get_parsed_content("imports")
    return parser.get_parsed_content("found")


class TestOptions:
    NEUTRAL = {  # noqa: RUF012
        *("bundle_root", "dataset_dir", "output_dir", "outputs", "overwrite", "fail_fast", "strict", "debug", "device"),
        *("checkpoint", "ensemble", "float_weights", "quality"),  # by their content
        *("series_uid", "series_description"),  # they choose an input, which counts by its content
        *("slices_per_batch", "max_voxels", "allow_non_axial"),
        *("seg_empty_frames", "lesion_dilation"),  # they change one output, and are recorded with it
    }

    def test_result_options_are_all_those_of_the_config_that_change_results(self) -> None:
        config = json.loads(CONFIG.read_text())
        values = {
            name
            for name, value in config.items()
            if not isinstance(value, dict) and not (isinstance(value, list) and name in ("imports", "handlers"))
        }
        values -= {"network", "initialize", "inference", "finalize", "run"}
        found = {name for name, value in options_of(amp=False).items() if not str(value).startswith("sha256:")}
        assert found == values - self.NEUTRAL
        assert {
            "threshold",
            "min_lesion_volume",
            "min_brain_fraction",
            "min_lesion_fraction",
            "min_lesion_slices",
            "fill_holes",
            "tta_flip",
            "runtime",
            "crop_foreground",
            "spacing",
        } <= found

    def test_result_options_of_an_override_are_its_value(self) -> None:
        found = options_of(threshold=0.4, tta_flip="False", pixdim=(1, 1))
        assert (found["threshold"], found["tta_flip"], found["pixdim"]) == (0.4, False, [1, 1])
        assert json.loads(json.dumps(found)) == found

    def test_result_options_of_an_expression_are_what_it_gives(self) -> None:
        assert options_of(amp="$1 > 2")["amp"] is False

    @pytest.mark.parametrize(
        ("override", "section"),
        [
            ({"postprocessing#transforms#3#threshold": 0.4}, "postprocessing"),
            ({"preprocessing#transforms#6": {"_target_": "NormalizeIntensityd", "keys": "image"}}, "preprocessing"),
            ({"inferer#inferer#flip": False}, "inferer"),
            ({"network_def#channels": [2, 4]}, "network_def"),
        ],
    )
    def test_result_options_of_a_changed_part_differ(self, override: dict, section: str) -> None:
        before, after = options_of(amp=False), options_of(amp=False, **override)
        assert section in {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}

    def test_result_options_of_what_changes_no_result_are_left_out(self) -> None:
        change = {"slices_per_batch": 2, "device": "cpu", "checkpoint": "other.pt", "max_voxels": 7, "debug": True}
        assert options_of(amp=False, **change) == options_of(amp=False)

    def test_an_option_of_a_users_own_counts_once_a_part_refers_to_it(self) -> None:
        own = {"sharpness": 2, "postprocessing#transforms#5#enabled": "$@sharpness > 1"}
        assert options_of(**own)["sharpness"] == 2

    def test_result_options_need_a_config(self) -> None:
        with pytest.raises(RuntimeError, match="must be called from an expression of a config"):
            result_options()


class TestSettings:
    def test_name_weights_that_are_missing(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"model\.pt: no such file of weights"):
            result_settings(tmp_path / "model.pt")

    def test_result_settings_hold_the_weights_of_an_ensemble_given_as_one_path(self, tmp_path: Path) -> None:
        for name in ("a.pt", "b.pt"):
            (tmp_path / name).write_text(name)
        assert len(result_settings(tmp_path / "a.pt", tmp_path / "b.pt")["ensemble_sha256"]) == 1


class TestInput:
    def case(self, folder: Path, source: str, *names: str) -> dict:
        folder.mkdir(exist_ok=True)
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(name.rpartition("/")[2])
        return {"case": "a", "source": source, "image": [str(folder / name) for name in names]}

    def test_input_of_one_file_is_its_path(self, tmp_path: Path) -> None:
        assert input_path(self.case(tmp_path, "volume", "x.nii")) == str(tmp_path / "x.nii")

    def test_input_of_files_in_several_folders_is_the_folder_of_all(self, tmp_path: Path) -> None:
        case = self.case(tmp_path, "dicom", "a/1/x.dcm", "a/2/y.dcm")
        assert input_path(case) == str(tmp_path / "a")
        assert describe_input(case)["input"]["files"] == ["1/x.dcm", "2/y.dcm"]

    def test_input_of_dicom_is_the_same_in_any_order_and_under_any_name(self, tmp_path: Path) -> None:
        case = self.case(tmp_path, "dicom", "x.dcm", "y.dcm")
        described = describe_input(case)
        for old, new in (("x.dcm", "2"), ("y.dcm", "1")):
            (tmp_path / old).rename(tmp_path / new)
        moved = {**case, "image": [str(tmp_path / name) for name in ("1", "2")]}
        assert input_differences(described, moved) == []

    def test_input_of_an_analyze_pair_counts_both_files(self, tmp_path: Path) -> None:
        case = self.case(tmp_path, "volume", "x.hdr")
        (tmp_path / "x.img").write_text("1")
        described = describe_input(case)
        (tmp_path / "x.img").write_text("2")
        assert "input was" in input_differences(described, case)[0]

    def test_input_with_a_file_more_differs(self, tmp_path: Path) -> None:
        described = describe_input(self.case(tmp_path, "dicom", "x.dcm"))
        (found,) = input_differences(described, self.case(tmp_path, "dicom", "x.dcm", "y.dcm"))
        assert "(1 file, SHA-256" in found
        assert "(2 files, SHA-256" in found

    def test_input_of_the_same_size_and_another_content_differs(self, tmp_path: Path) -> None:
        case = self.case(tmp_path, "volume", "x.nii")
        described = describe_input(case)
        (tmp_path / "x.nii").write_text("y.nii")
        assert input_differences(described, case)

    def test_input_with_a_reference_that_was_not_there_differs(self, tmp_path: Path) -> None:
        case = self.case(tmp_path, "volume", "x.nii", "x_mask.nii")
        image, label = case["image"]
        described = describe_input({**case, "image": [image]})
        assert "reference was none, is" in input_differences(described, {**case, "image": [image], "label": [label]})[0]
