"""Find the contrast of an MR image from a name: a DICOM description or a file name."""

from __future__ import annotations

import re
from enum import Enum
from functools import lru_cache

__all__ = ["Contrast", "contrast_of", "patient_of", "words_of"]


class Contrast(Enum):
    """The contrast that a name says; the value is its name in messages."""

    FLAIR = "FLAIR"
    FLAIR_OR_MAP = "FLAIR, or a map or subtraction of it"
    INVERSION_RECOVERY = "inversion recovery, FLAIR or STIR"
    T1 = "T1"
    T2 = "T2"
    OTHER = "another contrast"
    UNKNOWN = "nothing"

    @property
    def may_be_flair(self) -> bool:
        """Whether the name says FLAIR, possibly with a doubt."""
        return self in (Contrast.FLAIR, Contrast.FLAIR_OR_MAP, Contrast.INVERSION_RECOVERY)

    @property
    def is_other(self) -> bool:
        """Whether the name says a contrast other than FLAIR."""
        return self in (Contrast.T1, Contrast.T2, Contrast.OTHER)


def _words(pattern: str) -> re.Pattern[str]:
    """Pattern of whole words in a text from :py:func:`_spaced`; a digit may be next to a word."""
    return re.compile(rf"(?<![a-z])(?:{pattern})(?![a-z])")


# Names that vendors, sites and data sets give to T2-weighted FLAIR. Siemens: dark-fluid, and da-fl in SPACE protocols;
# GE: T2 FLAIR, Cube T2 FLAIR; Philips: FLAIR_longTR, BrainVIEW FLAIR; Canon and Fujifilm: FLAIR; BraTS 2023: t2f.
_FLAIR = _words(r"flair|(?:dark|fluid) ?(?:fl|fluid|att?en[a-z]*)|da ?fl|t2 ?f|fla")
# Siemens' turbo inversion recovery magnitude and other inversion recovery: FLAIR or, with a short inversion time, STIR.
_INVERSION_RECOVERY = _words(r"tirm|(?:spc|space|cube|tse|fse|vista) ir|ir (?:spc|space|cube|tse|fse)")
# What vendors write after T1 and T2, with or without a space, and sequences that are used only for T1.
_T1 = _words(
    r"t1 ?(?:w|wi|w?ce|w?c|wgd|n|gd|gad|gado|km|map|rho|ir|se|tse|fse|ffe|tfe|fl|gre|post|pre)?(?![a-z0-9])"
    r"(?: (?:post|pre|gd|gad|ce|km|contrast)(?![a-z0-9]))*"
    r"|t1 ?(?=(?:mprage|flash|spgr|space|vibe|tfl|flair|blade)(?![a-z]))"
    r"|(?:me)?mp2?rage|mp rage|f?spgr|bravo"
)
_T2 = _words(
    r"t2 ?(?:w|wi|n|tse|fse|se|star|ffe|tfe|map|blade|propeller|fs)?(?![a-z0-9])|t2 ?(?=(?:spc|space|tirm)(?![a-z]))"
)
# Other images that may have FLAIR's name or timing: T1 FLAIR (above), double inversion recovery, diffusion, perfusion.
_OTHER = _words(
    r"dir|adc|dwi|dti|dki|trace[a-z]*|diff|diffusion[a-z]*|perf|perfusion[a-z]*|subtract[a-z]*|tensor|scout|survey"
    r"|locali[sz]er|stir|psir|swi|swan|qsm|asl|cbf|cbv|mtt|ttp|dsc|dce|bold|fmri|fieldmap"
)
# Words that name another contrast only if the name does not say FLAIR. With FLAIR they may mean something else: a flip
# angle (FA 150), a weighting (PD FLAIR), a readout (EPI FLAIR). Before a number they may name a patient: PD_01.
_OTHER_ALONE = re.compile(
    r"(?<![a-z0-9])(?:fa|md|pdw?|ct|pet|mra|mrv|tof|mrs|svs|csi|epi|gre|flash|vibe|ciss|fiesta)(?! ?\d)(?![a-z0-9])"
)
# An anisotropy map or a subtraction; not a flip angle (FA 150) and not a subject (sub-01).
_MAP = re.compile(r"(?<![a-z0-9])(?:fa|sub)(?! ?[a-z]{0,3}\d)(?![a-z0-9])")
# "T1 in FLAIR", "T1_to_FLAIR", "FLAIR2T1": the second contrast is the grid to which the image was resampled.
_BROUGHT_TO = re.compile(
    r"(?<![a-z])(?:in|to|on|onto|2|(?:co ?)?reg[a-z]*(?: to)?) ?(?:3d )?(?:flair|t1[a-z]*|t2[a-z]*|mprage)"
)
# Words that occur with a contrast in a name and do not name a patient.
_READ_OUT = _words(
    r"ax|axial|sag|sagittal|cor|coronal|tra|trans|transversal|obl|[23]d|iso|tirm|spc|space|cube|vista|brain ?view"
    r"|[tf]?se|blade|propeller|dark|fluid|long ?tr|mri?"
)
_BIDS = re.compile(
    r"^(?P<subject>sub-[A-Za-z0-9]+)(?:_(?P<session>ses-[A-Za-z0-9]+))?(?P<rest>(?:_[a-z]+-[A-Za-z0-9+]+)*"
    r"_(?P<suffix>[A-Za-z0-9]+))$"
)
_TELLS_NO_CONTRAST = re.compile(r"_(?:space|run|echo|part|chunk)-[A-Za-z0-9+]+")


def contrast_of(name: str) -> Contrast:
    """Find the contrast that a name says.

    T1-weighted FLAIR counts as T1, since edema is dark on it. Words end at digits, at other characters, and where lower
    case changes to upper case.

    Args:
        name: a description, or the name of a file without its suffix; in BIDS names (``sub-01_FLAIR``), only the BIDS
            suffix counts.

    Example::

        >>> contrast_of("t2_tirm_tra_dark-fluid"), contrast_of("AX_T1_FLAIR"), contrast_of("P1")
        (<Contrast.FLAIR: 'FLAIR'>, <Contrast.T1: 'T1'>, <Contrast.UNKNOWN: 'nothing'>)
    """
    if bids := _BIDS.match(name):
        found = _contrast_of_text(_spaced(_TELLS_NO_CONTRAST.sub("", bids["rest"])))
        return found if found.may_be_flair or found.is_other else Contrast.OTHER
    return _contrast_of_text(_without_target(_spaced(name)))


def patient_of(name: str) -> tuple[str, ...]:
    """Find the words in a file name that name the patient: all words except those of the contrast.

    Args:
        name: the name of a file without its suffix.

    Returns:
        the words in lower case; for BIDS names, subject and session. Empty if the name says only a contrast.
    """
    if bids := _BIDS.match(name):
        return tuple(part for part in (bids["subject"], bids["session"]) if part)
    text = _without_target(_spaced(name))
    if _contrast_of_text(text) is not Contrast.UNKNOWN:
        for pattern in (_T1, _FLAIR, _INVERSION_RECOVERY, _T2, _OTHER, _OTHER_ALONE, _READ_OUT):
            text = pattern.sub(" ", text)
    return tuple(text.split())


def words_of(name: str) -> tuple[str, ...]:
    """Words of a name in lower case; words end at other characters and where lower case changes to upper case."""
    return tuple(_spaced(name).split())


@lru_cache(maxsize=10_000)  # each name is checked several times, and names of folders for each file
def _spaced(name: str) -> str:
    """A name in lower case, with one space between words."""
    text = re.sub(r"flair", " Flair ", name, flags=re.IGNORECASE)
    text = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[0-9])(?=[A-Z][a-z])", " ", text)
    text = re.sub(r"[^a-z0-9]+", " ", text.lower()).strip()
    text = re.sub(r"(?<![a-z0-9])([23]d)(?=[a-z])", r"\1 ", text)
    text = re.sub(r"(?<![a-z])(ax|axial|sag|cor|tra)(?=t[12](?!\d))", r"\1 ", text)
    return re.sub(r"(?<![a-z])(t[12])2 (?=flair)", r"\1 to ", text)  # T12FLAIR, T1 to FLAIR


def _without_target(text: str) -> str:
    """A spaced name without the contrast to whose grid the image was resampled."""
    target = _BROUGHT_TO.search(text)
    if target is None or _contrast_of_text(text[: target.start()]) is Contrast.UNKNOWN:
        return text
    return f"{text[: target.start()]} {text[target.end() :]}"


def _contrast_of_text(text: str) -> Contrast:
    if _T1.search(text):
        return Contrast.T1
    if _OTHER.search(text):
        return Contrast.OTHER
    if _FLAIR.search(text):
        return Contrast.FLAIR_OR_MAP if _MAP.search(text) else Contrast.FLAIR
    if _OTHER_ALONE.search(text):
        return Contrast.OTHER
    if _INVERSION_RECOVERY.search(text):
        return Contrast.INVERSION_RECOVERY
    return Contrast.T2 if _T2.search(text) else Contrast.UNKNOWN
