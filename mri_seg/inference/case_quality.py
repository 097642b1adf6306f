"""Estimate how good the result of a case is, by the ``quality.json`` beside the weights, if it holds for them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from mri_seg.inference.provenance import result_settings
from mri_seg.quality.calibration import Calibration
from mri_seg.quality.expected_dice import ExpectedDice, threshold_spread
from mri_seg.quality.interval import VolumeInterval
from mri_seg.quality.lesion_checks import doubt, is_doubtful
from mri_seg.utils.files import read_json, sha256

__all__ = ["BOUND_TO", "QUALITY_FILE", "QUALITY_KEYS", "CaseQuality", "declaration"]

logger = logging.getLogger(__name__)

QUALITY_FILE = "quality.json"

BOUND_TO = (
    "threshold",
    "tta_flip",
    "min_lesion_volume",
    "min_brain_fraction",
    "min_lesion_fraction",
    "min_lesion_slices",
    "fill_holes",
)
"""Options for which a fit holds; with other values of them it is not used."""

QUALITY_KEYS = (
    "expected_dice",
    "expected_dice_low",
    "expected_dice_high",
    "volume_ml_low",
    "volume_ml_high",
    "volume_voxels_low",
    "volume_voxels_high",
)
"""What a case gets, as columns; empty if nothing was found or no fit holds."""

_PARTS = ("declared_for", "calibration", "expected_dice", "volume", "lesion")


class CaseQuality:
    """The estimates of ``quality.json`` for the weights and options of a run.

    If the file was fitted for other weights or other options, or is missing, nothing is estimated, and one line in the
    log says why.

    Args:
        file: the file; None for ``quality.json`` beside the weights, and False for none.
        checkpoint: the weights in use.
        ensemble: further weights in use.
        options: the options on which results depend, from
            :py:func:`mri_seg.inference.provenance.result_options`.

    Raises:
        FileNotFoundError: when a file that was named does not exist.
        ValueError: when the file is used and is damaged.
    """

    def __init__(
        self,
        file: PathLike | str | bool | None = None,
        *,
        checkpoint: PathLike | str | None = None,
        ensemble: Sequence[PathLike | str] | PathLike | str = (),
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.file = None
        if file is None or str(file).lower() == "true":
            self.file = None if checkpoint is None else Path(checkpoint).with_name(QUALITY_FILE)
        elif str(file).lower() != "false":
            self.file = Path(str(file))
            if not self.file.is_file():
                raise FileNotFoundError(
                    f"--quality: {self.file}: no such file. Fit it with `python -m mri_seg.quality fit`."
                )
        self.checkpoint, self.ensemble, self.options = checkpoint, ensemble, dict(options or {})

    @cached_property
    def fitted(self) -> dict[str, Any] | None:
        """Content of the file, if it holds for the weights and options; None otherwise."""
        if self.file is None:
            return None
        if not self.file.is_file():
            logger.info("%s: no such file, so results have no expected Dice and no interval of volume.", self.file)
            return None
        found = read_json(self.file)
        if not isinstance(found, dict) or not all(isinstance(found.get(name), dict) for name in _PARTS):
            raise ValueError(
                f"{self.file}: expected a JSON object with {', '.join(_PARTS)}. Fit it again with "
                "`python -m mri_seg.quality fit`, or use --quality false."
            )
        if why := self._mismatch(found["declared_for"]):
            logger.info("%s: is not used: %s. Results have no expected Dice and no interval of volume.", self.file, why)
            return None
        return found

    def _mismatch(self, declared: Mapping[str, Any]) -> str | None:
        """Why a fit does not hold for this run; None if it does."""
        now = declaration(self.checkpoint, self.ensemble, self.options)
        for name in ("checkpoint_sha256", "ensemble_sha256"):
            if declared.get(name) != now[name]:
                return f"it is for {name} {declared.get(name)}, in use is {now[name]}"
        if now["int8_sha256"] and declared.get("int8_sha256") != now["int8_sha256"]:
            return f"it is for 8-bit weights {declared.get('int8_sha256')}, in use is {now['int8_sha256']}"
        for name in BOUND_TO:
            if declared.get(name) != now[name]:
                return f"it is for {name} {declared.get(name)}, in use is {now[name]}"
        return None

    @property
    def settings(self) -> dict[str, str]:
        """SHA-256 of the file for the record of results, if it is used."""
        return {"quality_sha256": sha256(self.file)} if self.fitted and self.file else {}

    @property
    def calibration(self) -> Calibration | None:
        """The map from the network's probability to the calibrated one; None if no fit holds."""
        return Calibration(**self.fitted["calibration"]) if self.fitted else None

    def of_case(self, measurements: Mapping[str, Any], probability: np.ndarray) -> dict[str, Any]:
        """Estimate the quality of a result.

        Args:
            measurements: result of :py:func:`mri_seg.measurements.lesions.measure`.
            probability: the network's probability ``(H, W, D)``.

        Returns:
            ``expected_dice``, ``expected_dice_low`` and ``expected_dice_high``; ``volume_ml_low`` and
            ``volume_ml_high``, or ``volume_voxels_low`` and ``volume_voxels_high``, whichever volume was measured; and
            ``lesions``, those of the measurements; ``look``, why a lesion is worth a look, says of those in doubt how
            many were false.
            Nothing if no fit holds, or if no tumour was found.
        """
        if self.fitted is None or not measurements["lesions"]:
            return {}
        unit = "volume_ml" if "volume_ml" in measurements else "volume_voxels"
        found = self.estimate(probability)
        low, high = (measurements[unit] * found.pop(f"volume_ratio_{end}") for end in ("low", "high"))
        lesions = measurements["lesions"]
        marked = [self._marked(lesion, lesion[unit] / lesions[0][unit]) for lesion in lesions]
        return {**found, f"{unit}_low": low, f"{unit}_high": high, "lesions": marked}

    def estimate(self, probability: np.ndarray) -> dict[str, float]:
        """Expected Dice of a result that is not empty, and the interval of volume as a ratio to the predicted volume.

        Args:
            probability: the network's probability ``(H, W, D)``.

        Returns:
            ``expected_dice``, ``expected_dice_low``, ``expected_dice_high``, ``volume_ratio_low`` and
            ``volume_ratio_high``; nothing if no fit holds.
        """
        if self.fitted is None:
            return {}
        spread = threshold_spread(probability)
        expected = ExpectedDice(**self.fitted["expected_dice"])(spread)
        ratio = VolumeInterval(**self.fitted["volume"])(1.0, spread)
        names = ("expected_dice", "expected_dice_low", "expected_dice_high", "volume_ratio_low", "volume_ratio_high")
        return dict(zip(names, (*expected, *ratio)))

    def _marked(self, lesion: Mapping[str, Any], part: float) -> dict[str, Any]:
        """A lesion, with the reason if it is in doubt; ``part`` is its size beside the largest."""
        if not is_doubtful(part, 1.0):
            return dict(lesion)
        false = (self.fitted or {})["lesion"].get("false_in_doubt")
        known = "" if false is None else f"; {100 * false:.0f} % of such lesions were false where this was fitted"
        return {**lesion, "look": (lesion.get("look") or doubt(part)) + known}


def declaration(
    checkpoint: PathLike | str | None,
    ensemble: Sequence[PathLike | str] | PathLike | str,
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """Weights and options for which a fit is declared, or which are in use.

    Args:
        checkpoint: the weights.
        ensemble: further weights.
        options: as in :py:class:`CaseQuality`.
    """
    settings = result_settings(checkpoint, ensemble, options)
    sums = {name: settings.get(name) or [] for name in ("ensemble_sha256", "int8_sha256")}
    return {
        "checkpoint_sha256": settings["checkpoint_sha256"],
        **sums,
        **{name: options.get(name) for name in BOUND_TO},
    }
