"""Write the report of an evaluation: one self-contained HTML file."""

from __future__ import annotations

import heapq
import logging
import math
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ignite.engine import Engine, Events
from markupsafe import Markup

import mri_seg
from mri_seg.report import charts
from mri_seg.report.archive import ArchivedCase, gallery, load_case
from mri_seg.report.compare import compare
from mri_seg.report.curves import calibration, probability_counts
from mri_seg.report.error_analysis import KINDS, classify, count, false_lesions, missed_lesions
from mri_seg.report.folder import Evaluation, read_evaluation
from mri_seg.report.quality import quality_summary
from mri_seg.report.viewer import key_slice, pack_case, poster
from mri_seg.utils.colors import PREDICTION, REFERENCE
from mri_seg.utils.distributed import is_main_process
from mri_seg.utils.files import atomic_write
from mri_seg.utils.flags import flag
from mri_seg.visualize.html import json_for_script, script_hash, template_environment, template_source
from mri_seg.visualize.viewer import viewer_settings

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["PUBLISHED", "ReportWriter", "write_report"]

PUBLISHED = {"dice": 0.7424, "precision": 0.8401, "recall": 0.8339}
"""Scores of the published model by the slice protocol, on the 15 test patients of its split."""

# The colours of Okabe and Ito's palette that the contours do not use.
_KIND_COLORS = ("#0072b2", "#009e73", "#f0e442", "#d55e00", "#cc79a7")
_ROLES = {"best": "Best patient", "median": "Median patient", "worst": "Worst patient"}
_LARGEST_FALSE_LESION = "Largest false lesion"
_NONE = "–"
_LEFT_OUT = Markup("<!--left-out-->")  # on the page until it is known whose viewers are
_MARK = re.compile(r"<!--(?:viewer-\d+|left-out)-->")  # no text on the page can be one, because < is escaped
_WHAT_WAS_EVALUATED = (
    ("section", "Section"),
    ("split", "Split"),
    ("dataset_dir", "Data"),
    ("predictions", "Masks"),
    ("missing_predictions", "Cases without a mask, counted as empty"),
    ("checkpoint", "Checkpoint"),
    ("checkpoint_sha256", "SHA-256 of the checkpoint"),
    ("checkpoint_date", "Checkpoint trained on"),
    ("checkpoint_version", "Checkpoint trained by version"),
    ("threshold", "Probability threshold"),
    ("min_lesion_volume", "Smallest lesion kept (mm³)"),
    ("min_brain_fraction", "Smallest fraction of a lesion in the brain"),
    ("min_lesion_fraction", "Smallest lesion kept (fraction of the largest)"),
    ("min_lesion_slices", "Fewest slices of a lesion beside the largest"),
    ("fill_holes", "Holes filled"),
    ("flip", "Averaged with the mirrored slice"),
    ("ensemble", "Averaged with checkpoints"),
    ("surface_tolerance", "Surface Dice tolerance"),
    ("bootstrap_resamples", "Bootstrap resamples"),
    ("started", "Started"),
)


class ReportWriter:
    """Handler that writes ``report.html`` when an evaluation is complete.

    Attach it after :py:class:`~mri_seg.evaluation.writer.EvaluationWriter` and
    :py:class:`~mri_seg.report.archive.CaseArchive`, whose files it reads.

    Args:
        output_dir: folder of the evaluation.
        enabled: whether to write anything.
    """

    def __init__(self, output_dir: PathLike | str, enabled: bool | str = True) -> None:
        self.output_dir = Path(output_dir)
        self.enabled = flag(enabled)

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator."""
        if self.enabled:
            engine.add_event_handler(Events.COMPLETED, self._write)

    def _write(self, engine: Engine) -> None:
        if is_main_process():
            engine.logger.info("report: %s", write_report(self.output_dir))


@dataclass
class _View:
    """A case as the report shows it."""

    id: str
    case: str
    patient: dict[str, Any]
    counts: dict[str, Any]
    false: list[dict[str, Any]]
    missed: list[dict[str, Any]]
    first_slice: int
    packed: str  # what the viewer's script reads, as JSON; empty if there is no room for it
    roles: list[str] = field(default_factory=list)
    links: list[tuple[int, str]] = field(default_factory=list)
    poster: str = ""

    @property
    def mark(self) -> Markup:
        """What stands on the page for the viewer until it is filled in."""
        return Markup(f"<!--{self.id}-->")

    @property
    def false_pixels(self) -> int:
        """Number of false pixels of all kinds."""
        return sum(self.counts[kind] for kind in KINDS)


def write_report(
    folder: PathLike | str,
    output: PathLike | str | None = None,
    *,
    other: PathLike | str | None = None,
    largest_megabytes: float = 25,
) -> Path:
    """Write the report of an evaluation.

    Args:
        folder: folder of the evaluation, or of a run with exactly one evaluation directly below it.
        output: the file to write; by default ``report.html`` in the folder of the evaluation.
        other: folder of another evaluation of the same patients, to compare with.
        largest_megabytes: maximum size of the file (1 MB is 1,000,000 bytes). If it would get larger, the viewers of
            the patients with the fewest false pixels are left out, and the report says so.

    Returns:
        path of the file.

    Raises:
        FileNotFoundError: when a file of an evaluation is missing.
        IsADirectoryError: when ``output`` is a folder.
        ValueError: when a file is damaged, or two evaluations share no patient.
    """
    evaluation = read_evaluation(folder)
    output = evaluation.folder / "report.html" if output is None else Path(output)
    if output.is_dir():
        raise IsADirectoryError(f"{output} is a folder. Name the HTML file to write.")
    limit = int(largest_megabytes * 1e6)
    views, probabilities = _read_cases(evaluation, limit)
    facts = _facts(evaluation, Path(folder), views, probabilities)
    facts["comparison"] = None if other is None else _comparison(evaluation, read_evaluation(other))
    content = _with_viewers(_render(views, facts), views, limit).encode()
    if len(content) > limit:
        logging.getLogger(__name__).warning(
            "%s has %.1f MB even without any viewer, more than the limit of %g MB.",
            output,
            len(content) / 1e6,
            largest_megabytes,
        )
    with atomic_write(output) as unfinished:
        unfinished.write_bytes(content)
    return output


def _read_cases(evaluation: Evaluation, room: int) -> tuple[list[_View], np.ndarray]:
    """Read the cases one by one, since volumes are large, and add up their voxels by probability.

    Of what viewers read no more is kept than there is room for: that of the gallery, which is chosen here, and of the
    other cases with most false pixels.
    """
    views, probabilities = [], np.zeros((2, 256), dtype=np.int64)
    roles = gallery({patient["case"]: patient["dice"] for patient in evaluation.patients})
    largest: tuple[_View, str, str] | None = None  # case with the largest false lesion so far, its viewer and picture
    kept: list[tuple[int, int]] = []  # heap: false pixels and number of each case whose viewer data are kept
    for number, patient in enumerate(evaluation.patients, start=1):
        case = _load(evaluation, patient["case"])
        kinds, slices = classify(case), evaluation.slices[case.case]
        probabilities += probability_counts(case)
        view = _View(
            id=f"viewer-{number}",
            case=case.case,
            patient={**patient, "voxel_volume": _voxel_volume(case)},
            counts=count(case, kinds),
            false=false_lesions(case),
            missed=missed_lesions(case),
            first_slice=key_slice(slices),
            packed=json_for_script(pack_case(case, kinds, slices)),
        )
        view.links = _links(view)
        views.append(view)
        if view.false and (largest is None or view.false[0]["pixels"] > largest[0].false[0]["pixels"]):
            largest = view, view.packed, poster(case, view.false[0]["slice"])
        if case.case in roles:
            view.roles.append(_ROLES[roles[case.case]])
            view.poster = poster(case, view.first_slice)
            continue
        heapq.heappush(kept, (view.false_pixels, number))
        room -= len(view.packed)
        while room < 0:
            least = views[heapq.heappop(kept)[1] - 1]
            room += len(least.packed)
            least.packed = ""
    if largest is not None:
        view, view.packed, view.poster = largest
        view.roles.append(_LARGEST_FALSE_LESION)
        view.first_slice = view.false[0]["slice"]
    return views, probabilities


def _load(evaluation: Evaluation, name: str) -> ArchivedCase:
    file = evaluation.case_file(name)
    case = load_case(file)
    slices = len(evaluation.slices[name])
    if case.case != name or case.image.shape[-1] != slices:
        raise ValueError(
            f"{file}: holds {case.image.shape[-1]} slices of {case.case}, but slices.csv has {slices} of {name}. "
            "Run the evaluation again."
        )
    return case


def _voxel_volume(case: ArchivedCase) -> float | None:
    """Volume of a voxel in mm3, None if it is not known."""
    return math.prod(case.spacing) if case.spacing_known and case.slice_spacing_known else None


def _links(view: _View) -> list[tuple[int, str]]:
    """Numbers of the slices worth a look, with what each shows."""
    links = [(view.first_slice, "most false pixels" if view.false_pixels else "most tumour")]
    for lesions, words in ((view.false, "false lesion"), (view.missed, "missed lesion")):
        if lesions:
            links.append((lesions[0]["slice"], f"largest {words}, {lesions[0]['pixels']:,} pixels"))
    return links


def _with_viewers(page: str, views: Sequence[_View], limit: int) -> str:
    """Fill in the viewers that there is room for: the gallery first, then the patients with most false pixels.

    Args:
        page: the page with a mark for each viewer, and one for the note on those that are left out.
        views: the cases.
        limit: how many bytes the page may have.
    """
    parts: Any = template_environment().get_template("report_parts.html").module
    left_out = parts.no_slices()
    filled: dict[str, Any] = {view.mark: left_out for view in views}
    everyone = parts.left_out([view.case for view in views], len(views))
    room = limit - len(page.encode()) - len(everyone.encode()) - len(views) * len(left_out)
    for view in sorted(views, key=lambda view: (not view.roles, -view.false_pixels)):
        slices = parts.slices(view.packed)
        if view.packed and len(slices) - len(left_out) <= room:
            room -= len(slices) - len(left_out)
            filled[view.mark] = slices
    cases = [view.case for view in views if filled[view.mark] == left_out]
    filled[_LEFT_OUT] = parts.left_out(cases, len(views)) if cases else ""
    return _MARK.sub(lambda mark: filled[mark[0]], page)


def _facts(evaluation: Evaluation, folder: Path, views: Sequence[_View], probabilities: np.ndarray) -> dict[str, Any]:
    """Everything the template shows besides the cases."""
    metrics = evaluation.metrics
    counts = [view.counts for view in views]
    total = {kind: sum(row[kind] for row in counts) for kind in KINDS}
    volumes, unit = charts.tumor_volumes(
        evaluation.patients, {view.case: view.patient["voxel_volume"] for view in views}
    )
    errors = calibration(probabilities)
    return {
        "metrics": metrics,
        "settings": _settings(metrics),
        "command": " ".join(_quoted(str(part)) for part in metrics.get("command", [])),
        "published": PUBLISHED,
        "volumes": volumes,
        "volume_unit": unit,
        "total": {**total, "all": sum(total.values())},
        "false_lesions": sorted((row for view in views for row in view.false), key=lambda row: -row["pixels"]),
        "missed_lesions": sorted((row for view in views for row in view.missed), key=lambda row: -row["pixels"]),
        "calibration": errors,
        "groups": charts.dice_by_group(evaluation.patients),
        "dice_and_volume": charts.dice_against_volume(evaluation.patients, volumes, unit),
        "bland_altman": charts.bland_altman(volumes, unit),
        "precision_recall": charts.precision_recall_curve(probabilities, threshold=metrics.get("threshold", 0.5)),
        "calibration_curve": charts.calibration_curve(errors),
        "quality": (quality := quality_summary(evaluation.patients)),
        "expected_dice": charts.expected_dice(quality["cases"]) if quality else None,
        "errors": charts.errors_bar(counts),
        "learning": _learning_curves(_run_folders(evaluation, folder)),
    }


def _settings(metrics: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What was evaluated: labels and values for the report."""
    found = {"dataset_dir": _option(metrics.get("command", []), "--dataset_dir"), **metrics}
    return [(words, _text(found[key])) for key, words in _WHAT_WAS_EVALUATED if found.get(key) not in (None, [], "")]


def _option(command: Sequence[str], name: str) -> str | None:
    """Value of an option of a command line."""
    for part, following in zip(command, [*command[1:], None]):
        if part == name:
            return following
        if str(part).startswith(f"{name}="):
            return part.split("=", 1)[1]
    return None


def _quoted(part: str) -> str:
    """Quote a part of a command line the way one would type it."""
    return f'"{part}"' if "'" in part and not set(part) & set('"$`\\!') else shlex.quote(part)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value)


def _run_folders(evaluation: Evaluation, folder: Path) -> list[Path]:
    """Folders that may hold the training run: the evaluation's folder and its parent, and the checkpoint's folder."""
    folders = [folder, evaluation.folder.parent]
    checkpoint = evaluation.metrics.get("checkpoint")
    return [*folders, Path(checkpoint).parent] if isinstance(checkpoint, str) else folders


def _learning_curves(folders: Iterable[Path]) -> str | None:
    """Learning curves of the first folder that has any."""
    return next((curves for folder in folders if folder.is_dir() and (curves := charts.learning_curves(folder))), None)


def _comparison(evaluation: Evaluation, other: Evaluation) -> dict[str, Any]:
    slices, other_slices = ([row for rows in e.slices.values() for row in rows] for e in (evaluation, other))
    found = compare(evaluation.patients, other.patients, slices, other_slices)
    names = _names(evaluation.folder, other.folder)
    here, there = (dict(_settings(e.metrics)) for e in (evaluation, other))
    return {
        **found,
        "name": names[0],
        "other_name": names[1],
        "settings": [
            (words, here.get(words, _NONE), there.get(words, _NONE))
            for words in dict.fromkeys([*here, *there])
            if here.get(words) != there.get(words)
        ],
        "scatter": charts.comparison_scatter(found, name=names[0], other=names[1]),
    }


def _names(folder: Path, other: Path) -> tuple[str, str]:
    """Short names that tell two folders apart."""
    folder, other = folder.resolve(), other.resolve()
    if folder.name != other.name:
        return folder.name, other.name
    return f"{folder.parent.name}/{folder.name}", f"{other.parent.name}/{other.name}"


def _environment() -> Environment:
    environment = template_environment()
    environment.filters.update(number=_number, signed=_signed, estimate=_estimate, percent=_percent)
    return environment


def _render(views: Sequence[_View], facts: Mapping[str, Any]) -> str:
    """The page, with marks in place of the viewers."""
    environment = _environment()
    script = template_source(environment, "viewer.js", "tables.js", "report.js")
    metrics = facts["metrics"]
    kinds = [{"key": key, "words": words, "color": c} for (key, words), c in zip(KINDS.items(), _KIND_COLORS)]
    order = [*_ROLES.values(), _LARGEST_FALSE_LESION]
    return environment.get_template("report.html").render(
        **facts,
        views=views,
        view_of={view.case: view for view in views},
        in_gallery=sorted((view for view in views if view.roles), key=lambda view: order.index(view.roles[0])),
        left_out=_LEFT_OUT,
        kinds=kinds,
        reference=REFERENCE,
        prediction=PREDICTION,
        script=script,
        script_hash=script_hash(script),
        style=template_source(environment, "base.css", "viewer.css", "report.css", "media.css"),
        settings_of_script=json_for_script(viewer_settings(kinds)),
        title=_title(metrics),
        version=mri_seg.__version__,
    )


def _title(metrics: Mapping[str, Any]) -> str:
    section = f" of the {metrics['section']} section" if metrics.get("section") else ""
    whose = f", masks in {Path(str(metrics['predictions'])).name}" if metrics.get("predictions") else ""
    return f"Evaluation{section}{whose}"


def _number(value: float | None, digits: int = 3) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return _NONE
    text = f"{value:,}" if isinstance(value, int) else f"{round(value, digits) + 0.0:,.{digits}f}"  # + 0: no minus zero
    return text.replace("-", "−")


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")


def _percent(part: float | None, whole: float = 1) -> str:
    return _NONE if part is None or not whole else f"{100 * part / whole:.1f} %"


def _estimate(entry: Mapping[str, Any] | None, name: str = "mean", interval: str = "interval", digits: int = 3) -> str:
    """A value with its 95 % interval."""
    if not entry or entry.get(name) is None:
        return _NONE
    ends = entry.get(interval)
    return _number(entry[name], digits) + (f" [{ends[0]:.{digits}f},\u00a0{ends[1]:.{digits}f}]" if ends else "")
