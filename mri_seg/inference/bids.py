"""Write the results of a BIDS image as BIDS derivatives, with the lesion mask that fMRIPrep and QSIPrep look for.

Sources: BIDS derivatives of imaging data, https://bids-specification.readthedocs.io; fMRIPrep's documentation on
"Defacing, and lesions", https://fmriprep.org (``_roi``: voxels of the lesion are 1).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from monai.data.utils import affine_to_spacing
from scipy import ndimage

from mri_seg.io.bids_names import BIDS_FORM, GENERATOR, bids_root, derivative_names, is_generated
from mri_seg.utils.files import atomic_write, read_json, write_json

__all__ = ["bids_files", "check_bids_case", "check_bids_folder", "dilated", "write_bids"]

BIDS_VERSION = "1.10.0"
"""Version of the specification that the derivatives follow."""

# Results of other kinds in the same folder, and a suffix that BIDS does not have; in the form of a .gitignore.
_IGNORED = "/sub-*_*\n/*_sub-*_*\n/*.csv\n/*.html\n/summary.json\n*_roi.nii.gz\n*_roi.json\n"
_MEANINGS = {
    "mask": "Mask of the FLAIR abnormality of a tumour: 1 is tumour, 0 is not.",
    "probseg": "Probability of the FLAIR abnormality of a tumour, 0 to 1.",
    "roi": "Lesion mask for registration: 1 is tumour, 0 is not. It is in the grid of the FLAIR image: resample it to "
    "that of the T1w image for pipelines that expect it there.",
}


class CaseResult(Protocol):
    """What derivatives need of a :py:class:`mri_seg.inference.outputs.Result`."""

    files: list[Path]
    about: Mapping[str, Any]
    settings: Mapping[str, Any]

    @property
    def mask(self) -> np.ndarray:
        """Binary mask ``(H, W, D)``."""

    @property
    def probability(self) -> np.ndarray:
        """Probability of tumour ``(H, W, D)``."""

    @property
    def affine(self) -> np.ndarray:
        """Voxels to RAS coordinates in mm."""


def bids_files(case: Mapping[str, Any], suffixes: Sequence[str] = ("mask", "roi")) -> list[str]:
    """Names of the derivatives of a case, and of the JSON files beside them, below the output folder.

    Args:
        case: a case of :py:func:`mri_seg.io.cases.find_cases`.
        suffixes: keys of :py:data:`mri_seg.io.bids_names.DERIVATIVES`.

    Returns:
        the names; none for a case that is not a BIDS image.
    """
    images = case.get("image", ())
    names = derivative_names(images[0]) if len(images) == 1 else None
    return [part for suffix in suffixes if names for part in (names[suffix], _described(names[suffix]))]


def check_bids_case(case: Mapping[str, Any], taken: dict[str, str]) -> str | None:
    """Why a case cannot get BIDS derivatives; None if it can.

    Args:
        case: a case of :py:func:`mri_seg.io.cases.find_cases`.
        taken: names of derivatives with the case that has each; those of this case are added.

    Returns:
        the reason, with what was found, what is expected, and what to do.
    """
    files = bids_files(case)
    if not files:
        images = list(case.get("image", ()))
        count = "" if len(images) == 1 else f"{len(images)} files, such as "
        return (
            f"--outputs bids: expected one NIfTI file named as BIDS names it, {BIDS_FORM}; found {count}{images[0]}. "
            "Rename the input, or leave bids out of --outputs."
        )
    if (other := taken.get(files[0])) is not None:
        return (
            f"--outputs bids: its derivative {files[0]} would be that of {other} as well. "
            "Segment each data set into an output folder of its own."
        )
    taken.update(dict.fromkeys(files, str(case["case"])))
    return None


def check_bids_folder(folder: Path) -> None:
    """Refuse an output folder that is a data set of another origin, such as the raw images.

    Raises:
        ValueError: when its ``dataset_description.json`` does not say that this program made it.
    """
    file = folder / "dataset_description.json"
    if file.is_file() and not is_generated(found := read_json(file)):
        name, kind = found.get("Name", "without a name"), found.get("DatasetType", "raw")
        raise ValueError(
            f"{file}: describes another data set ({name}, {kind}), expected a folder for derivatives of {GENERATOR} "
            f"alone. Give --output_dir {folder / 'derivatives' / GENERATOR}, for example."
        )


def dilated(mask: np.ndarray, affine: np.ndarray, distance: float) -> np.ndarray:
    """Dilate a mask by a distance in mm.

    Args:
        mask: binary mask ``(H, W, D)``.
        affine: voxels to coordinates in mm.
        distance: largest distance of an added voxel's center from that of a voxel of the mask, in mm.

    Returns:
        the mask ``(H, W, D)``, uint8.
    """
    if not distance or not mask.any():
        return mask.astype(np.uint8)
    spacing = np.asarray(affine_to_spacing(affine))
    far = ndimage.distance_transform_edt(mask == 0, sampling=spacing)
    return (far <= distance).astype(np.uint8)


def write_bids(
    folder: Path, result: CaseResult, suffixes: Sequence[str], write_nifti: Callable[[Path, np.ndarray], None]
) -> None:
    """Write derivatives of a case, and the files of their data set that do not exist or have changed.

    The JSON file of a derivative is written before it, because it says where the derivative comes from.

    Args:
        folder: root of the derivatives.
        result: the result; its settings have ``lesion_dilation`` in mm.
        suffixes: keys of :py:data:`mri_seg.io.bids_names.DERIVATIVES`.
        write_nifti: function that writes a volume with the geometry of the input.

    Raises:
        ValueError: when the input is not a BIDS image, or the folder is a data set of another origin.
    """
    (image,) = result.files
    names = derivative_names(image)
    if names is None:
        raise ValueError(f"{image}: expected a NIfTI file named as BIDS names it, {BIDS_FORM}.")
    check_bids_folder(folder)
    source = _describe_dataset(folder, image, result)
    dilation = float(result.settings.get("output_options", {}).get("lesion_dilation", 0))
    volumes = {
        "mask": lambda: result.mask,
        "probseg": lambda: result.probability,
        "roi": lambda: dilated(result.mask, result.affine, dilation),
    }
    for suffix in suffixes:
        described = _sidecar(suffix, source, result)
        if suffix == "roi":
            described["DilationInMm"] = dilation
        write_json(folder / _described(names[suffix]), described)
        write_nifti(folder / names[suffix], volumes[suffix]())


def _described(name: str) -> str:
    """The JSON file beside a derivative."""
    return f"{name.removesuffix('.nii.gz')}.json"


def _sidecar(suffix: str, source: str, result: CaseResult) -> dict[str, Any]:
    settings = result.settings
    found: dict[str, Any] = {"Description": _MEANINGS[suffix]}
    if suffix != "probseg":
        found["Type"] = "Lesion"
    found |= {"Sources": [source], "SpatialReference": "orig"}
    found["GeneratedBy"] = [{"Name": GENERATOR, "Version": settings["mri_seg_version"]}]
    found |= {key: value for key, value in settings.items() if key.startswith(("checkpoint", "ensemble")) and value}
    if "threshold" in settings["options"] and suffix != "probseg":
        found["Threshold"] = settings["options"]["threshold"]
    if warnings := [flag["message"] for flag in result.about.get("flags", [])]:
        found["Warnings"] = warnings
    return found


def _describe_dataset(folder: Path, image: Path, result: CaseResult) -> str:
    """Write ``dataset_description.json`` and ``.bidsignore``; returns the BIDS URI of the image."""
    file = folder / "dataset_description.json"
    before = read_json(file) if file.is_file() else {}
    links = dict(before.get("DatasetLinks", {}))
    root = bids_root(image)
    if root is None:
        source = image.name
    else:
        place = _relative(root, folder)
        name = next((name for name, other in links.items() if other == place), None)
        name = name or ("raw" if "raw" not in links else f"raw{len(links) + 1}")
        links[name] = place
        source = f"bids:{name}:{image.absolute().relative_to(root).as_posix()}"
    now = {
        "Name": "Tumour masks on FLAIR",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [
            {
                "Name": GENERATOR,
                "Version": result.settings["mri_seg_version"],
                "Description": "Masks of the FLAIR abnormality of lower-grade glioma by an Attention U-Net. Research "
                "software: not a medical device.",
            }
        ],
        **({"DatasetLinks": links} if links else {}),
    }
    if now != before:
        write_json(file, now)
    if not (ignored := folder / ".bidsignore").is_file():
        with atomic_write(ignored) as unfinished:
            unfinished.write_text(_IGNORED, encoding="utf-8")
    return source


def _relative(root: Path, folder: Path) -> str:
    """Path of a data set as a relative URI from the derivatives; absolute on another drive."""
    try:
        return Path(os.path.relpath(root, folder.absolute())).as_posix()
    except ValueError:
        return root.as_uri()
