"""DICOM files that tests need: a volume and its affine written as a series of single images or as a multi-frame file.

The files are valid MR and Enhanced MR images (PS3.3, A.4 and A.36): ``dciodvfy`` finds no error in what the defaults
write.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels import get_encoder
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)
from pydicom.valuerep import format_number_as_ds

__all__ = ["AXIAL", "MULTI_FRAME", "OBLIQUE", "SINGLE_FRAME", "ramp", "write_multiframe", "write_series"]

SINGLE_FRAME = "1.2.840.10008.5.1.4.1.1.4"  # MR Image Storage
MULTI_FRAME = "1.2.840.10008.5.1.4.1.1.4.1"  # Enhanced MR Image Storage

# Axial slices as scanners store them: rows run to posterior, columns to the patient's left, slices upwards. RAS, mm.
AXIAL = np.array(
    [
        [0.0, -0.9, 0.0, 90.0],
        [-0.8, 0.0, 0.0, 100.0],
        [0.0, 0.0, 5.0, -40.0],
        [0.0, 0.0, 0.0, 1.0],
    ]
)

# The same slices, turned by about 25 degrees about the axis to the right and 15 about the axis to the front.
OBLIQUE = AXIAL.copy()
OBLIQUE[:3, :3] = (
    np.array([[1, 0, 0], [0, math.cos(0.45), -math.sin(0.45)], [0, math.sin(0.45), math.cos(0.45)]])
    @ np.array([[math.cos(0.25), 0, -math.sin(0.25)], [0, 1, 0], [math.sin(0.25), 0, math.cos(0.25)]])
    @ AXIAL[:3, :3]
)


def ramp(rows: int = 8, columns: int = 6, slices: int = 4, dtype: Any = np.uint16) -> np.ndarray:
    """A volume ``(rows, columns, slices)`` whose every voxel differs."""
    return np.arange(rows * columns * slices).reshape(rows, columns, slices).astype(dtype)


def write_series(
    folder: Path,
    volume: np.ndarray,
    affine: np.ndarray = AXIAL,
    *,
    description: str | None = "AX FLAIR",
    series_number: int = 3,
    series_uid: str | None = None,
    study_uid: str | None = None,
    patient_id: str | None = "P001",
    transfer_syntax: str = ExplicitVRLittleEndian,
    names: str = "IM{:04d}.dcm",
    shuffled: bool = False,
    reversed_numbers: bool = False,
    **header: Any,
) -> list[Path]:
    """Write a volume as a series of single-frame MR images.

    Args:
        folder: where the files go; made when missing.
        volume: integers ``(H, W, D)``: rows, columns and slices. Signed values are stored as signed.
        affine: indices (row, column, slice) to RAS mm, ``(4, 4)``.
        description: SeriesDescription; None leaves it out.
        series_number: SeriesNumber.
        series_uid: SeriesInstanceUID; a new one by default.
        study_uid: StudyInstanceUID; a new one by default.
        patient_id: PatientID.
        transfer_syntax: how pixels are stored: uncompressed (explicit, implicit, deflated) or RLE, JPEG lossless
            (process 14, first order), JPEG-LS or JPEG 2000 lossless.
        names: pattern of the file names, which are counted from 0.
        shuffled: whether file names go through the slices in a mixed order.
        reversed_numbers: whether InstanceNumber falls while slices rise.
        header: further attributes by keyword. None deletes one; a function is called with the index of the slice.

    Returns:
        the files, in the order of the slices of ``volume``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    count = volume.shape[2]
    common = _common(SINGLE_FRAME, volume, affine, description, series_number, series_uid, study_uid, patient_id)
    order = np.random.default_rng(0).permutation(count) if shuffled else np.arange(count)
    frame_of_reference = common.FrameOfReferenceUID
    files = []
    for k in range(count):
        data = Dataset()
        data.update(common)
        data.FrameOfReferenceUID = frame_of_reference
        data.SOPInstanceUID = generate_uid()
        data.InstanceNumber = count - k if reversed_numbers else k + 1
        data.ImageType = ["ORIGINAL", "PRIMARY", "OTHER"]
        data.SamplesPerPixel = 1
        data.ScanningSequence = ["SE", "IR"]
        data.SequenceVariant = "SK"
        data.ScanOptions = ""
        data.MRAcquisitionType = "2D"
        data.RepetitionTime = 9000
        data.EchoTime = 120
        data.InversionTime = 2500
        data.EchoTrainLength = 16
        row_spacing, column_spacing, slice_spacing = _spacing(affine)
        data.PixelSpacing = [_ds(row_spacing), _ds(column_spacing)]
        data.SliceThickness = _ds(slice_spacing)
        data.SpacingBetweenSlices = _ds(slice_spacing)
        data.ImageOrientationPatient = _orientation(affine)
        data.ImagePositionPatient = _position(affine, k)
        files.append(_write(data, volume[..., k : k + 1], folder / names.format(order[k]), transfer_syntax, header, k))
    return files


def write_multiframe(
    path: Path,
    volume: np.ndarray,
    affine: np.ndarray = AXIAL,
    *,
    description: str | None = "AX FLAIR",
    series_number: int = 3,
    series_uid: str | None = None,
    study_uid: str | None = None,
    patient_id: str | None = "P001",
    transfer_syntax: str = ExplicitVRLittleEndian,
    frame_order: Sequence[int] | None = None,
    echo_time: float | None = 120.0,
    inversion_time: float | None = 2500.0,
    rescale: Sequence[tuple[float, float]] | None = None,
    **header: Any,
) -> Path:
    """Write a volume as one Enhanced MR image.

    Pixel spacing, orientation, timing and echo are shared by the frames; position, frame content and, where given, the
    rescale of values belong to each frame.

    Args:
        path: the file.
        volume: integers ``(H, W, D)``.
        affine: indices (row, column, slice) to RAS mm, ``(4, 4)``.
        description: SeriesDescription; None leaves it out.
        series_number: SeriesNumber.
        series_uid: SeriesInstanceUID; a new one by default.
        study_uid: StudyInstanceUID; a new one by default.
        patient_id: PatientID.
        transfer_syntax: as for :func:`write_series`.
        frame_order: for each frame in the file, the slice it shows; by default frames follow the slices.
        echo_time: effective echo time in ms; None leaves it out.
        inversion_time: inversion time in ms; None leaves it out.
        rescale: slope and intercept of each slice.
        header: further top-level attributes, as for :func:`write_series`.

    Returns:
        the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    order = [int(k) for k in (range(volume.shape[2]) if frame_order is None else frame_order)]
    data = _common(MULTI_FRAME, volume, affine, description, series_number, series_uid, study_uid, patient_id)
    data.SOPInstanceUID = generate_uid()
    data.InstanceNumber = 1
    data.NumberOfFrames = len(order)
    data.SamplesPerPixel = 1
    _enhanced_modules(data)
    data.SharedFunctionalGroupsSequence = [_shared_groups(affine, echo_time, inversion_time, rescale is None)]
    data.PerFrameFunctionalGroupsSequence = [
        _frame_groups(affine, k, rescale[k] if rescale is not None else None) for k in order
    ]
    return _write(data, volume[..., order], path, transfer_syntax, header, 0)


def _common(
    sop_class: str,
    volume: np.ndarray,
    affine: np.ndarray,
    description: str | None,
    series_number: int,
    series_uid: str | None,
    study_uid: str | None,
    patient_id: str | None,
) -> Dataset:
    data = Dataset()
    data.SOPClassUID = sop_class
    data.PatientName = "Doe^Jane"
    data.PatientID = patient_id
    data.PatientBirthDate = "19600102"
    data.PatientSex = "F"
    data.StudyInstanceUID = study_uid or generate_uid()
    data.StudyDate = "20240305"
    data.StudyTime = "101500"
    data.StudyID = "1"
    data.AccessionNumber = "A1"
    data.ReferringPhysicianName = ""
    data.Modality = "MR"
    data.SeriesInstanceUID = series_uid or generate_uid()
    data.SeriesNumber = series_number
    if description is not None:
        data.SeriesDescription = description
    data.SeriesDate = data.ContentDate = "20240305"
    data.SeriesTime = data.ContentTime = "102000"
    data.BodyPartExamined = "BRAIN"
    data.PatientPosition = "HFS"
    data.Manufacturer = "Test"
    data.ManufacturerModelName = "Test"
    data.DeviceSerialNumber = "1"
    data.SoftwareVersions = "1"
    data.FrameOfReferenceUID = generate_uid()
    data.PositionReferenceIndicator = ""
    data.PhotometricInterpretation = "MONOCHROME2"
    data.Rows, data.Columns = volume.shape[:2]
    data.BitsAllocated = data.BitsStored = volume.dtype.itemsize * 8
    data.HighBit = data.BitsStored - 1
    data.PixelRepresentation = int(volume.dtype.kind == "i")
    return data


def _enhanced_modules(data: Dataset) -> None:
    """Top-level attributes of an Enhanced MR image (PS3.3, C.8.13.1 and C.7.6.17)."""
    data.ImageType = ["ORIGINAL", "PRIMARY", "T2", "NONE"]
    data.PixelPresentation = "MONOCHROME"
    data.VolumetricProperties = "VOLUME"
    data.VolumeBasedCalculationTechnique = "NONE"
    data.ComplexImageComponent = "MAGNITUDE"
    data.AcquisitionContrast = "FLUID_ATTENUATED"
    data.AcquisitionNumber = 1
    data.AcquisitionDateTime = "20240305102000"
    data.AcquisitionDuration = 240.0
    data.ResonantNucleus = "1H"
    data.KSpaceFiltering = "NONE"
    data.MagneticFieldStrength = 3.0
    data.ApplicableSafetyStandardAgency = "IEC"
    data.ApplicableSafetyStandardDescription = "IEC 60601-2-33"
    data.PulseSequenceName = "FLAIR"
    data.MRAcquisitionType = "2D"
    data.EchoPulseSequence = "SPIN"
    data.MultipleSpinEcho = "NO"
    data.MultiPlanarExcitation = "NO"
    data.PhaseContrast = "NO"
    data.TimeOfFlightContrast = "NO"
    data.SteadyStatePulseSequence = "NONE"
    data.EchoPlanarPulseSequence = "NO"
    data.SpectrallySelectedSuppression = "NONE"
    data.OversamplingPhase = "NONE"
    data.GeometryOfKSpaceTraversal = "RECTILINEAR"
    data.RectilinearPhaseEncodeReordering = "LINEAR"
    data.SegmentedKSpaceTraversal = "SINGLE"
    data.SaturationRecovery = "NO"
    data.NumberOfKSpaceTrajectories = 1
    data.ContentQualification = "PRODUCT"
    data.BurnedInAnnotation = "NO"
    data.LossyImageCompression = "00"
    data.PresentationLUTShape = "IDENTITY"
    data.AcquisitionContextSequence = []
    organisation = _item(DimensionOrganizationUID=generate_uid())
    data.DimensionOrganizationSequence = [organisation]
    data.DimensionIndexSequence = [
        _item(
            DimensionOrganizationUID=organisation.DimensionOrganizationUID,
            DimensionIndexPointer=0x00209057,  # InStackPositionNumber
            FunctionalGroupPointer=0x00209111,  # FrameContentSequence
        )
    ]


def _shared_groups(affine: np.ndarray, echo_time: float | None, inversion_time: float | None, rescale: bool) -> Dataset:
    row_spacing, column_spacing, slice_spacing = _spacing(affine)
    shared = _item(
        PixelMeasuresSequence=[
            _item(
                PixelSpacing=[_ds(row_spacing), _ds(column_spacing)],
                SliceThickness=_ds(slice_spacing),
                SpacingBetweenSlices=_ds(slice_spacing),
            )
        ],
        PlaneOrientationSequence=[_item(ImageOrientationPatient=_orientation(affine))],
        FrameAnatomySequence=[
            _item(
                FrameLaterality="U",
                AnatomicRegionSequence=[_item(CodeValue="12738006", CodingSchemeDesignator="SCT", CodeMeaning="Brain")],
            )
        ],
        FrameVOILUTSequence=[_item(WindowCenter=500, WindowWidth=1000)],
        MRImageFrameTypeSequence=[
            _item(
                FrameType=["ORIGINAL", "PRIMARY", "T2", "NONE"],
                PixelPresentation="MONOCHROME",
                VolumetricProperties="VOLUME",
                VolumeBasedCalculationTechnique="NONE",
                ComplexImageComponent="MAGNITUDE",
                AcquisitionContrast="FLUID_ATTENUATED",
            )
        ],
        MRTimingAndRelatedParametersSequence=[
            _item(
                RepetitionTime=9000,
                FlipAngle=90,
                EchoTrainLength=16,
                RFEchoTrainLength=16,
                GradientEchoTrainLength=0,
                GradientOutputType="DB_DT",
                GradientOutput=10.0,
                SpecificAbsorptionRateSequence=[
                    _item(SpecificAbsorptionRateDefinition="IEC_HEAD", SpecificAbsorptionRateValue=1.0)
                ],
                OperatingModeSequence=[
                    _item(OperatingModeType="STATIC FIELD", OperatingMode="IEC_NORMAL"),
                    _item(OperatingModeType="RF", OperatingMode="IEC_NORMAL"),
                    _item(OperatingModeType="GRADIENT", OperatingMode="IEC_NORMAL"),
                ],
            )
        ],
        MRFOVGeometrySequence=[
            _item(
                InPlanePhaseEncodingDirection="ROW",
                MRAcquisitionFrequencyEncodingSteps=256,
                MRAcquisitionPhaseEncodingStepsInPlane=256,
                PercentSampling=100,
                PercentPhaseFieldOfView=100,
            )
        ],
        MRModifierSequence=[
            _item(
                InversionRecovery="NO" if inversion_time is None else "YES",
                FlowCompensation="NONE",
                Spoiling="NONE",
                T2Preparation="NO",
                SpectrallySelectedExcitation="NONE",
                SpatialPresaturation="NONE",
                PartialFourier="NO",
                ParallelAcquisition="NO",
            )
        ],
        MRImagingModifierSequence=[
            _item(
                MagnetizationTransfer="NONE",
                BloodSignalNulling="NO",
                Tagging="NONE",
                TransmitterFrequency=127.7,
                PixelBandwidth=200,
            )
        ],
        MRReceiveCoilSequence=[
            _item(
                ReceiveCoilName="HEAD",
                ReceiveCoilManufacturerName="",
                ReceiveCoilType="VOLUME",
                QuadratureReceiveCoil="NO",
            )
        ],
        MRTransmitCoilSequence=[
            _item(TransmitCoilName="BODY", TransmitCoilManufacturerName="", TransmitCoilType="BODY")
        ],
        MRAveragesSequence=[_item(NumberOfAverages=1)],
    )
    if inversion_time is not None:
        shared.MRModifierSequence[0].InversionTimes = inversion_time
    if echo_time is not None:
        shared.MREchoSequence = [_item(EffectiveEchoTime=echo_time)]
    if rescale:
        shared.PixelValueTransformationSequence = [_rescale(1, 0)]
    return shared


def _frame_groups(affine: np.ndarray, k: int, rescale: tuple[float, float] | None) -> Dataset:
    groups = _item(
        FrameContentSequence=[
            _item(
                FrameAcquisitionNumber=1,
                FrameReferenceDateTime="20240305102000",
                FrameAcquisitionDateTime="20240305102000",
                FrameAcquisitionDuration=240.0,
                StackID="1",
                InStackPositionNumber=k + 1,
                DimensionIndexValues=[k + 1],
            )
        ],
        PlanePositionSequence=[_item(ImagePositionPatient=_position(affine, k))],
    )
    if rescale is not None:
        groups.PixelValueTransformationSequence = [_rescale(*rescale)]
    return groups


def _rescale(slope: float, intercept: float) -> Dataset:
    return _item(RescaleIntercept=_ds(intercept), RescaleSlope=_ds(slope), RescaleType="US")


def _item(**values: Any) -> Dataset:
    item = Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return item


def _write(
    data: Dataset, frames: np.ndarray, path: Path, transfer_syntax: str, header: dict[str, Any], number: int
) -> Path:
    """Write a data set with the pixels ``(H, W, frames)``."""
    syntax = UID(transfer_syntax)
    _put_pixels(data, np.ascontiguousarray(np.moveaxis(frames, -1, 0)), syntax)
    for keyword, value in header.items():
        value = value(number) if callable(value) else value
        if value is not None:
            setattr(data, keyword, value)
        elif keyword in data:
            delattr(data, keyword)
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = syntax
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    data.save_as(path, enforce_file_format=True)
    return path


def _put_pixels(data: Dataset, frames: np.ndarray, syntax: UID) -> None:
    """Encode pixels ``(frames, H, W)``."""
    if not syntax.is_encapsulated:
        pixels = frames.astype(frames.dtype.newbyteorder("<" if syntax.is_little_endian else ">"), copy=False).tobytes()
        data.PixelData = pixels + b"\0" * (len(pixels) % 2)
    else:
        data.PixelData = encapsulate([_encode(frame, data, syntax) for frame in frames])
        data["PixelData"].is_undefined_length = True
    data["PixelData"].VR = "OB" if syntax.is_encapsulated or data.BitsAllocated == 8 else "OW"


def _encode(frame: np.ndarray, data: Dataset, syntax: UID) -> bytes:
    if syntax == RLELossless:
        return get_encoder(syntax).encode(
            frame,
            rows=data.Rows,
            columns=data.Columns,
            samples_per_pixel=1,
            number_of_frames=1,
            bits_allocated=data.BitsAllocated,
            bits_stored=data.BitsStored,
            pixel_representation=data.PixelRepresentation,
            photometric_interpretation="MONOCHROME2",
        )
    unsigned = frame.view(frame.dtype.str.replace("i", "u"))
    if syntax == JPEGLosslessSV1:
        return imagecodecs.ljpeg_encode(unsigned)
    if syntax == JPEGLSLossless:
        return imagecodecs.jpegls_encode(unsigned)
    if syntax == JPEG2000Lossless:
        return imagecodecs.jpeg2k_encode(frame, codecformat="j2k", reversible=True, level=0)
    raise ValueError(f"No encoder for {syntax.name}.")


def _spacing(affine: np.ndarray) -> tuple[float, float, float]:
    """Distance of neighbouring rows, columns and slices in mm."""
    rows, columns, slices = np.linalg.norm(affine[:3, :3], axis=0)
    return rows, columns, slices


def _orientation(affine: np.ndarray) -> list[str]:
    """Directions of a row (along growing columns) and of a column, in LPS."""
    directions = np.diag([-1.0, -1.0, 1.0]) @ affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return [_ds(value) for value in (*directions[:, 1], *directions[:, 0])]


def _position(affine: np.ndarray, k: int) -> list[str]:
    """Centre of the first pixel of slice ``k``, in LPS mm."""
    return [_ds(value) for value in np.diag([-1.0, -1.0, 1.0]) @ (affine @ [0, 0, k, 1])[:3]]


def _ds(value: float) -> str:
    """A decimal string, which holds 16 characters; no negative zero."""
    return re.sub(r"^-(0\.?0*)$", r"\1", format_number_as_ds(float(value)))
