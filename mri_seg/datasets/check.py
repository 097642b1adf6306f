"""Check the cases of a data set of any form before training on them."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from monai.data import MetaTensor
from monai.data.utils import affine_to_spacing
from monai.transforms import Orientation

from mri_seg.datasets.data_set import DataSet, problems_of
from mri_seg.datasets.lgg.check import Defect
from mri_seg.io.load import LoadVolumed
from mri_seg.io.sequences import with_sequences_or_error
from mri_seg.transforms.labels import BinaryLabeld, LabelToImageGridd
from mri_seg.transforms.sequences import AddSequencesd
from mri_seg.utils.case_flags import case_flags
from mri_seg.utils.messages import reason
from mri_seg.utils.meta_tensors import as_meta_tensor

__all__ = ["CaseReport", "CheckReport", "check"]

_VALUES_SHOWN = 6
# Flags that say what the network does with an image, or what a header lacks, but no fault of the data set.
_NO_DEFECTS = {"no_echo_time", "label_without_geometry", "segments_overlap"}
_COLUMNS = ("case", "slices", "tumour slices", "spacing (mm)", "matrix", "label values", "group", "institution")


class CaseReport(NamedTuple):
    """What a case holds; unknown values of a case that cannot be read are None.

    Attributes:
        case: its name.
        slices: number of axial slices.
        tumor_slices: number of slices with tumour.
        spacing: rows, columns and slices in mm; None for what the files do not give.
        matrix: rows and columns.
        label_values: distinct values of the label, 0 left out.
        group: its patient.
        institution: where it was imaged, empty if unknown.
    """

    case: str
    slices: int | None
    tumor_slices: int | None
    spacing: tuple[float | None, ...] | None
    matrix: tuple[int, int] | None
    label_values: tuple[float, ...] | None
    group: str
    institution: str

    def cells(self) -> tuple[str, ...]:
        """Its row of the table."""
        values = self.label_values or ()
        more = " ..." if len(values) > _VALUES_SHOWN else ""
        spacing = " x ".join("?" if size is None else f"{size:.3g}" for size in self.spacing or ())
        return (
            self.case,
            "?" if self.slices is None else str(self.slices),
            "?" if self.tumor_slices is None else str(self.tumor_slices),
            spacing or "?",
            " x ".join(map(str, self.matrix or ())) or "?",
            " ".join(f"{value:g}" for value in values[:_VALUES_SHOWN]) + more or "-",
            self.group,
            self.institution or "-",
        )


@dataclass(frozen=True)
class CheckReport:
    """The result of a check.

    Attributes:
        form: the form of the data set.
        cases: all cases, by name.
        defects: all defects.
    """

    form: str
    cases: list[CaseReport]
    defects: list[Defect]

    def table(self) -> str:
        """The cases as a text table with a line for each and one for the total."""
        sums = [sum(getattr(case, name) or 0 for case in self.cases) for name in ("slices", "tumor_slices")]
        patients = len({case.group for case in self.cases})
        total = (f"total: {len(self.cases)}", *map(str, sums), "", "", "", str(patients), "")
        rows = [_COLUMNS, *(case.cells() for case in self.cases), total]
        widths = [max(map(len, column)) for column in zip(*rows)]
        return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)

    def lines(self) -> Iterator[str]:
        """The form, the table, the defects and their number, as ``check`` prints them."""
        yield self.form
        yield self.table()
        yield from map(str, self.defects)
        yield f"{len(self.defects) or 'no'} defect{'' if len(self.defects) == 1 else 's'}"


def check(
    dataset_dir: PathLike | str | DataSet,
    *,
    split: PathLike | str = "auto",
    seed: int = 0,
    label_values: Sequence[int] | int | None = None,
    volume: int | None = None,
    spacing: Sequence[float] | None = None,
    sequences: Sequence[str] = (),
) -> CheckReport:
    """Read every case of a data set, as training and evaluation do, and report all defects.

    Defects are: a label that is missing, cannot be read, does not fit its image, lies outside it or is empty; a label
    that no image claims; an image that is named after another sequence than FLAIR; a further sequence that is missing
    or in another grid; a patient with cases in two sections of the split; and cases with the same image.

    Args:
        dataset_dir: the data set, or its folder.
        split: as in :py:func:`mri_seg.datasets.data_set.datalist`.
        seed: seed of a random split.
        label_values: values of the labels that count as tumour; by default all above 0.
        volume: index of FLAIR in 4D files.
        spacing: spacing of slices whose files carry none, in mm.
        sequences: names of the sequences that the network sees beside FLAIR.

    Returns:
        the cases and the defects.

    Raises:
        FileNotFoundError: when the folder does not exist.
        ValueError: when it is no data set, or the split is unknown.
    """
    data_set = dataset_dir if isinstance(dataset_dir, DataSet) else DataSet(dataset_dir)
    shared = [Defect(data_set.place, problem) for problem in problems_of(data_set, split, seed)]
    examine = _Examination(label_values, volume, spacing, sequences)
    cases = sorted((with_sequences_or_error(case, sequences) for case in data_set.cases), key=lambda case: case["case"])
    with ThreadPoolExecutor() as pool:
        examined = list(pool.map(examine, cases))
    defects = [defect for one in examined for defect in one.defects]
    defects += [Defect(*unusable) for unusable in data_set.found.unusable]
    same: dict[str, list[dict]] = defaultdict(list)
    for case, one in zip(cases, examined):
        if one.digest:
            same[one.digest].append(case)
    for first, *copies in same.values():
        defects += [
            Defect(Path(copy["image"][0]), f"has the same voxels as the image of case {first['case']}")
            for copy in copies
        ]
    return CheckReport(data_set.found.form, [one.report for one in examined], defects + shared)


class _Examined(NamedTuple):
    report: CaseReport
    defects: list[Defect]
    digest: str  # of the image; empty if it cannot be read


class _Examination:
    """Reads a case with the transforms of training."""

    def __init__(
        self, label_values: Any, volume: int | None, spacing: Sequence[float] | None, sequences: Sequence[str]
    ) -> None:
        options: dict[str, Any] = {"volume": volume, "spacing": spacing}
        self._load_image = LoadVolumed("image", **options)
        self._load = LoadVolumed(["image", "label"], **options)
        self._add_sequences = AddSequencesd("image", sequences)
        self._fit = LabelToImageGridd("label")
        self._binary = BinaryLabeld("label", values=label_values)
        self._orient = Orientation(axcodes="PLS", labels=None)

    def __call__(self, case: dict[str, Any]) -> _Examined:
        file, item = Path(case["image"][0]), cast("dict[Hashable, Any]", dict(case))
        defects = [Defect(file, case["error"].removeprefix(f"{file}: "))] if "error" in case else []
        about = {"group": case["patient"], "institution": case.get("institution") or ""}
        empty = CaseReport(case["case"], None, None, None, None, None, **about)
        try:
            loaded = self._load_image(item)
            image = as_meta_tensor(self._orient(loaded["image"]))
        except Exception as error:  # damaged files raise errors of many kinds
            return _Examined(empty, defects or [_defect(file, error)], "")
        digest = hashlib.sha256(image.numpy().astype(np.float32).tobytes() + str(image.shape).encode()).hexdigest()
        report = empty._replace(**self._geometry(image))
        flags = case_flags(case)
        if not defects:
            try:
                self._add_sequences(loaded)
            except Exception as error:
                defects.append(_defect(file, error))
        if "label" in case and not defects:
            label_file = Path(case["label"][0])
            try:
                fitted = self._fit(self._load(item))
                values = tuple(value for value in fitted["label"].unique().tolist() if value)
                tumor = self._orient(self._binary(fitted)["label"])
                tumor_slices = int((tumor[0] > 0).any(dim=0).any(dim=0).sum())
                report = report._replace(tumor_slices=tumor_slices, label_values=values)
                flags += [flag for flag in case_flags(fitted["image"].meta) if flag not in flags]
                if not tumor_slices and "label_lost" not in {flag["name"] for flag in flags}:
                    defects.append(Defect(label_file, _why_empty(values)))
            except Exception as error:
                defects.append(_defect(label_file, error))
        defects += [Defect(file, flag["message"]) for flag in flags if flag["name"] not in _NO_DEFECTS]
        return _Examined(report, defects, digest)

    @staticmethod
    def _geometry(image: MetaTensor) -> dict[str, Any]:
        rows, columns, slices = image.shape[1:]
        sizes = [round(float(size), 4) for size in affine_to_spacing(image.affine)]
        in_plane = image.meta.get("spacing_known", True)
        known = (in_plane, in_plane, image.meta.get("slice_spacing_known", True))
        spacing = tuple(size if is_known else None for size, is_known in zip(sizes, known))
        return {"slices": int(slices), "matrix": (int(rows), int(columns)), "spacing": spacing}


def _why_empty(values: Sequence[float]) -> str:
    if not values:
        return "this label is empty"
    return f"this label holds {', '.join(f'{value:g}' for value in values)}, none of which counts as tumour"


def _defect(file: Path, error: Exception) -> Defect:
    message = reason(error)
    for prefix in (f"{file}: ", f"{file} "):
        message = message.removeprefix(prefix)
    return Defect(file, message)
