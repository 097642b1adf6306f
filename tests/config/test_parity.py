"""Validation, evaluation and inference compute the same: train.json and inference.json each stand alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from monai.bundle import ConfigParser

CONFIGS = Path(__file__).resolve().parents[2] / "bundle" / "configs"

# Top-level keys that both configs have and in which they differ, with the reason.
OWN = {
    "dataset_dir": "inference takes cases of any kind",
    "case_quality": "each names the parts of its own config",
    "output_dir": "a run has a folder named by its start",
    "imports": "a run is named by the time",
    "initialize": "inference has no seed",
    "finalize": "what is done at the end",
    "run": "another list is run",
}
# Steps of preprocessing that one has alone, or switches off; none of them changes the image.
STEPS = {
    "mri_seg.RequireImaged": "a data set has images",
    "mri_seg.RequireAxiald": "a data set was looked at",
}
ARGUMENTS = {
    "allow_missing_keys": "a data set has labels",
    "_disabled_": "an evaluation without a report does not show its images, nor what checks say of them",
}
NEUTRAL = {
    "min_lesion_volume": 0,
    "min_brain_fraction": 0,
    "min_lesion_fraction": 0,
    "min_lesion_slices": 1,
    "fill_holes": False,
    "tta_flip": False,
    "ensemble": [],
    "runtime": "torch",
    "float_weights": [],
}
"""Values in train.json that leave the network's results as they are."""


def config(*names: str) -> dict[str, Any]:
    parser = ConfigParser()
    parser.read_config([str(CONFIGS / name) for name in names])
    return {key: value for key, value in parser.get().items() if key != "_meta_"}


def steps(transforms: list[dict]) -> list[dict]:
    """Transforms without those, and without the arguments, that one config has alone."""
    return [
        {key: value for key, value in transform.items() if key not in ARGUMENTS}
        for transform in transforms
        if transform["_target_"] not in STEPS
    ]


def of_inference(part: Any) -> Any:
    """A part of the evaluation as inference.json, which has its parts at the top level, would write it."""
    return json.loads(json.dumps(part).replace("@validate::", "@").replace("@validate#", "@"))


@pytest.fixture(scope="module")
def evaluation() -> dict[str, Any]:
    return config("train.json", "evaluate.json")


@pytest.fixture(scope="module")
def inference() -> dict[str, Any]:
    return config("inference.json")


class TestEvaluationAndInference:
    def test_shared_keys_have_the_same_values(self, evaluation: dict, inference: dict) -> None:
        shared = evaluation.keys() & inference.keys()
        assert {key for key in shared if evaluation[key] != inference[key]} == OWN.keys() & shared
        assert {"network_def", "threshold", "pixdim", "amp", "checkpoint", *NEUTRAL} <= shared

    def test_infer_alike(self, evaluation: dict, inference: dict) -> None:
        assert of_inference(evaluation["validate"]["inferer"]) == inference["inferer"]

    def test_postprocess_alike(self, evaluation: dict, inference: dict) -> None:
        found = of_inference(evaluation["validate"]["postprocessing"])
        assert steps(found["transforms"]) == steps(inference["postprocessing"]["transforms"])

    def test_preprocess_alike_but_for_steps_that_leave_the_image(self, evaluation: dict, inference: dict) -> None:
        found = of_inference(evaluation["validate"]["preprocessing"])
        assert steps(found["transforms"]) == steps(inference["preprocessing"]["transforms"])

    def test_every_difference_that_is_allowed_is_there(self, evaluation: dict, inference: dict) -> None:
        found = [
            config["transforms"] for config in (evaluation["validate"]["preprocessing"], inference["preprocessing"])
        ]
        names = [{transform["_target_"] for transform in transforms} for transforms in found]
        arguments = [{key for transform in transforms for key in transform} for transforms in found]
        assert names[0] ^ names[1] == STEPS.keys()
        assert arguments[0] ^ arguments[1] == {*ARGUMENTS, "allow"}  # of RequireAxiald


class TestTraining:
    def test_validates_with_neutral_values_of_the_whole_stack(self) -> None:
        train = config("train.json")
        assert {key: train[key] for key in NEUTRAL} == NEUTRAL

    def test_evaluation_overrides_options_its_data_and_its_handlers_alone(self) -> None:
        own = json.loads((CONFIGS / "evaluate.json").read_text(encoding="utf-8"))
        commands = {"initialize", "evaluation", "finalize"}
        predicted = {"prediction_preprocessing", "validate#evaluator#iteration_update"}
        predicted |= {"validate#evaluator#postprocessing"}  # which masks that are evaluated do not need
        predicted |= {"case_quality"}
        resumed = {"progress", "validate#dataloader#sampler"}
        parts = {key for key, value in own.items() if "#" in key or isinstance(value, (dict, list))}
        assert parts == {"validate#dataset", "validate#handlers", "float_weights", *commands, *predicted, *resumed}

    def test_orients_resamples_and_normalises_as_inference_does(self, inference: dict) -> None:
        shared = ("Orientationd", "mri_seg.PlaneSpacingd", "mri_seg.NormalizeForegroundd")

        def of_image(transforms: list[dict]) -> list[dict]:
            own = ("keys", "mode")  # training takes the label along
            return [
                {key: value for key, value in transform.items() if key not in own}
                for transform in transforms
                if transform["_target_"] in shared
            ]

        found = of_image(config("train.json")["train"]["preprocessing"]["transforms"])
        assert found == of_image(inference["preprocessing"]["transforms"])
        assert len(found) == len(shared)
