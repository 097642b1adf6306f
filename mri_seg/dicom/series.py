"""Find MR series among DICOM files and choose the FLAIR series of a study."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset

from mri_seg.dicom.copies import without_copies
from mri_seg.dicom.headers import bare_sop_class, frame_count, functional_group, number_of, read_header
from mri_seg.dicom.quiet import quiet_pydicom
from mri_seg.utils.contrast_names import Contrast, contrast_of
from mri_seg.utils.files import safe_name

__all__ = ["Series", "choose_flair", "find_series", "is_dicom"]

_SUFFIXES = (".dcm", ".dicom", ".ima")
_MR_IMAGES = {
    "1.2.840.10008.5.1.4.1.1.4",  # MR Image Storage
    "1.2.840.10008.5.1.4.1.1.4.1",  # Enhanced MR Image Storage
    "1.2.840.10008.5.1.4.1.1.4.4",  # Legacy Converted Enhanced MR Image Storage
}
_TAGS = [
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "PatientID",
    "StudyDate",
    "SeriesNumber",
    "SeriesDescription",
    "ProtocolName",
    "SequenceName",
    "PulseSequenceName",
    "Modality",
    "ImageType",
    "EchoTime",
    "InversionTime",
    "NumberOfFrames",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
]

# PS3.3 C.8.3.1.1.1 and C.8.13.3.1.1: value 3 or 4 of ImageType of images whose values are not FLAIR intensities.
_NOT_FLAIR_TYPES = {"ADC", "DIFFUSION", "DIFFUSION_ANISO", "TENSOR", "FA", "TRACEW", "PERFUSION", "SUBTRACTION"}
_FLAIR_INVERSION_TIME = (1500.0, 3000.0)  # ms; 1.5 and 3 T with long and short repetition times
_FLAIR_ECHO_TIME = 70.0  # ms
_T1_ECHO_TIME = 50.0  # ms; T1-weighted FLAIR has 5 to 30 ms, and some vendors call it just FLAIR


@dataclass(frozen=True)
class Series:
    """An MR series.

    Attributes:
        study_uid: StudyInstanceUID.
        uid: SeriesInstanceUID.
        patient_id: PatientID, empty if unknown.
        study_date: StudyDate as ``YYYYMMDD``, empty if unknown.
        number: SeriesNumber.
        description: SeriesDescription; if it is empty, ProtocolName or the name of the sequence.
        modality: Modality, ``MR``.
        echo_time: echo time in ms.
        inversion_time: inversion time in ms; None if unknown or not inversion recovery.
        image_count: number of images; for multi-frame files, of frames.
        files: the files, in the order in which they were found.
        image_type: ImageType of the first file.
    """

    study_uid: str
    uid: str
    patient_id: str
    study_date: str
    number: int | None
    description: str
    modality: str
    echo_time: float | None
    inversion_time: float | None
    image_count: int
    files: tuple[Path, ...]
    image_type: tuple[str, ...] = ()

    @property
    def looks_like_flair(self) -> bool:
        """Whether description or timing are those of T2-weighted FLAIR.

        Either the description says FLAIR, or it is inversion recovery with an inversion time of 1500 to 3000 ms and an
        echo time above 70 ms. T1-weighted FLAIR, double inversion recovery and maps such as ADC do not count as FLAIR.
        TIRM is not enough, because Siemens also uses it for STIR; then the timing decides.
        """
        named = contrast_of(self.description)
        if named in (Contrast.T1, Contrast.OTHER) or _NOT_FLAIR_TYPES.intersection(self.image_type):
            return False
        if named in (Contrast.FLAIR, Contrast.FLAIR_OR_MAP):
            return self.echo_time is None or self.echo_time >= _T1_ECHO_TIME
        return self._timed_as_flair

    @property
    def _timed_as_flair(self) -> bool:
        if self.echo_time is None or self.inversion_time is None:
            return False
        shortest, longest = _FLAIR_INVERSION_TIME
        return shortest <= self.inversion_time <= longest and self.echo_time > _FLAIR_ECHO_TIME

    @property
    def doubts(self) -> list[tuple[str, str]]:
        """Reasons why it may not be FLAIR: name of the flag and sentence of each."""
        doubts = []
        named = contrast_of(self.description)
        if named.is_other and not self.looks_like_flair:  # T2-weighted by name, FLAIR by its timing: no contradiction
            doubts.append(("named_other_contrast", f"its description names {named.value}, not FLAIR: {self}."))
        elif named is Contrast.FLAIR_OR_MAP:
            doubts.append(("perhaps_a_map", f"its description may name a map or a subtraction of FLAIR: {self}."))
        if types := _NOT_FLAIR_TYPES.intersection(self.image_type):
            doubts.append(
                ("not_flair_values", f"its values are {', '.join(sorted(types))}, not FLAIR intensities: {self}.")
            )
        elif self.echo_time is None:
            doubts.append(
                ("no_echo_time", f"EchoTime is missing, so its timing cannot show whether it is FLAIR: {self}.")
            )
        elif not (self.looks_like_flair or self._timed_as_flair):
            doubts.append(("timing_not_flair", f"its timing is not that of FLAIR: {self}."))
        return doubts

    @property
    def name(self) -> str:
        """Name for files: patient, study date and series number; ``series`` if there is no PatientID."""
        parts = (self.patient_id, self.study_date, "" if self.number is None else str(self.number))
        patient, *others = (re.sub(r"[^\w.-]+", "_", part).strip("._-") for part in parts)
        return safe_name("_".join(part for part in (patient or "series", *others) if part))

    def __str__(self) -> str:
        times = ", ".join(
            f"{what} {value:g} ms" if value is not None else f"{what} unknown"
            for what, value in (("TE", self.echo_time), ("TI", self.inversion_time))
        )
        return f'"{self.description}" ({self.uid}; images: {self.image_count}; {times})'


def is_dicom(path: PathLike | str) -> bool:
    """Whether a file is DICOM, by its suffix (``.dcm``, ``.dicom``, ``.ima``) or by "DICM" at byte 128.

    A file without "DICM" counts as DICOM if it begins with a data set of a storage class of the standard. A DICOMDIR,
    which lists the files of a disc, does not count.
    """
    path = Path(path)
    if path.name.upper() == "DICOMDIR":
        return False
    if path.suffix.lower() in _SUFFIXES:
        return not path.is_dir()
    try:
        with open(path, "rb") as file:
            return file.read(132)[128:] == b"DICM" or bare_sop_class(path) is not None
    except OSError:  # a folder, or no such file
        return False


@quiet_pydicom()
def find_series(files: Iterable[PathLike | str]) -> list[Series]:
    """Group DICOM files into MR series.

    Files that are not DICOM, and DICOM files that are not MR images (segmentations, reports, presentation states,
    screenshots), are skipped. Copies of an image count once.

    Args:
        files: any files, in any order.

    Returns:
        the series, sorted by study, number and UID.

    Raises:
        ValueError: when a DICOM file cannot be read or has no SeriesInstanceUID, when the files of one series belong to
            several patients or studies, or when two files with one SOPInstanceUID differ.
    """
    found: dict[str, list[tuple[Path, Dataset]]] = defaultdict(list)
    for path in map(Path, files):
        if not is_dicom(path):
            continue
        header = read_header(path, _TAGS, first_frame=True)
        if _text(header, "SOPClassUID") in _MR_IMAGES:
            found[_uid(path, header)].append((path, header))
    series = [_series(uid, members) for uid, members in found.items()]
    return sorted(series, key=lambda one: (one.study_uid, one.number is None, one.number or 0, one.uid))


def choose_flair(
    series: Sequence[Series], *, series_uid: str | None = None, series_description: str | None = None
) -> Series:
    """Choose the FLAIR series of a study.

    Args:
        series: the series of one study.
        series_uid: take the series with this SeriesInstanceUID.
        series_description: take the series with this description or, if there is none, the one whose description
            contains this text; upper and lower case count as the same.

    Returns:
        the requested series. Without a request: the only series, or the only one that looks like FLAIR. A series whose
        description may mean a map of FLAIR is taken only if there is no other. ``doubts`` says why it may not be FLAIR.

    Raises:
        ValueError: when no series fits, or several do; the message lists all series.
    """
    if series_uid or series_description:
        wanted = str(series_description or "").strip().casefold()
        fitting = [
            one for one in series if (not series_uid or one.uid == series_uid) and wanted in one.description.casefold()
        ]
        fitting = [one for one in fitting if one.description.strip().casefold() == wanted] or fitting
        request = " and ".join(
            f'{what} "{value}"'
            for what, value in (("series_uid", series_uid), ("series_description", series_description))
            if value
        )
    else:
        fitting = list(series) if len(series) == 1 else [one for one in series if one.looks_like_flair]
        fitting = [one for one in fitting if contrast_of(one.description) is not Contrast.FLAIR_OR_MAP] or fitting
        request = "FLAIR"
    if len(fitting) != 1:
        raise ValueError(_choice_error(series, fitting, request))
    return fitting[0]


def _series(uid: str, members: list[tuple[Path, Dataset]]) -> Series:
    path, header = members[0]
    for keyword in ("PatientID", "StudyInstanceUID"):
        for other_path, other in members[1:]:
            found, expected = other.get(keyword), header.get(keyword)
            if found != expected:
                raise ValueError(
                    f'{other_path}: {keyword} is "{found}", but "{expected}" in {path} of the same series {uid}. '
                    "Expected a series of one patient and study. Put the files of each in a folder of their own."
                )
    members = without_copies(members)
    number = number_of(header, "SeriesNumber")
    names = ("SeriesDescription", "ProtocolName", "SequenceName", "PulseSequenceName")
    return Series(
        study_uid=_text(header, "StudyInstanceUID"),
        uid=uid,
        patient_id=_text(header, "PatientID"),
        study_date=_text(header, "StudyDate"),
        number=None if number is None else int(number),
        description=next((text for text in (_text(header, name) for name in names) if text), ""),
        modality=_text(header, "Modality"),
        echo_time=_time(header, "EchoTime", "MREchoSequence", "EffectiveEchoTime"),
        inversion_time=_time(header, "InversionTime", "MRModifierSequence", "InversionTimes"),
        image_count=sum(frame_count(other) for _, other in members),
        files=tuple(other_path for other_path, _ in members),
        image_type=tuple(str(value).upper() for value in _values(header.get("ImageType"))),
    )


def _time(header: Dataset, keyword: str, group: str, group_keyword: str) -> float | None:
    """A time in ms; None for 0, which scanners write if there was no inversion."""
    item = functional_group(header, group)
    value = number_of(header, keyword) or (number_of(item, group_keyword) if item is not None else None)
    return value or None


def _uid(path: Path, header: Dataset) -> str:
    uid = _text(header, "SeriesInstanceUID")
    if not uid:
        raise ValueError(f"{path}: has no SeriesInstanceUID. Export the series again, or leave the file out.")
    return uid


def _text(header: Dataset, keyword: str) -> str:
    value = header.get(keyword)
    return "" if value is None else str(value).strip()


def _values(value: Any) -> list:
    if value is None or isinstance(value, str):
        return [value] if value else []
    return list(value)


def _choice_error(series: Sequence[Series], fitting: Sequence[Series], request: str) -> str:
    if not series:
        return "There is no MR series to choose from: the files hold no MR image."
    found = f"{len(fitting)} of {len(series)} series fit" if fitting else "none fits"
    listed = "\n".join(f"  {one}" for one in series)
    return (
        f"{series[0].files[0].parent}: expected one series for {request}, {found}. "
        "Choose one with series_uid, or with series_description, a part of its description:\n" + listed
    )
