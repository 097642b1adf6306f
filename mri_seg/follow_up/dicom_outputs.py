"""Write the change of a tumour as a DICOM segmentation, and the measurements of all scans as a DICOM report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from mri_seg.dicom.geometry import order_frames
from mri_seg.dicom.headers import read_header
from mri_seg.dicom.references import import_highdicom, is_multiframe, parameter_texts, reraise_with_path, source_images
from mri_seg.dicom.seg import write_label_map
from mri_seg.dicom.sr import make_report, observer
from mri_seg.follow_up.change_mask import GAINED, LABELS, LOST, STABLE
from mri_seg.follow_up.rano import LIMITS, VERSION
from mri_seg.follow_up.sentences import change_text, scan_label
from mri_seg.follow_up.tables import NO_PAIRS
from mri_seg.follow_up.timeline import Estimate, Timeline, TimePoint
from mri_seg.utils.case_flags import case_flags
from mri_seg.utils.colors import PREDICTION, REFERENCE, Color
from mri_seg.utils.files import atomic_write

__all__ = ["write_change_report", "write_change_segmentation"]

_COLORS: dict[int, Color] = {STABLE: PREDICTION, GAINED: (213, 94, 0), LOST: REFERENCE}
_SCHEME = "99MRISEG"  # of codes that the standard does not have
_PER_YEAR = Code("mm/a", "UCUM", "millimeter per year")
_PRODUCT = Code("PRODUCT", _SCHEME, "Sum over lesions of the products of perpendicular diameters")
_VELOCITY = Code("VDE", _SCHEME, "Velocity of diametric expansion")
_BOUNDS = {
    "low": Code("VDE_LOW", _SCHEME, "Velocity of diametric expansion, lower bound of 95 % interval"),
    "high": Code("VDE_HIGH", _SCHEME, "Velocity of diametric expansion, upper bound of 95 % interval"),
}


def write_change_segmentation(
    path: PathLike | str, labels: np.ndarray, timeline: Timeline, settings: Mapping[str, Any]
) -> None:
    """Write a change map as a DICOM SEG of the latest scan, with the segments stable, gained and lost.

    Args:
        path: the file to write.
        labels: result of :py:func:`~mri_seg.follow_up.change_mask.change_map`.
        timeline: the patient, whose latest scan is DICOM.
        settings: version, weights and options; see :py:func:`mri_seg.inference.provenance.result_settings`.

    Raises:
        ModuleNotFoundError: when highdicom is not installed.
        ValueError: when the series lacks an attribute that a SEG needs.
    """
    latest = timeline.points[-1]
    baseline = timeline.points[timeline.epoch(latest.epoch)[0]]
    since = baseline.date.isoformat() if baseline.date else baseline.case
    write_label_map(
        path,
        labels,
        {number: (f"{name} tumour", _COLORS[number]) for number, name in LABELS.items()},
        latest.scan.files,
        content=("TUMOUR_CHANGE", f"Change of a brain tumour since {since}"[:64]),
        algorithm_version=str(settings["mri_seg_version"]),
        algorithm_parameters=_parameters(settings),
        remarks=[f"Compared with the scan of {since}.", NO_PAIRS],
        series_description="Tumour change (mri_seg)",
    )


def write_change_report(
    path: PathLike | str, segmentation: PathLike | str, timeline: Timeline, settings: Mapping[str, Any]
) -> None:
    """Write the measurements of all scans as a DICOM SR with the template Measurement Report (PS3.16, TID 1500).

    It has a measurement group (TID 1501) for each scan, with its time point (TID 1502), volume, mean diameter, product
    of diameters and a reference to the image with the largest area of tumour, also of earlier studies; that of the
    latest scan has the velocity of diametric expansion and its interval too. The standard has no codes for product and
    velocity; theirs are of the scheme ``99MRISEG``. A group (TID 1411) for each segment of the change has its volume.
    Scans that are not DICOM have no reference.

    Args:
        path: the file to write.
        segmentation: the SEG of :py:func:`write_change_segmentation`, which becomes evidence.
        timeline: the patient, whose latest scan is DICOM.
        settings: version, weights and options.

    Raises:
        ModuleNotFoundError: when highdicom is not installed.
        ValueError: when the series lacks an attribute that an SR needs.
    """
    highdicom = import_highdicom()
    segment = read_header(Path(segmentation))
    version = str(settings["mri_seg_version"])
    images = [_sources(point) for point in timeline.points]
    with reraise_with_path(segmentation, "DICOM report"):
        tumor = highdicom.sr.TrackingIdentifier(highdicom.UID(), f"Tumour of {timeline.patient}"[:64])
        groups = [_group(timeline, number, images[number], settings, tumor) for number in range(len(timeline.points))]
        groups += _change_groups(timeline, segment, images[-1], settings)
        content = highdicom.sr.MeasurementReport(
            observation_context=observer(version),
            procedure_reported=codes.LN.BrainMRI,
            title=codes.cid7021.ImagingMeasurementReport,
            imaging_measurements=groups,
        )
        sources = [*images[-1], *(image for earlier in images[:-1] for image in earlier)]
        report = make_report(segment, sources, content, version, "Tumour over time (mri_seg)")
    with atomic_write(path) as unfinished:
        report.save_as(unfinished, enforce_file_format=True)


def _parameters(settings: Mapping[str, Any]) -> dict[str, Any]:
    options = settings.get("options", {})
    values = {key: value for key, value in options.items() if not str(value).startswith("sha256:")}
    return {key: value for key, value in settings.items() if key.endswith("_sha256") and value} | values


def _sources(point: TimePoint) -> list[Dataset]:
    """Headers of the images of a scan, in slice order; none if it is not DICOM."""
    return source_images(order_frames(point.scan.files).frames) if point.scan.source == "dicom" else []


def _group(timeline: Timeline, number: int, images: Sequence[Dataset], settings: Mapping[str, Any], tumor: Any) -> Any:
    """The measurements of a scan, which share the identifier of the tumour; of the latest, the velocity too."""
    sr = import_highdicom().sr
    point, response = timeline.points[number], timeline.responses[number]
    baseline = response is None
    values = [
        _measurement(codes.cid7472.Volume, point.values["volume"].value, codes.cid7462.CubicCentimeter),
        _measurement(
            codes.SCT.Diameter,
            point.values["mean_diameter"].value,
            codes.cid7460.Millimeter,
            derivation=codes.cid7464.Mean,
        ),
        _measurement(_PRODUCT, point.values["product"].value, codes.cid7461.SquareMillimeter),
    ]
    latest = number == len(timeline.points) - 1
    if latest and timeline.velocity is not None:
        estimate: Estimate = timeline.velocity.estimate
        values.append(_measurement(_VELOCITY, estimate.value, _PER_YEAR))
        values += [_measurement(code, getattr(estimate, end), _PER_YEAR) for end, code in _BOUNDS.items()]
    group = sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=tumor,
        time_point_context=sr.TimePointContext(
            time_point=point.case if point.date is None else point.date.isoformat(),
            time_point_type=codes.cid6146.Baseline if baseline else None,
            time_point_order=number + 1,
        ),
        finding_type=codes.cid7159.Neoplasm if point.scan.mask.any() else None,
        algorithm_id=_algorithm(settings),
        finding_sites=[sr.FindingSite(codes.SCT.Brain)],
        measurements=values,
        source_images=_references(point, images),
    )
    remarks = [f"After: {point.scan.event}."] if point.scan.event and number else []
    remarks += [
        f"Volume since {scan_label(timeline, change.first)}: {change_text(change)}."
        for change in timeline.changes
        if (change.last, change.against) == (number, "baseline")
    ]
    if response is not None:
        remarks.append(f"{VERSION}: {response.category} ({response.reason}).")
    remarks += [flag["message"] for flag in point.scan.flags]
    if latest:
        remarks += [*(flag["message"] for flag in case_flags(timeline.about)), LIMITS, NO_PAIRS]
    for remark in remarks:
        group[0].ContentSequence.append(
            sr.TextContentItem(codes.DCM.Comment, remark, relationship_type=sr.RelationshipTypeValues.CONTAINS)
        )
    return group


def _change_groups(
    timeline: Timeline, segmentation: Dataset, images: Sequence[Dataset], settings: Mapping[str, Any]
) -> list[Any]:
    """The volume of each segment of the change of the latest scan since its baseline."""
    sr = import_highdicom().sr
    latest = len(timeline.points) - 1
    (change,) = [change for change in timeline.changes if (change.last, change.against) == (latest, "baseline")]
    groups = []
    for segment in segmentation.SegmentSequence:
        number = int(segment.SegmentNumber)
        series = sr.SourceSeriesForSegmentation(images[0].SeriesInstanceUID)
        groups.append(
            sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
                tracking_identifier=sr.TrackingIdentifier(segment.TrackingUID, segment.TrackingID),
                referenced_segment=sr.ReferencedSegment(
                    segmentation.SOPClassUID, segmentation.SOPInstanceUID, number, source_series=series
                ),
                finding_type=codes.cid7159.Neoplasm,
                algorithm_id=_algorithm(settings),
                finding_sites=[sr.FindingSite(codes.SCT.Brain)],
                measurements=[
                    _measurement(
                        codes.cid7472.Volume, change.voxels_ml[LABELS[number].lower()], codes.cid7462.CubicCentimeter
                    )
                ],
            )
        )
    return groups


def _algorithm(settings: Mapping[str, Any]) -> Any:
    parameters = [f"{name}={text}" for name, text in parameter_texts(_parameters(settings)).items()]
    return import_highdicom().sr.AlgorithmIdentification(
        name="mri_seg", version=str(settings["mri_seg_version"]), parameters=parameters or None
    )


def _measurement(name: Any, value: float, unit: Any, **modifiers: Any) -> Any:
    return import_highdicom().sr.Measurement(name, round(float(value), 4), unit, **modifiers)


def _references(point: TimePoint, images: Sequence[Dataset]) -> Any:
    """The image with the largest area of tumour, or the middle one; None if not DICOM."""
    if not images:
        return None
    sr = import_highdicom().sr
    if is_multiframe(images[0]):
        return [sr.SourceImageForMeasurementGroup(images[0].SOPClassUID, images[0].SOPInstanceUID)]
    areas = np.asarray(point.scan.mask).sum(axis=(0, 1))
    chosen = images[int(areas.argmax()) if areas.any() else len(images) // 2]
    return [sr.SourceImageForMeasurementGroup(chosen.SOPClassUID, chosen.SOPInstanceUID)]
