"""Write a mask as a DICOM Segmentation that refers to its source series, and read it back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.sr.codedict import codes

from mri_seg.dicom.geometry import Frame, order_frames
from mri_seg.dicom.headers import number_of
from mri_seg.dicom.references import import_highdicom, is_multiframe, parameter_texts, reraise_with_path, source_images
from mri_seg.utils.colors import PREDICTION, Color
from mri_seg.utils.files import atomic_write

if TYPE_CHECKING:
    from highdicom.seg import Segmentation, SegmentDescription

__all__ = ["read_segmentation", "write_label_map", "write_segmentation"]

_LONGEST_SHORT_TEXT = 1024  # characters of VR ST
_SERIES_AFTER_SOURCE = 1000  # added to the series number of the source


def write_segmentation(
    path: PathLike | str,
    mask: np.ndarray,
    files: Sequence[PathLike | str],
    *,
    algorithm_version: str,
    algorithm_parameters: Mapping[str, Any] | None = None,
    remarks: Sequence[str] = (),
    series_description: str = "Tumour segmentation (mri_seg)",
    empty_frames: bool = False,
) -> None:
    """Write a mask as a DICOM Segmentation (SEG) of its source series.

    The SEG is binary with one segment, "Tumour", coded in SNOMED CT as a neoplasm of the brain (DICOM PS3.16, CID 7150,
    7159 and 4031). Its frames are the slices with tumour, each with a reference to its source image or frame. If there
    is no tumour, or with ``empty_frames``, its frames are all slices, because a SEG must have frames, and because older
    OHIF and Cornerstone viewers shift a SEG that leaves some out. Patient, study and frame of reference are
    those of the source; series and instance are new. A partly written file is never left.

    Args:
        path: the file to write.
        mask: ``(H, W, D)``, rows x columns x slices in the grid of ``order_frames(files)``; 1 or True is tumour, 0 or
            False is not.
        files: files of the series in any order: single-frame images, or one multi-frame image.
        algorithm_version: version of the program, at most 64 characters.
        algorithm_parameters: weights and options of the program, by name (AlgorithmParameters).
        remarks: notes on the result, such as "This is not FLAIR." (SegmentDescription).
        series_description: description of the new series, at most 64 characters.
        empty_frames: whether slices without tumour have a frame too.

    Raises:
        ModuleNotFoundError: when highdicom is not installed.
        ValueError: when the mask does not fit the series or is not binary, or when the source lacks an attribute that a
            SEG needs, such as PixelSpacing.

    Example::

        >>> write_segmentation("seg.dcm", mask, files, algorithm_version="0.1.0")  # doctest: +SKIP
        >>> (read_segmentation("seg.dcm", files) == mask).all()  # doctest: +SKIP
        True
    """
    frames = order_frames(files).frames
    sources = source_images(frames)
    mask = _checked(mask, frames, sources)
    tumor = _segment(1, "Tumour", PREDICTION, algorithm_version, algorithm_parameters or {}, remarks)
    _save(
        path,
        mask,
        frames,
        sources,
        [tumor],
        version=algorithm_version,
        content=("TUMOUR", "Brain tumour on FLAIR, found by mri_seg"),
        series_description=series_description,
        empty_frames=empty_frames,
    )


def write_label_map(
    path: PathLike | str,
    labels: np.ndarray,
    segments: Mapping[int, tuple[str, Color]],
    files: Sequence[PathLike | str],
    *,
    content: tuple[str, str],
    algorithm_version: str,
    algorithm_parameters: Mapping[str, Any] | None = None,
    remarks: Sequence[str] = (),
    series_description: str,
) -> None:
    """Write a label map as a DICOM Segmentation of its source series, with a segment for each label.

    Args:
        path: the file to write.
        labels: ``(H, W, D)``, rows x columns x slices in the grid of ``order_frames(files)``; 0 is no segment.
        segments: name and color of each label, which are 1, 2, ...
        files: files of the series in any order.
        content: label (at most 16 characters, upper case) and description of the content.
        algorithm_version: version of the program, at most 64 characters.
        algorithm_parameters: weights and options of the program, by name.
        remarks: notes on the result.
        series_description: description of the new series, at most 64 characters.

    Raises:
        ModuleNotFoundError: when highdicom is not installed.
        ValueError: as :py:func:`write_segmentation`.
    """
    frames = order_frames(files).frames
    sources = source_images(frames)
    _checked(labels > 0, frames, sources)
    described = [
        _segment(number, name, color, algorithm_version, algorithm_parameters or {}, remarks)
        for number, (name, color) in sorted(segments.items())
    ]
    _save(
        path,
        labels.astype(np.uint8),
        frames,
        sources,
        described,
        version=algorithm_version,
        content=content,
        series_description=series_description,
    )


def _save(
    path: PathLike | str,
    pixels: np.ndarray,
    frames: Sequence[Frame],
    sources: Sequence[Dataset],
    segments: Sequence[SegmentDescription],
    *,
    version: str,
    content: tuple[str, str],
    series_description: str,
    empty_frames: bool = False,
) -> None:
    """Write a mask or label map ``(H, W, D)``; a partly written file is never left."""
    highdicom = import_highdicom()
    with reraise_with_path(frames[0].path, "DICOM segmentation"):
        segmentation = highdicom.seg.Segmentation(
            source_images=sources,
            pixel_array=pixels[..., _stored_order(frames, sources)].transpose(2, 0, 1),
            segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=segments,
            series_instance_uid=highdicom.UID(),
            series_number=max(int(number_of(sources[0], "SeriesNumber") or 0), 0) + _SERIES_AFTER_SOURCE,
            sop_instance_uid=highdicom.UID(),
            instance_number=1,
            manufacturer="mri_seg",
            manufacturer_model_name="mri_seg",
            software_versions=version,
            device_serial_number=version,
            content_label=content[0],
            content_description=content[1],
            content_creator_name="mri_seg^",  # a family name, in the form of person names
            series_description=series_description,
            omit_empty_frames=bool(pixels.any()) and not empty_frames,
        )
    with atomic_write(path) as unfinished:
        segmentation.save_as(unfinished, enforce_file_format=True)


def read_segmentation(path: PathLike | str, files: Sequence[PathLike | str]) -> np.ndarray:
    """Read a DICOM Segmentation back into the grid of the series that it refers to.

    Slices without a frame in the SEG are empty; several segments are merged.

    Args:
        path: the SEG file.
        files: files of the series in any order.

    Returns:
        mask ``(H, W, D)``, bool, in the grid of ``order_frames(files)``.

    Raises:
        ModuleNotFoundError: when highdicom is not installed.
        ValueError: when the file is not a SEG, or refers to other images.
    """
    import_highdicom()
    frames = order_frames(files).frames
    sources = source_images(frames)
    segmentation = _read(path)
    _check_reference(path, segmentation, sources)
    if is_multiframe(sources[0]):
        pixels = segmentation.get_pixels_by_source_frame(
            sources[0].SOPInstanceUID,
            [frame.number + 1 for frame in frames],
            assert_missing_frames_are_empty=True,
        )
    else:
        pixels = segmentation.get_pixels_by_source_instance(
            [source.SOPInstanceUID for source in sources],
            assert_missing_frames_are_empty=True,
        )
    return pixels.any(-1).transpose(1, 2, 0)  # (D, H, W, segments) -> (H, W, D)


def _checked(mask: np.ndarray, frames: Sequence[Frame], sources: Sequence[Dataset]) -> np.ndarray:
    expected = (int(sources[0].Rows), int(sources[0].Columns), len(frames))
    if mask.shape != expected:
        raise ValueError(
            f"{frames[0].path}: its series has the shape {expected} (rows, columns, slices), "
            f"but the mask has {mask.shape}. Give the mask in the grid of the series."
        )
    if not np.isin(mask, (0, 1)).all():
        raise ValueError(
            f"{frames[0].path}: the mask of its series holds values from {mask.min()} to {mask.max()}, "
            "expected only 0 and 1. Threshold it first."
        )
    return mask.astype(bool)


def _stored_order(frames: Sequence[Frame], sources: Sequence[Dataset]) -> np.ndarray:
    """Index of the slice in each source image, or in each frame of the multi-frame image: ``(D,)``."""
    if is_multiframe(sources[0]):
        return np.argsort([frame.number for frame in frames])
    return np.arange(len(frames))


def _segment(
    number: int, name: str, color: Color, version: str, parameters: Mapping[str, Any], remarks: Sequence[str]
) -> SegmentDescription:
    highdicom = import_highdicom()
    segment = highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=name,
        segmented_property_category=codes.cid7150.MorphologicallyAbnormalStructure,
        segmented_property_type=codes.cid7159.Neoplasm,
        anatomic_regions=[codes.SCT.Brain],
        algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=highdicom.AlgorithmIdentificationSequence(
            name="mri_seg",
            version=version,
            family=codes.cid7162.ArtificialIntelligence,
            parameters=parameter_texts(parameters) or None,
        ),
        tracking_id=name,
        tracking_uid=highdicom.UID(),
        display_color=highdicom.color.CIELabColor.from_rgb(*color),
    )
    if remarks:
        segment.SegmentDescription = " ".join(remarks)[:_LONGEST_SHORT_TEXT]
    return segment


def _read(path: PathLike | str) -> Segmentation:
    highdicom = import_highdicom()
    try:
        return highdicom.seg.segread(path)
    except FileNotFoundError:
        raise
    except (AttributeError, InvalidDicomError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: cannot be read as a DICOM segmentation ({error}). Give a SEG file of this series."
        ) from error


def _check_reference(path: PathLike | str, segmentation: Segmentation, sources: Sequence[Dataset]) -> None:
    """Refuse a SEG of other images; otherwise it would be read as an empty mask."""
    known = {source.SOPInstanceUID for source in sources}
    referenced = {instance for _, _, instance in segmentation.get_source_image_uids()}
    if not referenced or not referenced <= known:
        raise ValueError(
            f"{path}: refers to {len(referenced)} images, of which {len(referenced - known)} are not among the "
            f"{len(known)} given. Give all files of the series that it segments."
        )
