"""Prepare the headers of the source images to which written DICOM files (SEG, SR) refer."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from os import PathLike
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pydicom
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.valuerep import format_number_as_ds, validate_value

from mri_seg.dicom.geometry import Frame
from mri_seg.dicom.headers import source_headers
from mri_seg.dicom.quiet import quiet_pydicom

__all__ = ["import_highdicom", "is_multiframe", "parameter_texts", "reraise_with_path", "source_images"]

# Only these attributes of patient and study are copied; highdicom would copy all of their modules, valid or not.
_IDENTIFIERS = (  # copied unchanged, valid or not, because archives find patient and study by them
    "PatientID",
    "PatientName",
    "AccessionNumber",
    "StudyInstanceUID",
)
_DESCRIPTIONS = (  # copied if they are valid
    "PatientBirthDate",
    "PatientSex",
    "PatientAge",
    "PatientSize",
    "PatientWeight",
    "IssuerOfPatientID",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "DeidentificationMethodCodeSequence",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "StudyDescription",
    "ReferringPhysicianName",
    "ProcedureCodeSequence",
)
_TRIAL = (  # copied if they are valid and the first three are all present
    "ClinicalTrialSponsorName",
    "ClinicalTrialProtocolID",
    "ClinicalTrialSubjectID",
    "ClinicalTrialProtocolName",
    "ClinicalTrialSiteID",
    "ClinicalTrialSiteName",
)
_OF_PATIENT_AND_STUDY = {0x0010, 0x0012, 0x0032, 0x0038, 0x0040}  # groups without other attributes that are needed
_OTHERS = (
    "ConsultingPhysicianName",
    "PhysiciansOfRecord",
    "NameOfPhysiciansReadingStudy",
    "AdmittingDiagnosesDescription",
)
_ENUMERATED = {"PatientSex": {"M", "F", "O"}, "PatientIdentityRemoved": {"YES", "NO"}}
_TIME = re.compile(r"([01]\d|2[0-3])([0-5]\d([0-5]\d(\.\d{1,6})?)?)?")
_TYPE_2 = (  # attributes that may be empty but not missing by the standard; anonymized files often lack them
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
)


def import_highdicom() -> ModuleType:
    """Import highdicom, with its modules for segmentations and structured reports.

    Raises:
        ModuleNotFoundError: when highdicom is not installed; the message names the extra.
    """
    try:
        import highdicom
        import highdicom.seg
        import highdicom.sr
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f'Writing DICOM needs highdicom ({error}). Install the extra: pip install "mri_seg[dicom]".'
        ) from error
    return highdicom


def source_images(frames: Sequence[Frame]) -> list[Dataset]:
    """Read the headers of the images that hold the frames, ready to be referenced.

    Only the copies in memory are changed. Of patient and study, only valid attributes that identify or describe them
    are kept, and missing ones are added empty. Orientation and pixel spacing are given once for all frames. The
    distance between slices comes from the positions of the frames, because scanners use SpacingBetweenSlices in
    different ways. It also replaces a missing slice thickness.

    Args:
        frames: the frames of one series, in slice order.

    Returns:
        one header per frame, in slice order, or the header of the single multi-frame file.

    Raises:
        ValueError: when the frames are in several multi-frame files, are only a part of their multi-frame file, or lack
            PixelSpacing or FrameOfReferenceUID, which a DICOM file that refers to them needs.
    """
    paths = list(dict.fromkeys(frame.path for frame in frames))
    images = source_headers(paths)
    several = [path for path, image in zip(paths, images) if is_multiframe(image)]
    if several and len(paths) > 1:
        raise ValueError(
            f"{several[0]}: is a multi-frame file among {len(paths)} files, expected it alone. "
            "Give single-frame files, or one multi-frame file."
        )
    if several and images[0].NumberOfFrames != len(frames):
        raise ValueError(
            f"{paths[0]}: holds {images[0].NumberOfFrames} frames, expected the {len(frames)} of one volume. "
            "Give a file that holds one volume."
        )
    for path, image in zip(paths, images):
        _remove_invalid(image)
        _add_missing(image)
        _share_geometry(image, images[0])
        _require(path, image)
    _set_thickness(images[0], frames)
    return images


def parameter_texts(parameters: Mapping[str, Any]) -> dict[str, str]:
    """Parameters of an algorithm as text, without the separators that highdicom uses between parameters."""
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in parameters.items()}
    return {name: re.sub(r"[,=\\]\s*", " ", text).strip() for name, text in texts.items()}


def is_multiframe(image: Dataset) -> bool:
    """Whether an image has functional groups for each frame, like Enhanced MR."""
    return "PerFrameFunctionalGroupsSequence" in image


@contextmanager
def reraise_with_path(path: PathLike | str, what: str) -> Iterator[None]:
    """Reraise highdicom's errors for unsuitable headers as an error that names the file.

    Args:
        path: the file whose header causes the error.
        what: what is being written.
    """
    try:
        with quiet_pydicom(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # for values of the source that are copied unchanged
            yield
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: no {what} can refer to this file ({type(error).__name__}: {error}). "
            "Check its header, for example with dciodvfy, and repair it or export the series again."
        ) from error


def _remove_invalid(image: Dataset) -> None:
    """Remove attributes of patient and study that are invalid, or would be in another kind of file."""
    for element in list(image):
        keyword = element.keyword
        if keyword in _IDENTIFIERS:
            continue
        if keyword in _DESCRIPTIONS or keyword in _TRIAL:
            if not _is_valid(element):
                del image[element.tag]
        elif (
            element.tag.group in _OF_PATIENT_AND_STUDY
            or keyword in _OTHERS
            or (element.tag.group == 0x0008 and element.VR == "SQ")
        ):
            del image[element.tag]
    method = "DeidentificationMethod" in image or "DeidentificationMethodCodeSequence" in image
    if image.get("PatientIdentityRemoved") == "YES" and not method:
        del image.PatientIdentityRemoved
    in_trial = all(keyword in image for keyword in _TRIAL[:3])
    for keyword in _TRIAL:
        if not in_trial:
            image.pop(keyword, None)
        elif keyword not in image:
            setattr(image, keyword, "")


def _is_valid(element: DataElement) -> bool:
    """Whether an attribute has one valid value or, for a sequence of codes, only complete codes."""
    if element.VR == "SQ":
        return bool(element.value) and all(map(_is_code, element.value))
    text = str(element.value if element.value is not None else "")
    if not text or element.VM != 1 or text not in _ENUMERATED.get(element.keyword, {text}):
        return False
    if element.VR == "TM":
        return _TIME.fullmatch(text) is not None
    if element.VR == "PN" and max(group.count("^") for group in text.split("=")) > 4:
        return False
    try:
        validate_value(element.VR, text, pydicom.config.RAISE)
        return element.VR != "DA" or bool(datetime.strptime(text, "%Y%m%d") and len(text) == 8)
    except ValueError:
        return False


def _is_code(item: Dataset) -> bool:
    """Whether an item has a code, its scheme and its meaning."""
    needed = ("CodeValue", "CodingSchemeDesignator", "CodeMeaning")
    return all(keyword in item and _is_valid(item[keyword]) for keyword in needed)


def _add_missing(image: Dataset) -> None:
    """Add missing attributes as empty ones; remove NumberOfFrames from a single-frame image."""
    for keyword in _TYPE_2:
        if keyword not in image:
            setattr(image, keyword, "")
    if not is_multiframe(image):
        image.pop("NumberOfFrames", None)


def _share_geometry(image: Dataset, first: Dataset) -> None:
    """Give all frames, which may differ by rounding, the same orientation in the place where highdicom reads it."""
    if not is_multiframe(image):
        image.ImageOrientationPatient = first.ImageOrientationPatient
        image.pop("SpacingBetweenSlices", None)
        return
    shared = _shared(image)
    each = image.PerFrameFunctionalGroupsSequence
    for keyword in ("PlaneOrientationSequence", "PixelMeasuresSequence"):
        if keyword not in shared and keyword in each[0]:
            setattr(shared, keyword, each[0][keyword].value)
    if "PlanePositionSequence" in shared:
        for frame in each:
            frame.PlanePositionSequence = shared.PlanePositionSequence
    for measures in shared.get("PixelMeasuresSequence", []):
        measures.pop("SpacingBetweenSlices", None)


def _shared(image: Dataset) -> Dataset:
    """Shared functional groups of a multi-frame image; added if missing."""
    if not image.get("SharedFunctionalGroupsSequence"):
        image.SharedFunctionalGroupsSequence = [Dataset()]
    return image.SharedFunctionalGroupsSequence[0]


def _measures(image: Dataset) -> Dataset:
    """The part of an image's header that holds pixel spacing and slice thickness."""
    if not is_multiframe(image):
        return image
    return next(iter(_shared(image).get("PixelMeasuresSequence", [])), Dataset())


def _require(path: Path, image: Dataset) -> None:
    for name, value in (
        ("PixelSpacing", _measures(image).get("PixelSpacing")),
        ("FrameOfReferenceUID", image.get("FrameOfReferenceUID")),
    ):
        if not value:
            raise ValueError(
                f"{path}: has no {name}, which a DICOM segmentation (SEG) or report (SR) needs. "
                "Use the NIfTI mask, or export the series again from its source."
            )


def _set_thickness(image: Dataset, frames: Sequence[Frame]) -> None:
    """Replace a missing slice thickness, which a SEG must have, by the slice distance; leave it empty for one slice."""
    measures = _measures(image)
    if measures.get("SliceThickness") is None:
        extent = np.linalg.norm(np.subtract(frames[-1].position, frames[0].position))
        measures.SliceThickness = format_number_as_ds(float(extent) / (len(frames) - 1)) if len(frames) > 1 else None
