"""Archive the cases of an evaluation, so that a report can be made from them later."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.data import MetaTensor
from monai.data.utils import affine_to_spacing
from monai.metrics import compute_dice
from monai.transforms import Invertd, InvertibleTransform, Orientation
from monai.utils import convert_to_tensor

from mri_seg.evaluation.progress import EvaluationProgress
from mri_seg.utils.compat import network_of, state_of
from mri_seg.utils.distributed import all_gather_object, is_main_process
from mri_seg.utils.files import atomic_write
from mri_seg.utils.flags import flag
from mri_seg.utils.meta_tensors import as_meta_tensor
from mri_seg.utils.orientation import AXIAL

__all__ = ["ArchivedCase", "CaseArchive", "gallery", "load_case", "save_case"]

_SLICES_AT_ONCE = 8


@dataclass(frozen=True)
class ArchivedCase:
    """An evaluated case, with rows towards posterior, columns towards the patient's left and slices towards superior.

    Attributes:
        case: name of the case.
        image: FLAIR intensities as read ``(H, W, D)``, in the smallest type that holds them.
        label: reference ``(H, W, D)``, bool.
        pred: prediction after post-processing ``(H, W, D)``, bool.
        probability: probability of tumour ``(H, W, D)``, uint8 from 0 to 255; empty, ``(H, W, 0)``, if there is only a
            mask, such as that of another program.
        attention: attention coefficients of each gate, finest first, ``(gates, H, W, D)``, uint8 from 0 to 255; empty,
            ``(0, H, W, D)``, for cases that are not in the gallery.
        spacing: distance between rows, columns and slices in mm; 1 where it is not known.
        spacing_known: whether the first two values of ``spacing`` are known.
        slice_spacing_known: whether the third is known.
    """

    case: str
    image: np.ndarray
    label: np.ndarray
    pred: np.ndarray
    probability: np.ndarray
    attention: np.ndarray
    spacing: tuple[float, float, float]
    spacing_known: bool
    slice_spacing_known: bool


class CaseArchive:
    """Handler that writes ``cases/<case>.npz`` for each case of an evaluation.

    Attach it to an evaluator whose batches hold ``flair``, the volume as read, and whose output holds ``pred``,
    ``label`` and, if there is one, ``probability``: volumes ``(1, H, W, D)`` in the geometry of the input, ``pred``
    with the metadata ``case``. When the evaluation is complete, the attention of the gates is added to the cases of the
    gallery, if the network tells it; the first of several processes does so. Which cases these are is known only then,
    so they are prepared for the network a second time.

    Args:
        output_dir: folder of the evaluation.
        dataset: the evaluated cases, in their order, preprocessed for the network.
        transform: the preprocessing, whose inverse brings attention back to the geometry of the input.
        enabled: whether to write anything.
        attention: whether to add attention; false if the network did not make the masks.
        progress: the cases that an earlier run has archived; None for none.
    """

    def __init__(
        self,
        output_dir: PathLike | str,
        *,
        dataset: Sequence[dict],
        transform: InvertibleTransform,
        enabled: bool | str = True,
        attention: bool = True,
        progress: EvaluationProgress | None = None,
    ) -> None:
        self.folder = Path(output_dir) / "cases"
        self.dataset = dataset
        self.attention = attention
        self.progress = progress
        self.invert = Invertd("attention", transform=transform, orig_keys="image", nearest_interp=False, to_tensor=True)
        self.enabled = flag(enabled, "report")
        self.dice: dict[str, float] = {}

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator."""
        if self.enabled:
            engine.add_event_handler(Events.STARTED, lambda: self.dice.clear())
            engine.add_event_handler(Events.ITERATION_COMPLETED, self._add)
            engine.add_event_handler(Events.COMPLETED, self._add_attention)

    def _add(self, engine: Engine) -> None:
        for batch, item in zip(state_of(engine).batch, state_of(engine).output, strict=True):
            if "flair" not in batch:
                raise KeyError(
                    "the batch has no 'flair', the volume as read, which the report shows: copy 'image' to 'flair' by "
                    "CopyItemsd after loading, as bundle/configs/train.json does, or evaluate with --report false."
                )
            pred, label = item["pred"], item["label"]
            meta = pred.meta
            case = ArchivedCase(
                case=str(meta["case"]),
                image=_smallest_type(_shown(batch["flair"])),
                label=_shown(MetaTensor(convert_to_tensor(label, track_meta=False), affine=pred.affine)) > 0,
                pred=_shown(pred) > 0,
                probability=_probability(item),
                attention=np.zeros((0, *_shown(pred).shape), np.uint8),
                spacing=_shown_spacing(pred),
                spacing_known=bool(meta.get("spacing_known", True)),
                slice_spacing_known=bool(meta.get("slice_spacing_known", True)),
            )
            save_case(self.folder, case)
            self.dice[case.case] = float(compute_dice(pred[None], label[None], ignore_empty=False))

    @torch.no_grad()
    def _add_attention(self, engine: Engine) -> None:
        network: Any = network_of(engine)
        dice = {case: value for part in all_gather_object(self.dice) for case, value in part.items()}
        if not is_main_process() or not self.attention or not hasattr(network, "forward_with_attention"):
            return
        network.eval()
        cases = list(dice)
        if self.progress is not None:
            cases = [str(case["case"]) for case in self.progress.cases]
            dice |= {case: float(record["patient"]["dice"]) for case, record in self.progress.kept.items()}
        for name in gallery(dice):
            item = self.dataset[cases.index(name)]
            image = item["image"]
            slices = image.as_tensor().permute(3, 0, 1, 2).to(next(network.parameters()).device)  # (D, C, h, w)
            attention = [
                torch.cat(network.forward_with_attention(batch.float())[1], dim=1)
                for batch in slices.split(_SLICES_AT_ONCE)
            ]
            # Invertd passes over tensors without metadata, with no more than a warning.
            item["attention"] = MetaTensor(torch.cat(attention).permute(1, 2, 3, 0).cpu())  # (gates, h, w, D)
            coefficients = self.invert(item)["attention"]
            case = load_case(self.folder / f"{name}.npz")
            found = {field.name: getattr(case, field.name) for field in fields(case)}
            found["attention"] = _bytes(np.stack([_shown(gate[None]) for gate in coefficients]))
            save_case(self.folder, ArchivedCase(**found))


def gallery(dice: dict[str, float]) -> dict[str, str]:
    """Choose the cases to show in the gallery: the best, the median and the worst.

    Args:
        dice: Dice of each case.

    Returns:
        ``best``, ``median`` or ``worst`` for each chosen case; fewer than three entries if there are fewer cases.
    """
    ranked = sorted(dice, key=lambda case: (dice[case], case))
    if not ranked:
        return {}
    chosen = {ranked[0]: "worst"}
    chosen.setdefault(ranked[-1], "best")
    chosen.setdefault(ranked[len(ranked) // 2], "median")
    return chosen


def save_case(folder: PathLike | str, case: ArchivedCase) -> None:
    """Write a case as ``<case>.npz``; a partly written file is never left."""
    with atomic_write(Path(folder) / f"{case.case}.npz") as unfinished, unfinished.open("wb") as file:
        arrays: dict[str, Any] = {field.name: np.asarray(getattr(case, field.name)) for field in fields(case)}
        np.savez_compressed(file, **arrays)


def load_case(path: PathLike | str) -> ArchivedCase:
    """Read a case.

    Raises:
        ValueError: when :py:func:`save_case` did not write the file, or the file is damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            found = {field.name: file[field.name] for field in fields(ArchivedCase)}
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path}: is not an archived case of an evaluation ({error}). Run the evaluation again."
        ) from error
    found["spacing"] = tuple(float(step) for step in found["spacing"])
    scalars = {"case": str, "spacing_known": bool, "slice_spacing_known": bool}
    return ArchivedCase(**{name: scalars[name](v) if name in scalars else v for name, v in found.items()})


def _probability(item: Mapping[str, Any]) -> np.ndarray:
    """Probability of tumour in the orientation in which it is shown; without any slice if there is only a mask."""
    if "probability" in item:
        return _bytes(_shown(item["probability"]))
    return np.zeros((*_shown(item["pred"]).shape[:2], 0), np.uint8)


def _shown(volume: MetaTensor) -> np.ndarray:
    """Turn a volume ``(1, H, W, D)`` to the orientation in which it is shown ``(H, W, D)``."""
    return Orientation(axcodes=AXIAL, labels=None)(volume).detach().cpu().numpy()[0]


def _shown_spacing(volume: MetaTensor) -> tuple[float, float, float]:
    oriented = Orientation(axcodes=AXIAL, labels=None)(volume)
    rows, columns, slices = affine_to_spacing(as_meta_tensor(oriented).affine).tolist()
    return rows, columns, slices


def _bytes(fraction: np.ndarray) -> np.ndarray:
    return (fraction.clip(0, 1) * 255).round().astype(np.uint8)


def _smallest_type(volume: np.ndarray) -> np.ndarray:
    low, high = volume.min(), volume.max()
    for dtype in (np.uint8, np.int16, np.uint16):
        if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max and (volume == volume.round()).all():
            return volume.astype(dtype)
    return volume.astype(np.float32)
