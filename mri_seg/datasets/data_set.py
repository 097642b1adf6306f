"""A data set of any form, and the cases of a section of a split of it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

from mri_seg.datasets.decathlon import read_datalist
from mri_seg.datasets.forms import recognize
from mri_seg.datasets.found import Found
from mri_seg.datasets.lgg.split import SHIPPED_SPLITS, load_split
from mri_seg.datasets.splits import Split, random_split, select, shared_patients, split_content
from mri_seg.io.sequences import with_sequences_or_error
from mri_seg.utils.distributed import broadcast_object, is_main_process
from mri_seg.utils.files import read_json, write_json

__all__ = ["CaseList", "DataSet", "datalist", "split_name", "write_split"]

logger = logging.getLogger(__name__)

_FOLDS = 5
_TCGA_LGG = "kaggle_3m"  # name of its folder, on Kaggle and by default
_FETCH = "To fetch TCGA-LGG: python -m mri_seg.datasets.lgg fetch"


class DataSet:
    """A data set of any form (:py:data:`mri_seg.datasets.forms.FORMS`), found by itself; the log says which it is.

    Args:
        dataset_dir: its folder; with ``datalist`` the folder from which relative paths start.
        datalist: a JSON file that lists the cases (:py:func:`mri_seg.datasets.decathlon.read_datalist`).

    Raises:
        FileNotFoundError: when the folder, or a file that is listed, does not exist.
        NotADirectoryError: when it is a file.
        ValueError: when it is in no form that is understood, or has a fault.
    """

    def __init__(self, dataset_dir: PathLike | str, datalist: PathLike | str | None = None) -> None:
        self.root = Path(dataset_dir)
        self.place = Path(datalist) if datalist else self.root
        self.found: Found = read_datalist(self.place, self.root) if datalist else recognize(_existing(self.root))
        self._splits: dict[tuple[str, int], Split] = {}
        self.log(f"{self.place}: {self.found.form}, {len(self.found.cases)} cases of {self._patients()} patients.")

        if self.found.unusable and is_main_process():
            first, count = self.found.unusable[0], len(self.found.unusable)
            logger.warning(
                "%s: %s%s. See python -m mri_seg.datasets check.",
                first.path,
                first.problem,
                f" (and {count - 1} more files are not used)" if count > 1 else "",
            )

    @property
    def cases(self) -> list[dict[str, Any]]:
        """All cases; see :py:class:`mri_seg.datasets.found.Found`."""
        return self.found.cases

    def split(self, name: PathLike | str, seed: int) -> Split:
        """The split of a name; it is drawn once.

        Args:
            name: ``auto``, ``random:<folds>:<fold>``, ``fold:<fold>``, ``own``, ``all``, a shipped split of TCGA-LGG,
                or the path of a JSON file; see :py:func:`datalist`.
            seed: seed of a random split.

        Raises:
            ValueError: when the name is none of these, or the data set has no such split.
        """
        key = (str(name), seed)
        if key not in self._splits:
            self._splits[key] = self._split(str(name), seed)
        return self._splits[key]

    def _split(self, name: str, seed: int) -> Split:
        if name == "auto":
            chosen = self._usual_split()
            split = self._split(chosen, seed)
            kind = f", drawn by seed {seed}" if chosen.startswith("random:") else ""
            counts = ", ".join(f"{len(names)} {section}" for section, names in split.sections.items())
            self.log(f"{self.place}: --split was not given; it is {chosen}{kind} ({counts}).")
            return split
        pool = [case for case in self.cases if case["case"] not in self._test]
        if name == "all":
            return self._with_test(Split(name, {"training": dict.fromkeys(sorted({case["patient"] for case in pool}))}))
        if name == "own":
            return self._own_split()
        if name.startswith("random:"):
            return self._with_test(random_split(pool, name, seed))
        if name.startswith("fold:"):
            return self._with_test(self._fold_split(name))
        return Split(name, load_split(name))

    def _usual_split(self) -> str:
        """The split of data for which none was given."""
        published = load_split("published")
        if not {case["patient"] for case in self.cases}.isdisjoint(set().union(*published.values())):
            return "published"
        if self.place == self.root and (self.root / "split.json").is_file():
            return str(self.root / "split.json")
        if "validation" in self.found.sections:
            return "own"
        if self.found.folds:
            return f"fold:{min(self.found.folds.values())}"
        patients = len({case["patient"] for case in self.cases if case["case"] not in self._test})
        return f"random:{min(_FOLDS, patients)}:0" if patients > 1 else "all"

    def _own_split(self) -> Split:
        if not self.found.sections:
            raise ValueError(
                f"{self.place}: --split: 'own', but the data set has no sections. Give random:5:0 or a file."
            )
        return Split("own", {section: dict.fromkeys(names) for section, names in self.found.sections.items()})

    def _fold_split(self, name: str) -> Split:
        fold = name.removeprefix("fold:")
        known = sorted(set(self.found.folds.values()))
        if not fold.isdigit() or int(fold) not in known:
            listed = ", ".join(f"fold:{number}" for number in known) or "none, as no case has a `fold`"
            raise ValueError(f"{self.place}: --split: {name!r}, expected a fold of the data set: {listed}.")
        held = {case: None for case, number in self.found.folds.items() if number == int(fold)}
        rest = {
            case["case"]: None for case in self.cases if case["case"] not in held and case["case"] not in self._test
        }
        return Split(name, {"training": rest, "validation": held})

    @cached_property
    def _test(self) -> set[str]:
        """Cases that no drawn split trains or validates on: the data set's own test cases, and the published ones."""
        published = load_split("published")["test"]
        return {
            *self.found.sections.get("test", ()),
            *(case["case"] for case in self.cases if case["case"] in published),
        }

    def _with_test(self, split: Split) -> Split:
        test = dict.fromkeys(case["patient"] for case in self.cases if case["case"] in self._test)
        return Split(split.name, {**split.sections, **({"test": test} if test else {})})

    def _patients(self) -> int:
        return len({case["patient"] for case in self.cases})

    @staticmethod
    def log(line: str) -> None:
        """Log a line, once for all processes."""
        if is_main_process():
            logger.info(line)


class CaseList(list[dict[str, Any]]):
    """Cases of a section, with the split they are from.

    Attributes:
        split: how ``--split`` names the split.
        content: JSON content of the split's file.
    """

    def __init__(self, cases: list[dict[str, Any]], split: Split, content: Mapping[str, Any]) -> None:
        super().__init__(cases)
        self.split = split.name
        self.content = dict(content)


def datalist(
    data_set: DataSet | PathLike | str,
    split: PathLike | str = "auto",
    section: str = "training",
    allow_missing: bool = False,
    *,
    seed: int = 0,
    optional: bool = False,
    sequences: Sequence[str] = (),
) -> CaseList:
    """List the cases of a section of a split, in the form that MONAI's data sets expect.

    Only the requested section has to be complete. But a patient that is in no section is always an error, because it
    would be left out silently.

    Args:
        data_set: the data set, or its folder.
        split: one of

            - ``random:<folds>:<fold>``, such as ``random:5:0``: folds drawn by ``seed``, by patient and balanced by
              institution, of which one is for validation;
            - ``own``: the sections of the data set itself; ``fold:<fold>``: that fold of it is for validation;
            - ``all``: every case is for training;
            - a shipped split of TCGA-LGG, such as ``published``;
            - the path of a JSON file (:py:func:`mri_seg.datasets.splits.parse_split`);
            - ``auto``: for patients of TCGA-LGG ``published``; else ``split.json`` in the folder, ``own``, the first
              ``fold``, or ``random:5:0``, whichever there is.

            The data set's own test cases and the published test patients stay the section ``test`` in all of them.
        section: ``training``, ``validation``, ``test``, several of them joined by ``+``, or ``all``.
        allow_missing: if true, differences between data set and split, and cases without a label, are only logged as a
            warning, and the other cases of the section are used.
        seed: seed of a random split.
        optional: whether the list is empty if the split has no such section.
        sequences: names of the sequences that the network sees beside FLAIR; a case that lacks one cannot be used.

    Returns:
        one dictionary per case, sorted by name: ``image`` and ``label``, lists of files; ``case``; ``patient``;
        ``group``, with which its figures are shown; and ``sequences``, ``volume`` and ``flags`` if the case has them.

    Raises:
        FileNotFoundError: when the folder does not exist.
        ValueError: when the data set, the split or the section is unknown or does not fit the others.
    """
    found = data_set if isinstance(data_set, DataSet) else DataSet(data_set)
    chosen = found.split(split, seed)
    content = split_content(chosen, **({"seed": seed} if chosen.name.startswith("random:") else {}))
    if optional and section not in chosen.sections:
        found.log(f"split {chosen.name!r} has no section {section!r}: the last weights are the result of the training.")
        return CaseList([], chosen, content)
    remedy = "Complete the data set"
    if chosen.name in SHIPPED_SPLITS:
        remedy = f"Complete the folder (python -m mri_seg.datasets.lgg fetch {found.root})"
    complete = [with_sequences_or_error(case, sequences) for case in found.cases]
    cases = select(complete, chosen, section, place=found.place, allow_missing=allow_missing, remedy=remedy)
    return CaseList(cases, chosen, content)


def split_name(cases: Sequence[Any], split: PathLike | str) -> str:
    """Name of the split that a list of cases belongs to.

    Args:
        cases: the cases of a section, from :py:func:`datalist`, or any other list.
        split: the option, which is the answer for other lists.
    """
    return str(getattr(cases, "split", split))


def write_split(run_dir: PathLike | str, *lists: Sequence[Any]) -> None:
    """Write the split of a run to its folder as ``split.json``, which ``--split`` reads, and its name to ``run.json``.

    Args:
        run_dir: folder of the run.
        lists: lists of cases of one split. As an argument they are made before any volume is read. If the first is
            another list, such as that of MONAI Label, nothing is written.

    Raises:
        ValueError: when the folder holds another split: a run that is resumed would train on patients it validates on.
    """
    content = getattr(lists[0], "content", None)
    if content is None:
        return
    if is_main_process():
        file = Path(run_dir, "split.json")
        written = read_json(file) if file.is_file() else None
        resumed = written is not None and any(Path(run_dir).glob("checkpoint_iteration=*.pt"))
        if resumed and {**(written or {}), "description": ""} != {**content, "description": ""}:
            raise ValueError(
                f"{file}: this run had another split than its data give now, because patients were added, removed or "
                "renamed. Restore the data to resume it, or start a new run with --resume false."
            )
        if written != content:
            write_json(file, content)
        run = Path(run_dir, "run.json")
        named = {**read_json(run), "split": split_name(lists[0], "")} if run.is_file() else None
        if named is not None and named != read_json(run):
            write_json(run, named)
    broadcast_object("written")


def problems_of(data_set: DataSet, split: PathLike | str, seed: int) -> Iterator[str]:
    """Describe the patients that are in two sections of a split, and of the data set's own sections."""
    names = {str(split), *(["own"] if data_set.found.sections else ())}
    for name in sorted(names):
        yield from shared_patients(data_set.cases, data_set.split(name, seed))


def _existing(root: Path) -> Path:
    """The folder, which must exist."""
    hint = f" {_FETCH} {root}." if root.name == _TCGA_LGG else ""
    if not root.exists():
        raise FileNotFoundError(f"{root}: no such folder. Give --dataset_dir the folder of your data set.{hint}")
    if not root.is_dir():
        raise NotADirectoryError(
            f"{root}: not a folder, expected one of images with labels. A list of cases is given by --datalist."
        )
    return root
