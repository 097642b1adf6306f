"""Segment cases that have a reference, and record what a fit of quality needs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from os import PathLike
from typing import Any

import numpy as np
from monai.data import MetaTensor
from monai.transforms import Compose

from mri_seg.config.preprocessing import FORMER, record_of
from mri_seg.config.weights import read_weights
from mri_seg.io.load import LoadVolumed
from mri_seg.measurements.lesions import slice_axis
from mri_seg.quality.fit import case_record
from mri_seg.transforms.labels import BinaryLabeld, LabelToImageGridd

__all__ = ["preprocessing_options", "records_of"]

Change = Callable[[MetaTensor, MetaTensor], tuple[MetaTensor, MetaTensor]]
"""What is done to image and label ``(1, H, W, D)`` before the case is segmented."""


def preprocessing_options(weights: PathLike | str) -> dict[str, Any]:
    """Options of inference that weights were trained with, by their own record.

    Args:
        weights: a file of weights.
    """
    record = record_of(read_weights(weights)) or {}
    return {name: record.get(name, value) for name, value in FORMER.items()}


def records_of(
    segment: Callable[[Any], Any], cases: Iterable[Mapping[str, Any]], change: Change | None = None
) -> Iterator[dict[str, Any]]:
    """Segment cases one by one.

    Args:
        segment: a :py:class:`mri_seg.Segmenter`, or what is called like it.
        cases: cases of a data set, with ``image``, ``label`` and perhaps ``group``.
        change: what is done to image and label before; None to segment the files themselves.

    Yields:
        the record of each case (:py:func:`mri_seg.quality.fit.case_record`).
    """
    load = Compose([LoadVolumed(["image", "label"]), LabelToImageGridd("label"), BinaryLabeld("label")])
    for case in cases:
        item: Any = load(dict(case))
        image, label = item["image"], item["label"]
        if change is not None:
            image, label = change(image, label)
        found = segment(list(case["image"]) if change is None else image)
        axis = slice_axis(found.affine)
        volumes = (np.moveaxis(one.numpy(), axis, 2) for one in (found.probability, found.mask, label[0]))
        yield case_record(*volumes, case=str(case["case"]), group=str(case.get("group") or ""))
