"""Write what inference finds: a mask a slice for TIFF input, and pictures of every case."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Orientation, Transform

from mri_seg.pictures import contact_sheet, panel, save_png

__all__ = ["SavePicturesd", "SaveSliceMasksd", "case_file_name"]

_DISPLAY = "PLS"  # rows towards posterior, columns towards the patient's left, slices upwards


def case_file_name(metadata: Mapping[str, Any] | None, saver: Transform | None = None) -> dict[str, Any]:
    """Name outputs after the case: ``output_name_formatter`` of MONAI's ``SaveImage``.

    Args:
        metadata: metadata of the volume, with the key ``case``.
        saver: the transform that asks; not used.

    Returns:
        arguments of MONAI's ``FolderLayout.filename``.
    """
    # MONAI takes what follows the last dot for a file's suffix and drops it.
    return {"subject": f"{(metadata or {})['case']}.nii", "idx": None}


class SaveSliceMasksd(MapTransform):
    """Write a TIFF mask for each TIFF file a case came from, named like it: ``x_7.tif`` gives ``x_7_mask.tif``.

    Masks hold 0 and 255, as TCGA-LGG's do. Cases from other files are passed over.

    Args:
        keys: keys of binary masks ``(1, H, W, D)`` in the geometry of the input.
        output_dir: folder that gets a folder for each case.
    """

    def __init__(self, keys: KeysCollection, output_dir: PathLike | str) -> None:
        super().__init__(keys)
        self.output_dir = Path(output_dir)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Write the masks; the data pass through unchanged."""
        for key in self.key_iterator(data):
            files = [Path(name) for name in data[key].meta["files"].split("\n")]
            if all(file.suffix.lower() in (".tif", ".tiff") for file in files):
                masks = (_volume(data[key]) > 0).astype(np.uint8).transpose(2, 0, 1) * 255  # (D, H, W)
                folder = self.output_dir / str(data[key].meta["case"])
                folder.mkdir(parents=True, exist_ok=True)
                for file, mask in zip(files, masks if len(files) == len(masks) else [masks], strict=True):
                    path = folder / f"{file.stem}_mask.tif"
                    unfinished = path.with_name(f".{path.name}.part")
                    tifffile.imwrite(unfinished, mask, photometric="minisblack", compression="deflate")
                    unfinished.replace(path)
        return dict(data)


class SavePicturesd(Transform):
    """Write pictures of a case: a contact sheet, and with a reference the panel in the published style.

    Args:
        output_dir: folder that gets a folder for each case.
        image_key: key of the FLAIR volume ``(1, H, W, D)`` as read.
        pred_key: key of the binary prediction in the same geometry.
        label_key: key of the binary reference in the same geometry; may be missing from a case.
    """

    def __init__(
        self,
        output_dir: PathLike | str,
        *,
        image_key: str = "flair",
        pred_key: str = "pred",
        label_key: str = "label",
    ) -> None:
        self.output_dir = Path(output_dir)
        self.image_key = image_key
        self.pred_key = pred_key
        self.label_key = label_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Write the pictures; the data pass through unchanged."""
        orient = Orientation(axcodes=_DISPLAY, labels=None)
        image = _volume(orient(data[self.image_key]))
        pred = _volume(orient(data[self.pred_key]))
        label = data.get(self.label_key)
        label = _volume(orient(label)) if isinstance(label, torch.Tensor) else None
        case = str(data[self.pred_key].meta["case"])
        save_png(self.output_dir / case / f"{case}_sheet.png", contact_sheet(image, pred, label))
        if label is not None:
            save_png(self.output_dir / case / f"{case}_panel.png", panel(image, pred, label))
        return dict(data)


def _volume(volume: MetaTensor) -> np.ndarray:
    return volume.detach().cpu().numpy()[0]
