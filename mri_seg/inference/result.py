"""The result of one call: mask, probability, measurements and a picture of a case."""

from __future__ import annotations

import copy
import html
import io
import threading
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from PIL import Image

from mri_seg.inference.outputs import Result
from mri_seg.inference.writer import CaseWriter, describe_measurements
from mri_seg.visualize.html import picture_uri
from mri_seg.visualize.overlays import contact_sheet

__all__ = ["Segmentation"]

_saving = threading.Lock()
"""Held while a result is saved, since all results of a folder share its tables."""


class Segmentation:
    """The segmentation of a case, in the grid of its input. In a notebook it shows the slices with their outlines.

    Args:
        result: the result, with its input, flags, weights and options.
        case: the case that it is of.
        described: its input, from :py:func:`mri_seg.inference.provenance.describe_input`; None if its files are gone.
        writing: arguments of :py:class:`~mri_seg.inference.writer.CaseWriter`.
    """

    def __init__(
        self,
        result: Result,
        case: Mapping[str, Any],
        *,
        described: Mapping[str, Any] | None,
        writing: Mapping[str, Any],
    ) -> None:
        self._result = result
        self._case = dict(case)
        self._described = described
        self._writing = dict(writing)

    @property
    def case(self) -> str:
        """Name of the case."""
        return self._result.case

    @property
    def mask(self) -> MetaTensor:
        """Binary mask ``(H, W, D)``, uint8; its ``affine`` is that of the input, from voxels to RAS in mm."""
        return self._volume(self._result.mask)

    @property
    def label_map(self) -> MetaTensor:
        """Label values ``(H, W, D)`` of a network that tells classes apart; otherwise the same as the mask."""
        return self._volume(self._result.label_map)

    @property
    def probability(self) -> MetaTensor:
        """Probability of tumour ``(H, W, D)``, float32, with the affine of the input."""
        return self._volume(self._result.probability)

    @property
    def affine(self) -> np.ndarray:
        """Affine of the input ``(4, 4)``: voxels to RAS coordinates in mm."""
        return self._result.affine.copy()

    @property
    def measurements(self) -> dict[str, Any]:
        """Volume, lesions and diameters, as in the JSON file of the command.

        See :py:func:`mri_seg.measurements.lesions.measure`; the input, the flags, and the version and SHA-256 of the
        weights are in it too.
        """
        return copy.deepcopy(self._result.measurements)

    @property
    def flags(self) -> list[dict[str, str]]:
        """Warnings about the case, each with ``name`` and ``message``; read them before you use a volume."""
        return copy.deepcopy(self._result.about["flags"])

    def save(
        self, folder: PathLike | str, outputs: str | Sequence[str] | None = None, *, overwrite: bool | None = None
    ) -> Path:
        """Write the files that the command writes: a folder for the case, and the tables of all cases beside it.

        Args:
            folder: folder of the results; results of several cases may share it.
            outputs: as the option ``outputs``, such as ``"mask,seg"`` or ``["mask", "page"]``; None for what the
                options of the segmenter say, by default what fits the input.
            overwrite: as the option ``overwrite``; None for what the options of the segmenter say.

        Returns:
            the folder of the case.

        Raises:
            ValueError: when the folder holds results of other options or of another input, an output is unknown, or
                a file cannot be written.
        """
        given = {"outputs": outputs, "overwrite": overwrite}
        choices = {name: value for name, value in given.items() if value is not None}
        writer = CaseWriter(**{**self._writing, "output_dir": folder, **choices})
        writer.settings = dict(self._result.settings)
        with _saving:
            if writer.remaining([self._case]):
                if self._described is not None:
                    writer.inputs[self.case] = dict(self._described)
                writer.write_result(self._result)
        if writer.rows[self.case]["status"] == "failed":
            raise ValueError(writer.rows[self.case]["error"])
        return Path(folder, self.case)

    def __repr__(self) -> str:
        shape = " x ".join(map(str, self._result.mask.shape))
        count = len(self.flags)
        warnings = f", {count} warning{'s' * (count > 1)}" if count else ""
        return f"Segmentation({self.case!r}: {describe_measurements(self.measurements)}, {shape} voxels{warnings})"

    def _repr_png_(self) -> bytes:
        """The sheet of all slices, for notebooks."""
        file = io.BytesIO()
        Image.fromarray(self._sheet()).save(file, format="PNG")
        return file.getvalue()

    def _repr_html_(self) -> str:
        """The sheet of all slices below the volume and the warnings, for notebooks."""
        warnings = "".join(f"<li>{html.escape(flag['message'])}</li>" for flag in self.flags)
        name, found = html.escape(self.case), html.escape(describe_measurements(self.measurements))
        return (
            f"<p><b>{name}</b>: {found}</p>"
            + (f"<ul>{warnings}</ul>" if warnings else "")
            + f'<img src="{picture_uri(self._sheet())}" alt="Slices of {name} with the outline of the prediction">'
        )

    def _sheet(self) -> np.ndarray:
        return contact_sheet(self._result.slices, with_reference=self._result.has_label)

    def _volume(self, voxels: np.ndarray) -> MetaTensor:
        return MetaTensor(torch.from_numpy(voxels.copy()), affine=torch.from_numpy(self.affine))
