"""Write the measurements of a tumour as a DICOM Structured Report that refers to its segmentation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from nibabel.orientations import io_orientation
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import SegmentationStorage, generate_uid

from mri_seg.dicom.geometry import FrameGrid, order_frames
from mri_seg.dicom.headers import read_header
from mri_seg.dicom.references import import_highdicom, is_multiframe, parameter_texts, reraise_with_path, source_images
from mri_seg.utils.files import atomic_write

if TYPE_CHECKING:
    from highdicom.sr import (
        AlgorithmIdentification,
        Measurement,
        MeasurementReport,
        ObservationContext,
        ReferencedSegment,
        VolumetricROIMeasurementsAndQualitativeEvaluations,
    )
    from pydicom.sr.coding import Code

__all__ = ["make_report", "observer", "write_report"]

_SERIES_AFTER_SEGMENTATION = 1000  # added to the series number of the segmentation


def write_report(
    path: PathLike | str,
    measurements: Mapping[str, Any],
    segmentation: PathLike | str,
    files: Sequence[PathLike | str],
    *,
    algorithm_version: str,
    algorithm_parameters: Mapping[str, Any] | None = None,
    remarks: Sequence[str] = (),
    series_description: str = "Tumour measurements (mri_seg)",
) -> None:
    """Write measurements as a DICOM Structured Report (SR) with the template Measurement Report (PS3.16, TID 1500).

    The report holds measurement groups of regions in space (TID 1411), which refer to the segment of the SEG file:

    - one for the whole tumour: number of lesions, and total volume (cm3, which is mL);
    - one per lesion, the largest first: volume (cm3), largest axial area (mm2), long axis (mm) and short axis, the
      longest segment perpendicular to it (mm). The SEG has one segment for all lesions. If the series is axial, the
      source images to which a group refers show in which slices its lesion lies.

    Names of measurements and units are those of PS3.16, CID 7470 to 7472 and 7460 to 7462. The product of the two axes
    has no standard code and is left out. A report without lesions gives the number 0 and the volume 0, and no finding.
    It is marked as complete, preliminary and not verified by a person. A partly written file is never left.

    Args:
        path: the file to write.
        measurements: result of :py:func:`mri_seg.measurements.lesions.measure` for the mask.
        segmentation: the SEG file of the mask, from ``write_segmentation``.
        files: files of the series in any order.
        algorithm_version: version of the program, at most 64 characters.
        algorithm_parameters: weights and options of the program, by name.
        remarks: notes on the result, such as "This is not FLAIR."; they become comments on the whole tumour.
        series_description: description of the new series, at most 64 characters.

    Raises:
        ModuleNotFoundError: when highdicom is not installed.
        ValueError: when measurements are in voxels because the spacing is unknown, when the SEG is not of this series
            or does not contain the slices of a lesion, or when the source lacks an attribute that an SR needs.

    Example::

        >>> write_segmentation("seg.dcm", mask, files, algorithm_version="0.1.0")  # doctest: +SKIP
        >>> write_report("sr.dcm", measurements, "seg.dcm", files, algorithm_version="0.1.0")  # doctest: +SKIP
    """
    import_highdicom()  # or an error that names the extra, before anything is read
    _require_spacing(measurements, files)
    grid = order_frames(files)
    sources = source_images(grid.frames)
    segment = _Segment(segmentation, grid, sources)
    algorithm = _Algorithm(algorithm_version, parameter_texts(algorithm_parameters or {}))
    content = _content(measurements, segment, algorithm, remarks)
    with reraise_with_path(segmentation, "DICOM report"):
        report = make_report(segment.dataset, sources, content, algorithm_version, series_description)
    with atomic_write(path) as unfinished:
        report.save_as(unfinished, enforce_file_format=True)


def make_report(segment: Dataset, sources: Sequence[Dataset], content: Any, version: str, description: str) -> Any:
    """Make a DICOM report of a segmentation.

    Args:
        segment: the SEG, in whose study the report lies.
        sources: the images that the report refers to.
        content: the measurement report (TID 1500).
        version: version of the program.
        description: description of the new series.

    Returns:
        the ``Comprehensive3DSR`` of highdicom.
    """
    highdicom = import_highdicom()
    return highdicom.sr.Comprehensive3DSR(
        evidence=[segment, *sources],
        content=content[0],
        series_instance_uid=highdicom.UID(),
        series_number=int(segment.SeriesNumber) + _SERIES_AFTER_SEGMENTATION,
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        manufacturer="mri_seg",
        manufacturer_model_name="mri_seg",
        software_versions=version,
        device_serial_number=version,
        series_description=description,
        is_complete=True,
        is_final=False,
        is_verified=False,
    )


class _Segment:
    """References of a report to the segment of a SEG file and to its source images.

    Args:
        path: the SEG file.
        grid: frames of the series, in order.
        sources: headers of its images: one per frame, or that of a multi-frame image.
    """

    def __init__(self, path: PathLike | str, grid: FrameGrid, sources: Sequence[Dataset]) -> None:
        self.path = path
        self.dataset = _read_segmentation(path, sources[0])
        self._sources = sources
        self._slices = _axial_slices(grid, sources)
        self._covered = set(map(_source_of, self.dataset.PerFrameFunctionalGroupsSequence))

    def whole(self) -> ReferencedSegment:
        """Reference to the segment and the whole series."""
        sr = import_highdicom().sr
        return self._reference(source_series=sr.SourceSeriesForSegmentation(self._sources[0].SeriesInstanceUID))

    def slices(self, first: int, last: int) -> ReferencedSegment:
        """Reference to the segment and the images of axial slices, or the whole series if it is not axial.

        The reference cannot also name frames of the SEG: the standard allows either segments or frames (PS3.3, table
        10-3).

        Args:
            first: the lowest slice; the lowest of the series is 1.
            last: the highest slice.

        Raises:
            ValueError: when the SEG has no frame of one of these slices.
        """
        if self._slices is None:
            return self.whole()
        shown = self._slices[first - 1 : last]
        if first < 1 or last > len(self._slices) or not self._covered.issuperset(shown):
            raise ValueError(
                f"{self.path}: holds no tumour in some of the slices {first} to {last}, where a lesion was measured. "
                "Give the SEG file of the mask that was measured."
            )
        image, sop_class = import_highdicom().sr.SourceImageForSegmentation, self._sources[0].SOPClassUID
        if is_multiframe(self._sources[0]):
            images = [
                image(sop_class, shown[0].image, sorted(source.frame for source in shown if source.frame is not None))
            ]
        else:
            images = [image(sop_class, source.image) for source in shown]
        return self._reference(source_images=images)

    def _reference(self, **sources: Any) -> ReferencedSegment:
        sr = import_highdicom().sr
        return sr.ReferencedSegment(self.dataset.SOPClassUID, self.dataset.SOPInstanceUID, 1, **sources)


class _Source(NamedTuple):
    """SOPInstanceUID of an image, and the number of the frame from 1; None for a single-frame image."""

    image: str
    frame: int | None


def _axial_slices(grid: FrameGrid, sources: Sequence[Dataset]) -> list[_Source] | None:
    """Image or frame of each axial slice, from the lowest; None if the frames are not closest to axial."""
    axis, direction = io_orientation(grid.affine)[2]
    if axis != 2:
        return None
    if is_multiframe(sources[0]):
        slices = [_Source(sources[0].SOPInstanceUID, frame.number + 1) for frame in grid.frames]
    else:
        slices = [_Source(source.SOPInstanceUID, None) for source in sources]
    return slices if direction > 0 else slices[::-1]


def _source_of(groups: Dataset) -> _Source:
    """The image or frame to which a frame of a SEG refers."""
    source = groups.DerivationImageSequence[0].SourceImageSequence[0]
    number = source.get("ReferencedFrameNumber")
    return _Source(source.ReferencedSOPInstanceUID, None if number is None else int(number))


def _read_segmentation(path: PathLike | str, source: Dataset) -> Dataset:
    dataset = read_header(Path(path))
    if dataset.get("SOPClassUID") != SegmentationStorage:
        raise ValueError(f"{path}: is not a DICOM segmentation. Give the SEG file that the report refers to.")
    found = dataset.ReferencedSeriesSequence[0].SeriesInstanceUID
    if found != source.SeriesInstanceUID:
        raise ValueError(
            f"{path}: segments the series {found}, expected {source.SeriesInstanceUID}. "
            "Give the SEG file of the series that was measured."
        )
    return dataset


def _require_spacing(measurements: Mapping[str, Any], files: Sequence[PathLike | str]) -> None:
    if "volume_ml" not in measurements:
        raise ValueError(
            f"{files[0]}: its series was measured in pixels and voxels, because its spacing is unknown. A DICOM "
            "report (SR) needs millimetres. Use the table of measurements, or export the series with its spacing."
        )


class _Algorithm(NamedTuple):
    """The program that measured: its version and parameters."""

    version: str
    parameters: Mapping[str, str]

    def identification(self) -> AlgorithmIdentification:
        """The algorithm as it is identified in a report (TID 4019)."""
        parameters = [f"{name}={text}" for name, text in self.parameters.items()]
        sr = import_highdicom().sr
        return sr.AlgorithmIdentification(name="mri_seg", version=self.version, parameters=parameters or None)


def _content(
    measurements: Mapping[str, Any], segment: _Segment, algorithm: _Algorithm, remarks: Sequence[str]
) -> MeasurementReport:
    sr = import_highdicom().sr
    lesions = [
        _lesion(number, lesion, segment, algorithm) for number, lesion in enumerate(measurements["lesions"], start=1)
    ]
    return sr.MeasurementReport(
        observation_context=observer(algorithm.version),
        procedure_reported=codes.LN.BrainMRI,
        title=codes.cid7021.ImagingMeasurementReport,
        imaging_measurements=[_whole(measurements, segment, algorithm, remarks), *lesions],
    )


def observer(version: str) -> ObservationContext:
    """The program as the observer of a report (TID 1004)."""
    sr = import_highdicom().sr
    from pydicom.sr.codedict import codes

    device = sr.DeviceObserverIdentifyingAttributes(
        uid=generate_uid(entropy_srcs=["mri_seg", version]),  # the same for every report of one version
        name="mri_seg",
        manufacturer_name="mri_seg",
        model_name=f"mri_seg {version}",
    )
    return sr.ObservationContext(
        observer_device_context=sr.ObserverContext(
            observer_type=codes.DCM.Device, observer_identifying_attributes=device
        )
    )


def _whole(
    measurements: Mapping[str, Any], segment: _Segment, algorithm: _Algorithm, remarks: Sequence[str]
) -> VolumetricROIMeasurementsAndQualitativeEvaluations:
    sr = import_highdicom().sr
    described = segment.dataset.SegmentSequence[0]
    group = sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(described.get("TrackingUID"), described.get("TrackingID", "Tumour")),
        referenced_segment=segment.whole(),
        finding_type=codes.cid7159.Neoplasm if measurements["lesion_count"] else None,
        algorithm_id=algorithm.identification(),
        finding_sites=[sr.FindingSite(codes.SCT.Brain)],
        measurements=[
            sr.Measurement(codes.SCT.NumberOfLesions, int(measurements["lesion_count"]), codes.UCUM.NoUnits),
            _volume(measurements["volume_ml"], derivation=codes.cid7464.Total),
        ],
    )
    for remark in remarks:
        _comment(group, remark)
    return group


def _comment(group: VolumetricROIMeasurementsAndQualitativeEvaluations, text: str) -> None:
    """Add a comment to a measurement group."""
    sr = import_highdicom().sr
    group[0].ContentSequence.append(
        sr.TextContentItem(codes.DCM.Comment, text, relationship_type=sr.RelationshipTypeValues.CONTAINS)
    )


def _lesion(
    number: int, lesion: Mapping[str, Any], segment: _Segment, algorithm: _Algorithm
) -> VolumetricROIMeasurementsAndQualitativeEvaluations:
    sr = import_highdicom().sr
    mm, mm2 = codes.cid7460.Millimeter, codes.cid7461.SquareMillimeter
    area = sr.Measurement(codes.cid7471.Area, lesion["largest_axial_area_mm2"], mm2, derivation=codes.cid7464.Maximum)
    group = sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(identifier=f"Lesion {number}"),
        referenced_segment=segment.slices(lesion["first_slice"], lesion["last_slice"]),
        finding_type=codes.cid7159.Neoplasm,
        algorithm_id=algorithm.identification(),
        finding_sites=[sr.FindingSite(codes.SCT.Brain, laterality=_laterality(lesion.get("side")))],
        measurements=[
            _volume(lesion["volume_ml"]),
            area,
            sr.Measurement(codes.cid7470.LongAxis, lesion["longest_diameter_mm"], mm),
            sr.Measurement(codes.cid7470.ShortAxis, lesion["perpendicular_diameter_mm"], mm),
        ],
    )
    if "midline_distance_mm" in lesion:
        _comment(group, f"Distance from the midline: {lesion['midline_distance_mm']:.1f} mm")
    return group


def _laterality(side: str | None) -> Code | None:
    """The code of a side of the patient (PS3.16, CID 244); None if it is not known."""
    sides = codes.cid244
    return {"left": sides.Left, "right": sides.Right, "both": sides.Bilateral}.get(side or "")


def _volume(milliliters: float, **modifiers: Any) -> Measurement:
    return import_highdicom().sr.Measurement(
        codes.cid7472.Volume,
        milliliters,
        codes.cid7462.CubicCentimeter,
        method=codes.cid7474.SumOfSegmentedVoxelMethodForVolume,
        **modifiers,
    )
