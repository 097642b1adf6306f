"""Evaluate masks that any program made, instead of running a network."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import Any

import torch
from monai.data import Dataset
from monai.engines import SupervisedEvaluator
from monai.engines.utils import IterationEvents

from mri_seg.io.predictions import find_predictions
from mri_seg.utils.distributed import is_main_process
from mri_seg.utils.flags import flag

__all__ = ["EvaluationDataset", "take_predictions"]

logger = logging.getLogger(__name__)


class EvaluationDataset(Dataset):
    """Cases to evaluate; with a folder of predictions, each with its mask under the key ``prediction``.

    Args:
        data: the cases, each with ``case``, ``image`` and ``label``.
        transform: preprocessing of a case for the network.
        predictions: folder of masks that any program made (:py:func:`mri_seg.io.predictions.find_predictions`); None to
            evaluate a network.
        allow_missing_predictions: whether a case without a mask counts as one with an empty mask.
        prediction_transform: preprocessing in place of ``transform`` if there are predictions; they may be missing.

    Raises:
        FileNotFoundError: when ``predictions`` is not a folder, or cases have no mask and
            ``allow_missing_predictions`` is false; all of them are listed.
        ValueError: when it is not clear which mask belongs to which case.
    """

    def __init__(
        self,
        data: Sequence[Mapping[str, Any]],
        transform: Callable,
        *,
        predictions: PathLike | str | None = None,
        allow_missing_predictions: bool | str = False,
        prediction_transform: Callable | None = None,
    ) -> None:
        self.missing: list[str] = []
        """Names of the cases whose mask is missing."""
        if predictions is not None:
            found, self.missing = find_predictions(data, predictions)
            if self.missing and not flag(allow_missing_predictions, "allow_missing_predictions"):
                raise FileNotFoundError(
                    f"{predictions}: {len(self.missing)} of {len(data)} cases have no mask: {', '.join(self.missing)}. "
                    "Put their masks there, named after the cases, or count them as empty masks with "
                    "--allow_missing_predictions true."
                )
            data = [{**case, "prediction": found[case["case"]]} if case["case"] in found else case for case in data]
            if is_main_process():
                self._log(len(data), predictions)
        super().__init__(data, transform if predictions is None else prediction_transform)

    def _log(self, cases: int, predictions: PathLike | str) -> None:
        logger.info(
            "Evaluating the masks of %d cases in %s; no network is run, so the options of weights, inference and "
            "post-processing do not apply.",
            cases,
            predictions,
        )
        if self.missing:
            logger.warning(
                "%d cases have no mask in %s and count as empty masks: %s.",
                len(self.missing),
                predictions,
                ", ".join(self.missing),
            )


def take_predictions(engine: SupervisedEvaluator, batchdata: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Take the mask of a case as the output of an evaluator's step; no network is run.

    Use it as ``iteration_update`` of MONAI's ``SupervisedEvaluator``.

    Args:
        engine: the evaluator.
        batchdata: a batch with ``image`` and ``label`` ``(B, 1, H, W, D)`` and, unless it is missing, ``prediction``,
            a binary mask of the same shape; with several classes also ``prediction_classes``, its label values.

    Returns:
        ``image``, ``label`` and ``pred``, which is empty if the mask is missing; with several classes ``pred_classes``.
    """
    label = batchdata["label"]
    pred = batchdata.get("prediction")
    output = {"image": batchdata["image"], "label": label, "pred": torch.zeros_like(label) if pred is None else pred}
    if "label_classes" in batchdata:
        values = batchdata.get("prediction_classes")
        output["pred_classes"] = torch.zeros_like(label) if values is None else values
    engine.state.output = output
    for event in (IterationEvents.FORWARD_COMPLETED, IterationEvents.MODEL_COMPLETED):
        engine.fire_event(event)
    return engine.state.output
