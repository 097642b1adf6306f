"""Count the files of a folder that are not segmented, by kind, and say what to do with them."""

from __future__ import annotations

import re
from collections import defaultdict
from os import PathLike
from pathlib import Path

from pydicom.filereader import read_partial
from pydicom.uid import UID

__all__ = ["PassedOver", "kind_of_dicom", "kind_of_file"]

_SOP_CLASS = 0x00080016  # SOPClassUID
_SHOWN = 3  # maximum number of files named per kind

# Kinds of files: patterns of their names, and what to do with them.
_KINDS = {
    "zip file": (r"\.zip$", "unpack it"),
    "archive": (r"\.(tar|tgz|tbz2?|txz|7z|rar|gz|bz2|xz|zst|dmg|iso)$", "unpack it"),
    "PAR/REC file": (r"\.(par|rec|xml\.rec)$", "convert with dcm2niix"),
    "AFNI file": (r"\.(brik|head)$", "convert with 3dAFNItoNIFTI"),
    "MINC file": (r"\.mnc2?$", "convert with mnc2nii"),
    "Bruker file": (r"(^|/)(2dseq|fid|acqp|visu_pars|reco)$", "convert with Bru2Nii or dcm2niix"),
    "file of raw k-space data": (r"(\.(h5|ismrmrd|mrd|fdf)|(^|/)(meas_.*\.dat|P\d{5}\.7))$", "reconstruct images"),
    "file of an Analyze or NIfTI pair without its other half": (r"\.(hdr|img)(\.gz)?$", "put .hdr and .img together"),
    "picture of another format": (r"\.(bmp|gif|webp|svgz?|pdf|jp2|j2k|avi|mp4)$", "export DICOM or NIfTI"),
    "array file": (r"\.(npy|npz|mat|pt|pth|pkl)$", "save it as NIfTI, with its affine"),
    "microscopy file": (r"\.(svs|czi|lif|nd2|ndpi)$", ""),
    "DICOMDIR, which lists the files of a disc": (r"(^|/)DICOMDIR$", "give the folder of the files it lists"),
}
_PATTERNS = {kind: re.compile(pattern, re.IGNORECASE) for kind, (pattern, _) in _KINDS.items()}
_TO_DO = {kind: to_do for kind, (_, to_do) in _KINDS.items()}


class PassedOver:
    """Counts the files that are passed over (skipped).

    Example::

        >>> passed_over = PassedOver()
        >>> passed_over.add("zip file", "a.zip")
        >>> str(passed_over)
        '1 zip file (a.zip): unpack it'
    """

    def __init__(self) -> None:
        self._files: dict[str, list[Path]] = defaultdict(list)

    def __bool__(self) -> bool:
        """Whether anything was passed over."""
        return bool(self._files)

    def add(self, kind: str, file: PathLike | str) -> None:
        """Count a file.

        Args:
            kind: what it is, in the singular.
            file: the file.
        """
        self._files[kind].append(Path(file))

    def files(self, kind: str) -> list[Path]:
        """Files of a kind."""
        return list(self._files.get(kind, ()))

    def __str__(self) -> str:
        """List each kind with its number of files, the names of some, and what to do."""
        return "; ".join(self.described())

    def described(self) -> list[str]:
        """Each kind with its number of files, the names of some, and what to do."""
        return [self._described(kind, files) for kind, files in self._files.items()]

    @staticmethod
    def _described(kind: str, files: list[Path]) -> str:
        names = ", ".join(file.name for file in files[:_SHOWN]) + (", ..." if len(files) > _SHOWN else "")
        to_do = _TO_DO.get(kind)
        return f"{len(files)} {_plural(kind, len(files))} ({names})" + (f": {to_do}" if to_do else "")


def kind_of_file(file: Path) -> str:
    """Kind of a file that cannot be read here, by its name."""
    for kind, pattern in _PATTERNS.items():
        if pattern.search(file.name):
            return kind
    return f"{file.suffix.lower()} file" if file.suffix else "file without suffix"


def kind_of_dicom(file: Path) -> str:
    """Kind of a DICOM file that is not an MR image, such as ``CT image`` and ``DICOM object (Segmentation)``."""
    try:
        with file.open("rb") as stream:
            header = read_partial(stream, stop_when=lambda tag, vr, length: tag > _SOP_CLASS, force=True)
        name = UID(str(header.SOPClassUID)).name
    except Exception:  # pydicom raises errors of many kinds for damaged files
        return "DICOM file of unknown kind"
    if not name.endswith(" Storage"):
        return "DICOM file of unknown kind"
    name = name.removesuffix(" Storage")
    return f"{name.removesuffix(' Image')} image" if name.endswith(" Image") else f"DICOM object ({name})"


def _plural(kind: str, count: int) -> str:
    if count == 1:
        return kind
    head, *rest = re.split(r"(?=,? (?:of|whose|which|that|used|without|computed|\(\w))", kind, maxsplit=1)
    return f"{head}es{''.join(rest)}" if head.endswith(("s", "x")) else f"{head}s{''.join(rest)}"
