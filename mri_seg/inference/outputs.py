"""The result of a case, and a function to write each kind of output."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import nibabel
import numpy as np
import tifffile
from monai.data import MetaTensor
from monai.data.utils import affine_to_spacing
from monai.transforms import Orientation, Resize
from PIL import Image

from mri_seg.inference.bids import bids_files, write_bids
from mri_seg.inference.case_quality import CaseQuality
from mri_seg.inference.provenance import result_settings
from mri_seg.measurements.lesions import measure
from mri_seg.quality.frame import HeadFrame
from mri_seg.utils.case_flags import add_flag, case_flags
from mri_seg.utils.files import atomic_write, write_json
from mri_seg.utils.meta_tensors import as_meta_tensor
from mri_seg.utils.orientation import AXIAL
from mri_seg.visualize.case_page import case_page
from mri_seg.visualize.overlays import contact_sheet, panel, save_png, slice_pictures

__all__ = ["OUTPUTS", "OUTPUT_OPTIONS", "PROBSEG", "Result"]


_SQUARE = 0.02  # pixels whose sides differ by less than this fraction are shown as square


_REMARKS = ("flags", "warnings")


_TRAINED = ("checkpoint_version", "checkpoint_date")  # if the weights have a record of their training


_MADE_OF = ("checkpoint_sha256", "ensemble_sha256", "mri_seg_version", *_TRAINED)


_NO_ORIENTATION = (
    "The file does not give the orientation of the head (its qform_code and sform_code are 0), so left and right may "
    "be swapped. Compare with the images, or save the file again with the affine of its source."
)


class Result:
    """The result of a case in the grid of its input; values that several outputs need are computed once.

    Args:
        item: output of the evaluator for the case: ``flair``, the volume ``(1, H, W, D)`` as read, with the metadata
            ``case`` and ``files``; ``pred``, its binary mask; ``probability``; ``label``, if there is a reference; and
            ``pred_classes``, the label value of each voxel, if the network tells classes apart.

    Attributes:
        about: further entries of the measurements: the input, flags, weights and version.
        settings: version, weights and options, from :py:func:`mri_seg.inference.provenance.result_settings`.
        quality: what estimates the quality of the result.
    """

    def __init__(self, item: Mapping[str, Any]) -> None:
        self.quality = CaseQuality(False)
        self.item = item
        self.case = str(item["flair"].meta["case"])
        self.files = [Path(name) for name in item["flair"].meta["files"].split("\n") if name]
        self.about: Mapping[str, Any] = {}
        self.settings: Mapping[str, Any] = result_settings(None)

    def flags(self, case: Mapping[str, Any]) -> list[dict[str, str]]:
        """Flags of the case and of its volume, without duplicates, in the order in which they were raised."""
        meta = self.item["flair"].meta
        if _codes(meta) == (0, 0):
            add_flag(meta, "orientation_unknown", _NO_ORIENTATION)
        keys = ("flair", "image", "pred")
        volumes = [self.item[key].meta for key in keys if isinstance(self.item.get(key), MetaTensor)]
        return _merged(case_flags(case), *map(case_flags, volumes))

    @cached_property
    def affine(self) -> np.ndarray:
        """Affine of the input: voxels to RAS coordinates in mm."""
        return np.asarray(self.item["flair"].affine, dtype=np.float64)

    @cached_property
    def mask(self) -> np.ndarray:
        """Binary mask ``(H, W, D)``, uint8."""
        return (_volume(self.item["pred"]) > 0).astype(np.uint8)

    @cached_property
    def label_map(self) -> np.ndarray:
        """Label value of each voxel ``(H, W, D)``, uint8 or uint16; the binary mask if there is one class."""
        if "pred_classes" not in self.item:
            return self.mask
        values = _volume(self.item["pred_classes"])
        return values.astype(np.uint8 if values.max(initial=0) < 256 else np.uint16)

    @cached_property
    def probability(self) -> np.ndarray:
        """Probability of tumour ``(H, W, D)``, float32."""
        return _volume(self.item["probability"]).astype(np.float32)

    @cached_property
    def measurements(self) -> dict[str, Any]:
        """Volume, lesions and diameters; see :py:func:`mri_seg.measurements.lesions.measure`.

        With them is what :py:meth:`mri_seg.inference.case_quality.CaseQuality.of_case` estimates, and ``look``, why a
        lesion is worth a look.
        """
        known = {key: bool(self.item["flair"].meta.get(key, True)) for key in ("spacing_known", "slice_spacing_known")}
        meta = getattr(self.item["pred"], "meta", {})
        frame = HeadFrame.from_text(meta.get("head_frame"))
        midline = None if frame is None else frame.midline
        found = measure(self.mask, self.affine, case=self.case, probability=self.probability, midline=midline, **known)
        for lesion, why in zip(found["lesions"], json.loads(meta.get("looks") or "[]")):
            if why:
                lesion["look"] = why
        return {"case": found["case"], **self.about, **found, **self.quality.of_case(found, self.probability)}

    @cached_property
    def slices(self) -> list[np.ndarray]:
        """One picture ``(h, w, 3)`` per axial slice, with outlines."""
        label = self._shown("label") if self.has_label else None
        return slice_pictures(self._shown("flair"), self._shown("pred"), label)

    @property
    def has_label(self) -> bool:
        """Whether the case has a reference."""
        return isinstance(self.item.get("label"), MetaTensor)

    @cached_property
    def panel(self) -> np.ndarray:
        """Panel in the published style ``(h, w, 3)``; needs a reference."""
        return panel(self._shown("flair"), self._shown("pred"), self._shown("label"))

    @property
    def page(self) -> str:
        """The case as one HTML document."""
        image = self._axial("flair")
        rows, columns, _ = affine_to_spacing(image.affine).tolist()
        masks = [_volume(self._axial(key)) for key in ("pred", "probability", *(["label"] if self.has_label else []))]
        if "expected_dice" in self.measurements and self.quality.calibration is not None:
            masks[1] = self.quality.calibration(masks[1])
        return case_page(self.measurements, _volume(image), *masks, pixel_height=rows / columns)

    def _axial(self, key: str) -> MetaTensor:
        """A volume with rows to posterior, columns to the patient's left and slices to superior."""
        return as_meta_tensor(Orientation(axcodes=AXIAL, labels=None)(self.item[key]))

    def _shown(self, key: str) -> np.ndarray:
        """A volume in the orientation of pictures: rows to posterior, columns to the patient's left, square pixels."""
        volume = self._axial(key)
        rows, columns, _ = affine_to_spacing(volume.affine).tolist()
        if abs(rows / columns - 1) < _SQUARE:
            return _volume(volume)
        size = (round(volume.shape[1] * max(rows / columns, 1)), round(volume.shape[2] * max(columns / rows, 1)), -1)
        return _volume(as_meta_tensor(Resize(size, mode="trilinear" if key == "flair" else "nearest")(volume)))


class Output(NamedTuple):
    """A kind of output.

    Attributes:
        names: function that names its files for a case.
        write: function that writes them; it takes the folder in which they lie.
        at_root: whether they lie in the output folder, and not in that of the case.
    """

    names: Callable[[Mapping[str, Any]], list[str]]
    write: Callable[[Path, Result], None]
    at_root: bool = False

    def folder(self, output_dir: Path, case: str) -> Path:
        """The folder in which its files lie, whose names may have folders of their own."""
        return output_dir if self.at_root else output_dir / case

    def files(self, output_dir: Path, case: Mapping[str, Any]) -> list[Path]:
        """Its files for a case."""
        return [self.folder(output_dir, case["case"]) / name for name in self.names(case)]


def _write_nifti(path: Path, volume: np.ndarray, result: Result) -> None:
    """Write a volume with the geometry of the input; if that is NIfTI, with the same qform and sform codes."""
    meta = result.item["flair"].meta
    qform_code, sform_code = _codes(meta) or (1, 1)
    image = nibabel.Nifti1Image(volume, result.affine)
    image.set_qform(_qform(meta) if _codes(meta) and qform_code else result.affine, code=qform_code)
    image.set_sform(result.affine, code=sform_code)
    image.header.set_xyzt_units("mm")
    with atomic_write(path) as unfinished:
        nibabel.save(image, unfinished)


def _codes(meta: Mapping[str, Any]) -> tuple[int, int] | None:
    """``qform_code`` and ``sform_code`` of a NIfTI file; None for other files."""
    qform, sform = (meta.get(name) for name in ("qform_code", "sform_code"))
    return None if qform is None or sform is None else (int(qform), int(sform))


def _qform(meta: Mapping[str, Any]) -> np.ndarray:
    """The qform affine of a NIfTI file, which may differ from its sform; its main affine if the qform is damaged."""
    header = nibabel.Nifti1Header()
    for name in ("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"):
        header[name] = float(meta[name])
    header["pixdim"][:4] = np.asarray(meta["pixdim"])[:4]
    try:
        qform = header.get_qform()
        damaged = not np.isfinite(qform).all() or np.linalg.det(qform) == 0
    except ValueError:
        damaged = True
    return np.asarray(meta["affine"]) if damaged else qform


def _write_mask(folder: Path, result: Result) -> None:
    _write_nifti(folder / f"{result.case}_mask.nii.gz", result.label_map, result)


def _write_probability(folder: Path, result: Result) -> None:
    _write_nifti(folder / f"{result.case}_probability.nii.gz", result.probability, result)


def _slice_names(case: Mapping[str, Any]) -> list[str]:
    return [_slice_name(Path(file)) for file in case["image"]]


def _slice_name(file: Path) -> str:
    """``x_7.tif`` gives ``x_7_mask.tif``; masks of JPEG files are PNG, because JPEG is lossy."""
    return f"{file.stem}_mask{file.suffix if file.suffix.lower() in ('.tif', '.tiff') else '.png'}"


def _write_slices(folder: Path, result: Result) -> None:
    """Write one mask per slice with values 0 and 255, as in TCGA-LGG."""
    masks = result.mask.transpose(2, 0, 1) * 255  # (D, H, W)
    for file, mask in zip(result.files, masks if len(result.files) == len(masks) else [masks], strict=True):
        name = _slice_name(file)
        with atomic_write(folder / name) as unfinished:
            if name.endswith(".png"):
                Image.fromarray(mask).save(unfinished)
            else:
                tifffile.imwrite(unfinished, mask, photometric="minisblack", compression="deflate")


def _write_segmentation(folder: Path, result: Result) -> None:
    from mri_seg.dicom.seg import write_segmentation

    options = result.settings.get("output_options", {})
    write_segmentation(
        folder / f"{result.case}_seg.dcm",
        result.mask,
        result.files,
        empty_frames=options.get("seg_empty_frames", False),
        **_algorithm(result),
    )


def _write_report(folder: Path, result: Result) -> None:
    from mri_seg.dicom.sr import write_report

    path, segmentation = folder / f"{result.case}_sr.dcm", folder / f"{result.case}_seg.dcm"
    write_report(path, result.measurements, segmentation, result.files, **_algorithm(result))


def _algorithm(result: Result) -> dict[str, Any]:
    """Version, parameters and remarks for DICOM files."""
    options = result.settings["options"]
    values = {key: value for key, value in options.items() if not str(value).startswith("sha256:")}
    sums = {
        key: value for key, value in result.settings.items() if (key.endswith("_sha256") or key in _TRAINED) and value
    }
    return {
        "algorithm_version": result.settings["mri_seg_version"],
        "algorithm_parameters": {**sums, **values},
        "remarks": [flag["message"] for flag in result.about.get("flags", [])],
    }


def _write_measurements(folder: Path, result: Result) -> None:
    write_json(folder / f"{result.case}_measurements.json", result.measurements)


def _write_bids(folder: Path, result: Result) -> None:
    write_bids(folder, result, ("mask", "roi"), partial(_write_nifti, result=result))


def _write_probseg(folder: Path, result: Result) -> None:
    write_bids(folder, result, ("probseg",), partial(_write_nifti, result=result))


def _write_sheet(folder: Path, result: Result) -> None:
    save_png(folder / f"{result.case}_sheet.png", contact_sheet(result.slices, with_reference=result.has_label))


def _write_panel(folder: Path, result: Result) -> None:
    save_png(folder / f"{result.case}_panel.png", result.panel)


def _write_page(folder: Path, result: Result) -> None:
    with atomic_write(folder / f"{result.case}.html") as unfinished:
        unfinished.write_text(result.page, encoding="utf-8")


def _named(ending: str) -> Callable[[Mapping[str, Any]], list[str]]:
    return lambda case: [f"{case['case']}{ending}"]


PROBSEG = "bids_probability"
"""The output that is written if both ``bids`` and ``probability`` are requested."""

OUTPUTS = {
    "mask": Output(_named("_mask.nii.gz"), _write_mask),
    "probability": Output(_named("_probability.nii.gz"), _write_probability),
    "slices": Output(_slice_names, _write_slices),
    "seg": Output(_named("_seg.dcm"), _write_segmentation),
    "measurements": Output(_named("_measurements.json"), _write_measurements),
    "sr": Output(_named("_sr.dcm"), _write_report),
    "sheet": Output(_named("_sheet.png"), _write_sheet),
    "panel": Output(_named("_panel.png"), _write_panel),
    "page": Output(_named(".html"), _write_page),
    "bids": Output(bids_files, _write_bids, at_root=True),
    PROBSEG: Output(lambda case: bids_files(case, ("probseg",)), _write_probseg, at_root=True),
}
"""All kinds of output, in the order in which they are written: a DICOM SR refers to the SEG before it."""


_FITTING = {
    "slices": lambda case: case.get("source") in ("tiff", "picture"),
    "seg": lambda case: case.get("source") == "dicom",
    "sr": lambda case: case.get("source") == "dicom",
    "panel": lambda case: "label" in case,
}


OUTPUT_OPTIONS = {"seg_empty_frames": "seg", "lesion_dilation": "bids"}
"""Options that change an output and nothing else, with that output."""


_AUTO = ("mask", "slices", "seg", "measurements", "sheet", "panel", "page")


def _merged(*flags: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """Merge flags without duplicates; their messages get a capital letter, since logs show them after a name."""
    found: list[dict[str, str]] = []
    for raised in itertools.chain(*flags):
        message = raised["message"]
        sentence = {"name": raised["name"], "message": message[:1].upper() + message[1:]}
        if sentence not in found:
            found.append(sentence)
    return found


def _volume(volume: MetaTensor) -> np.ndarray:
    return volume.detach().cpu().numpy()[0]
