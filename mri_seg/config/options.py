"""The options of the configs: what each means, in what unit, and what values it may have.

This is the only description of the options. ``python -m mri_seg.config.options > docs/options.md`` writes it as a
document, with the defaults that the configs give. Importing it imports neither torch nor MONAI.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

from mri_seg.utils.bundle_folder import bundle_folder
from mri_seg.utils.label_classes import LABEL_MODES

__all__ = [
    "OPTIONS",
    "PATH",
    "PATH_OR_PATHS",
    "RULES",
    "SWITCH",
    "TEXT",
    "Described",
    "Option",
    "Rule",
    "describe",
    "document",
    "settings",
]


class Rule(NamedTuple):
    """What values an option may have: in words, and as a test."""

    expected: str
    holds: Callable[[Any], bool]


class Option(NamedTuple):
    """An option of the configs.

    Attributes:
        meaning: what it is, in one line of Markdown.
        rule: what values it may have; None if its value is checked where it is used, or is a part of the config.
        unit: unit of its value.
        elsewhere: what it is in configs in which it means something else, by the name of the config.
    """

    meaning: str
    rule: Rule | None = None
    unit: str = ""
    elsewhere: Mapping[str, str] = {}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and not math.isnan(value)


def _is_whole(value: Any, lowest: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= lowest


def _several(value: Any) -> list:
    return list(value) if isinstance(value, (list, tuple)) and value else [value]


def _are(count: int, value: Any, holds: Callable[[Any], bool]) -> bool:
    return isinstance(value, (list, tuple)) and len(value) == count and all(map(holds, value))


def _is_device(value: Any) -> bool:
    import torch

    try:
        return bool(torch.device(value))
    except (RuntimeError, TypeError):
        return False


def _whole(lowest: int) -> Rule:
    return Rule(f"a whole number, {lowest} or more", lambda value: _is_whole(value, lowest))


def _or_none(rule: Rule) -> Rule:
    return Rule(f"{rule.expected}, or None", lambda value: value is None or rule.holds(value))


_SWITCH = Rule("true or false", lambda value: isinstance(value, bool) or str(value).lower() in ("true", "false"))
_FRACTION = Rule("a number, 0 to 1", lambda value: _is_number(value) and 0 <= value <= 1)
_POSITIVE = Rule("a number above 0", lambda value: _is_number(value) and value > 0)
_NOT_NEGATIVE = Rule("a number, 0 or more", lambda value: _is_number(value) and value >= 0)
TEXT = Rule("text; quote it twice if it looks like a number", lambda value: isinstance(value, str))
"""The rule of options that are any text."""
_DEVICE = Rule("a device, such as cpu or cuda:0", _is_device)
_ODD = Rule("a whole odd number", lambda value: _is_whole(value, 1) and value % 2 == 1)
_SIZE = Rule('two whole numbers, as in "[256,256]"', lambda value: _are(2, value, lambda one: _is_whole(one, 1)))
_SIZE_OF_32 = Rule(
    'two multiples of 32, as in "[160,160]"',
    lambda value: _are(2, value, lambda one: _is_whole(one, 32) and one % 32 == 0),
)
_IN_PLANE = Rule('two numbers above 0, as in "[0.94,0.94]"', lambda value: _are(2, value, _POSITIVE.holds))
_SPACING = Rule(
    'three numbers above 0, rows, columns and slices in mm, as in "[0.9,0.9,5]"',
    lambda value: value is None or _are(3, value, _POSITIVE.holds),
)
_STEPS = Rule(
    'whole numbers, 0 or more, as in "[0,1,1,2]"',
    lambda value: isinstance(value, (list, tuple)) and len(value) > 0 and all(_is_whole(one, 0) for one in value),
)
_LABEL_VALUES = Rule(
    "whole numbers, 1 or more, with commas between, as in 1,2,4; for several classes also lists of them, as in "
    '"[[1,2,4],[1,4],[4]]"; or None',
    lambda value: value is None or all(all(_is_whole(one, 1) for one in _several(part)) for part in _several(value)),
)
_UID = Rule("a SeriesInstanceUID", lambda value: value is None or isinstance(value, str))
_NAMES = Rule("names with commas between", lambda value: isinstance(value, (str, list, tuple)))
_PATHS = Rule("paths, as in \"['a.pt','b.pt']\"", _NAMES.holds)
_PATTERNS = Rule("regular expressions, as in \"['.*head.*']\"", _NAMES.holds)
PATH = Rule("a path; write ./ before one that looks like a number", lambda value: isinstance(value, (str, PathLike)))
"""The rule of options that are paths."""
PATH_OR_PATHS = Rule(
    "a path, or for inference several, as in \"['a.nii.gz','study']\"; write ./ before one that looks like a number",
    lambda value: (
        PATH.holds(value)
        or (isinstance(value, (list, tuple)) and len(value) > 0 and all(PATH.holds(one) for one in value))
    ),
)
"""The rule of ``dataset_dir``."""
SWITCH = _SWITCH
"""The rule of options that are true or false."""

OPTIONS: dict[str, Option] = {
    "bundle_root": Option(
        "folder of the bundle, whose `models/model.pt` are the shipped weights; `python -m mri_seg.bundle` prints that "
        "of the package",
        PATH,
    ),
    "dataset_dir": Option(
        "folder of the data set: TCGA-LGG, pairs of images and labels, nnU-Net, MSD, BIDS, or DICOM series with DICOM "
        "SEG; see [your own data](own_data.md)",
        PATH_OR_PATHS,
        elsewhere={"inference.json": "folders of cases of any kind, nested to any depth, and files: one or several"},
    ),
    "datalist": Option(
        "a JSON file that lists the cases, in the form of MONAI and the Decathlon; relative paths start from "
        "`dataset_dir`, or else from its folder",
        _or_none(PATH),
    ),
    "run_name": Option("name of the run", TEXT),
    "output_dir": Option(
        "folder of the run",
        PATH,
        elsewhere={
            "inference.json": "folder of the results; or a file `.nii.gz` for the mask of a single case",
            "follow_up.json": "folder of the results; the timelines are in its folder `follow_up`",
        },
    ),
    "resume": Option(
        "resume the run in `output_dir` from its last checkpoint; the weights come out bit-identical if PyTorch has as "
        "many threads as before; `false` begins a new run in a folder beside it",
        _SWITCH,
    ),
    "run_dir": Option("folder of the run after `resume` is taken into account; follows from `output_dir`"),
    "keep_checkpoints": Option(
        "how many checkpoints of the full training state to keep, beside the weights", _whole(1)
    ),
    "debug": Option("show the traceback of an error, not its message alone", _SWITCH),
    "split": Option(
        "`random:5:0` (five folds drawn by `seed`, by patient; fold 0 is for validation), `all` (no validation), `own` "
        "or `fold:0` (as the data set says), a shipped split of TCGA-LGG (`published`, `institution/CS`, ..., "
        "`folds/1`, ...) or the path of a JSON file; `auto` is `published` for TCGA-LGG, else the data set's "
        "own or `random:5:0`",
        PATH,
    ),
    "section": Option("section of the split to evaluate on: `training`, `validation` or `test`", TEXT),
    "predictions": Option(
        "folder of masks to evaluate instead of a network's, made by any program: any format and grid that inference "
        "reads, named after the cases, or DICOM SEG of their series",
        _or_none(PATH),
    ),
    "allow_missing_predictions": Option(
        "count a case without a mask in `predictions` as one with an empty mask; if `false`, that is an error", _SWITCH
    ),
    "training_section": Option("section of the split to train on; `training+validation` for both", TEXT),
    "allow_missing": Option(
        "continue if the split names patients that the folder lacks, or the other way round, and log how many", _SWITCH
    ),
    "label_values": Option(
        "values of the labels that count as tumour; by default all above 0 (of masks with fractions, from 0.5). If "
        "`label_mode` is not `binary`, the values of each class",
        _LABEL_VALUES,
    ),
    "label_mode": Option(
        "`binary`: tumour alone; `exclusive`: several classes, of which a voxel has one at most; `regions`: several "
        "that are nested, the largest first; see [your own data](own_data.md)",
        Rule("binary, exclusive or regions", lambda value: value in LABEL_MODES),
    ),
    "sequences": Option(
        "names of the sequences that the network sees beside FLAIR, which lie beside it or are listed by `datalist`; "
        "needs weights trained so; see [your own data](own_data.md)",
        _or_none(Rule("names with commas between, as in t1ce,t2", _NAMES.holds)),
    ),
    "sequence_names": Option("list of the names in `sequences`; follows from it"),
    "cases_for_training": Option("the cases trained on; follow from `dataset_dir`, `split` and `training_section`"),
    "cases_for_validation": Option(
        "the cases validated on; follow from `dataset_dir` and `split`, and may be none",
        elsewhere={"evaluate.json": "the cases evaluated; follow from `dataset_dir`, `split` and `section`"},
    ),
    "device": Option("where to compute", _DEVICE),
    "amp": Option("bfloat16 autocast (of the runtime `torch`)", _SWITCH),
    "compile": Option("train with the network compiled by `torch.compile`", _SWITCH),
    "num_workers": Option("threads that read and preprocess volumes", _whole(0)),
    "seed": Option("seed of all random numbers", _whole(0)),
    "cache": Option(
        "where the training slices are kept: in `memory`, on `disk`, or `auto`, which chooses memory if they take no "
        "more than half of what is available; unless it is `memory`, validation volumes take no more than a quarter",
        Rule("auto, memory or disk", lambda value: value in ("auto", "memory", "disk")),
    ),
    "cache_dir": Option(
        "folder of the slices on disk, about 61 GB for 1,000 cases of 155 slices; runs share it, and it is safe to "
        "delete while no training uses it",
        PATH,
    ),
    "initial_weights": Option(
        "weights to start training from: a path, such as `runs/mine/model.pt`, or `shipped` for those of the bundle",
        _or_none(PATH),
    ),
    "epochs": Option("length of the training", _whole(1), "epochs"),
    "slices_per_epoch": Option("slices drawn in an epoch, by all processes together", _whole(1), "slices"),
    "batch_size": Option("slices in a step of a process", _whole(1), "slices"),
    "learning_rate": Option("highest learning rate, reached after warm-up", _POSITIVE),
    "weight_decay": Option("weight decay of AdamW", _NOT_NEGATIVE),
    "warmup_fraction": Option(
        "fraction of all steps in which the learning rate rises; it then falls by a cosine", _FRACTION
    ),
    "max_grad_norm": Option("gradients with a larger 2-norm are scaled down to it", _POSITIVE),
    "ema_momentum": Option(
        "weight of the newest weights in the exponential moving average that is validated and saved", _FRACTION
    ),
    "ema_network": Option(
        "the network that is validated and saved: the moving average, or `@network` for the last weights",
        elsewhere={"evaluate.json": "the network that is evaluated: the one that the weights are loaded into"},
    ),
    "val_interval": Option("validate after every so many epochs", _whole(1), "epochs"),
    "checkpoint_interval": Option("save the weights after every so many epochs", _whole(1), "epochs"),
    "save_to_bundle": Option(
        "at the end, copy weights to `models/model.pt` of the bundle: `best` on the validation patients, `last`, or "
        "`false`; needs `bundle_root`, which must not be the installed package"
    ),
    "num_slices": Option("slices that the network sees at once (2.5D): the slice and its neighbours", _ODD, "slices"),
    "spatial_size": Option(
        "rows and columns of the training slices; smaller slices are padded, larger ones cropped", _SIZE, "pixels"
    ),
    "roi_size": Option("rows and columns of the crops trained on", _SIZE_OF_32, "pixels"),
    "mirror": Option(
        "also show the network the slice mirrored about the midline, as one more channel; needs weights trained so",
        _SWITCH,
    ),
    "normalize_region": Option(
        "what intensities are normalized by: the foreground of the `head`, or the `brain`; needs weights trained so",
        Rule("head or brain", lambda value: value in ("head", "brain")),
    ),
    "scalp_probability": Option("probability that a training slice gets a scalp of another brightness", _FRACTION),
    "strip_probability": Option("probability that a training slice is stripped of all outside the brain", _FRACTION),
    "neighbor_steps": Option(
        "distances of the adjacent slices that the network sees in training, of which one is drawn for each slice",
        _STEPS,
        "slices",
    ),
    "fade_probability": Option("probability that a part of the tumour in a training slice is faded", _FRACTION),
    "transplant_probability": Option("probability that a training slice gets a lesion of another one", _FRACTION),
    "pixdim": Option("in-plane spacing to which volumes are resampled if their files state theirs", _IN_PLANE, "mm"),
    "max_voxels": Option(
        "largest volume, as its files declare it or as resampled; larger ones are refused before they are decoded (the "
        "default is ten times a head at 0.5 mm)",
        _POSITIVE,
        "voxels",
    ),
    "tumor_fraction": Option(
        "fraction of the drawn slices that show tumour; `None` for that of the data", _or_none(_FRACTION)
    ),
    "checkpoint": Option("weights", PATH, elsewhere={"quantize.json": "the float weights to quantise"}),
    "threshold": Option("probability from which a voxel counts as tumour", _FRACTION),
    "min_lesion_volume": Option(
        "smaller lesions are removed; voxels of unknown size count as 0.94 x 0.94 x 5 mm", _NOT_NEGATIVE, "mm3"
    ),
    "min_brain_fraction": Option(
        "lesions of which a smaller fraction lies in the brain are removed; the flag `lesion_outside_brain` says so",
        _FRACTION,
    ),
    "min_lesion_fraction": Option(
        "lesions with a smaller fraction of the volume of the largest are removed; the flag `lesion_left_out` says so",
        _FRACTION,
    ),
    "min_lesion_slices": Option(
        "lesions in fewer axial slices are removed, unless they are the largest or in the first or last slice of the "
        "volume; the flag `lesion_left_out` says so",
        _whole(1),
        "slices",
    ),
    "fill_holes": Option("fill holes of the mask in each slice", _SWITCH),
    "tta_flip": Option("average with the prediction for the mirror image, left to right", _SWITCH),
    "ensemble": Option("further weights whose probabilities are averaged with those of `checkpoint`", _PATHS),
    "runtime": Option(
        "what computes the network: `torch`; on the CPU also `openvino` (float32), `openvino-int8` (8-bit weights of "
        "`quantize.json`) or `onnxruntime` (float32)"
    ),
    "float_weights": Option(
        "float weights beside which `openvino-int8` looks for its 8-bit ones; follows from `checkpoint` and `ensemble`"
    ),
    "crop_foreground": Option("compute only the box around the head in each slice, and no slice without head", _SWITCH),
    "slices_per_batch": Option("slices that the network takes at once in inference", _whole(1), "slices"),
    "report": Option("keep the cases and write `report.html`", _SWITCH),
    "surface_tolerance": Option(
        "distance within which two surfaces agree", _NOT_NEGATIVE, "mm if all three spacings are known, else pixels"
    ),
    "bootstrap_resamples": Option("resamples of the patients for the 95 % intervals", _whole(1)),
    "calibration_slices": Option(
        "slices of the split's training patients on which the ranges of activations are found", _whole(1), "slices"
    ),
    "keep_float": Option("names of layers that stay in floating point", _PATTERNS),
    "sync_batchnorm": Option("batch normalisation over the slices of all processes; on GPUs only", _SWITCH),
    "outputs": Option(
        "what to write: `mask`, `probability`, `slices`, `seg`, `sr`, `measurements`, `sheet`, `panel`, `page`, `bids` "
        "(BIDS derivatives of images with BIDS names, with the probability if `probability` is requested too); or "
        "`auto` for what fits the input: all of these but `probability`, `sr` and `bids`",
        _NAMES,
    ),
    "seg_empty_frames": Option(
        "give a DICOM SEG frames for slices without tumour too, for older OHIF and Cornerstone viewers, which shift a "
        "SEG that leaves frames out",
        _SWITCH,
    ),
    "lesion_dilation": Option(
        "by how much the lesion mask of `bids` (`.._label-lesion_roi.nii.gz`, for fMRIPrep and QSIPrep) is dilated",
        _NOT_NEGATIVE,
        "mm",
    ),
    "quality": Option(
        "file from `python -m mri_seg.quality fit` that gives results an expected Dice and an interval of volume; by "
        "default `quality.json` beside `checkpoint`, and `false` for none",
    ),
    "overwrite": Option(
        "replace results that are there already, and remove those of other weights, options, version or input; if "
        "`false`, they are kept and only what is missing is made, or refused if they are not what this run would give",
        _SWITCH,
    ),
    "fail_fast": Option("stop at the first case that fails", _SWITCH),
    "series_uid": Option("SeriesInstanceUID of the DICOM series to segment, if it is not found by itself", _UID),
    "series_description": Option(
        "description of the DICOM series to segment, or a part of it, if it is not found by itself",
        Rule(TEXT.expected, lambda value: value is None or isinstance(value, str)),
    ),
    "volume": Option(
        "which volume of a 4D file is FLAIR, counted from 0; by default what a `dataset.json` beside the folder says",
        Rule("a whole number, 0 or more", lambda value: value is None or _is_whole(value, 0)),
    ),
    "spacing": Option("spacing of TIFF, PNG and JPEG slices, whose files carry none", _SPACING, "mm"),
    "allow_non_axial": Option("segment thick sagittal and coronal slices too", _SWITCH),
    "strict": Option(
        "let a case fail, and write no results of it, if a check of its image or its lesions raises a flag, such as "
        "`not_flair` or `lesion_doubtful`; if `false`, flags are warnings",
        _SWITCH,
    ),
    "timeline": Option(
        "a CSV file with the columns `patient`, `date` (`YYYY-MM-DD`), `file` and, if need be, `event` (such as "
        "`surgery`), if files and their headers do not say whose scan it is and of when; a row without a file is an "
        "event at its date, and a file of events alone leaves the rest to the headers; see [follow-up](follow_up.md)",
        _or_none(PATH),
    ),
    "tracking_uri": Option("where MLflow keeps runs"),
    "experiment_name": Option("name of the MLflow experiment"),
    "save_execute_config": Option("MONAI's own copy of the config, in place of the run's `config.json`"),
    "is_not_rank0": Option("whether this process leaves tracking to another"),
    "network": Option("the network on its device, made of `network_def`"),
    "summary_writer": Option("the TensorBoard writer; on one process alone"),
    "steps": Option("steps of the whole training, over which the learning rate falls"),
    "run": Option("what the command `run` evaluates if it is given no other name"),
}
"""All options by name, and the other keys of the configs whose values are no dicts or lists."""

RULES: dict[str, Rule] = {name: option.rule for name, option in OPTIONS.items() if option.rule is not None}
"""What values the options of the configs may have."""

_IN_WORDS = {
    "$mri_seg.bundle_root()": "the bundle that holds the config",
    "$@bundle_root + '/models/model.pt'": "`models/model.pt` of the bundle",
    "$time.strftime('%Y%m%d-%H%M%S')": "the time at which the run starts",
    "$'published-' + time.strftime('%Y%m%d-%H%M%S')": "`published-` and the time at which the run starts",
    "$'quantized-' + time.strftime('%Y%m%d-%H%M%S')": "`quantized-` and the time at which the run starts",
    "$'evaluation-' + @section": "`evaluation-` and the section",
    "$'runs/' + @run_name": "`runs/` and the run's name",
    "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')": "the first GPU, else the CPU",
    "$mri_seg.local_device()": "a GPU for each process, else the CPU",
    "$mri_seg.bfloat16_is_fast(@device)": "on if the device multiplies bfloat16 natively",
    "$monai.utils.path_to_sqlite_uri('runs/mlruns.db')": "`runs/mlruns.db`",
    "$float('inf')": "infinite",
    "@spatial_size": "`spatial_size`",
}
"""Expressions that are defaults, in words."""

_CONFIGS = {
    "train.json": "Trains. The options of inference and post-processing apply to the validation; their defaults leave "
    "its\nresults as the network gives them.",
    "published_recipe.json": "Over `train.json`: the recipe of the published model, with Adam, binary cross-entropy, "
    "whole slices, no augmentation\nand no neighbouring slices. Its network has one input channel, so evaluate its "
    "weights with the three configs\n`train.json`, `published_recipe.json` and `evaluate.json`, in this order.",
    "fine_tune.json": "Over `train.json`: trains on from the shipped weights; see [fine-tuning](fine_tuning.md).",
    "evaluate.json": "Over `train.json`: evaluates weights. All options of inference and post-processing of "
    "`train.json` apply, with these\ndefaults.",
    "inference.json": "Segments cases.",
    "follow_up.json": "Over `inference.json`: segments cases and follows patients over time. All options of "
    "`inference.json` apply.",
    "quantize.json": "Over `train.json`: makes 8-bit weights (`model.int8.xml` and `.bin`) for `runtime` "
    "`openvino-int8`.\nThey fit only the weights they were made of, so `output_dir` gets a copy of those too, unless "
    "it is their folder.",
    "multi_gpu_train.json": "Over `train.json`, for several processes started by torchrun: see [scaling](scaling.md).",
    "multi_gpu_evaluate.json": "Over `train.json` and `evaluate.json`, for several processes.",
    "multi_gpu_inference.json": "Over `inference.json`, for several processes.",
    "mlflow.json": "For `--tracking bundle/configs/mlflow.json`: tracks training and evaluation by MLflow.",
}
"""What the configs are for, in the order of the document."""

_INTRODUCTION = """\
# Options

<!-- Written by `python -m mri_seg.config.options > docs/options.md`; change mri_seg/config/options.py instead. -->

Options are the top-level keys of the configs in `bundle/configs`. Give them on the command line, as in `--epochs 5`, or
in Python, as in `ConfigWorkflow(..., epochs=5)`. Switches take `true` or `false`. Parts of a config are reached by `#`,
as in `--network_def#channels "[8,16]"`. A key that nothing in the config refers to is refused, unless it begins with
`_`; so is the former name of an option that was renamed.

Some characters have a meaning of their own: on the command line `#` begins a comment, and MONAI takes text that begins
with `$`, `@` or `%` for an expression, another key or a part of another config. For a file or folder with such a name
write `./patient#2`, `./$x`, `./@x` or `./%x`. For other text that contains `#` use two pairs of quotes, as in
`--series_description "'FLAIR#2'"`. MONAI ends with a `KeyError` and a traceback if nothing has the name behind a `%`.

In a Python process, `initialize()` sets the seed and PyTorch's switches for repeatable results; `finalize()`, or an
error, restores the earlier state. `run()` may be called again before that: inference looks for cases anew, evaluation
evaluates again, and `finalize()` counts the cases of all runs. Give `logging_file=False` to keep your own logging.

In a federation (`MonaiAlgo`) give `steps`, such as `"$9 * len(@train#dataloader)"` for nine epochs in all, so that the
learning rate falls over all rounds, and leave `initial_weights` unset.
"""


def settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a config with their defaults.

    Args:
        config: content of a file of ``bundle/configs``.

    Returns:
        its top-level keys whose values are neither dicts nor lists, and the lists that are options. Settings of
        experiment tracking are those of its ``configs``.
    """
    config = config["configs"] if "handlers_id" in config else config
    return {
        key: value
        for key, value in config.items()
        if "#" not in key and not isinstance(value, dict) and (key in OPTIONS or not isinstance(value, list))
    }


class Described(NamedTuple):
    """An option in a config.

    Attributes:
        name: its name.
        value: its default, as the config has it.
        default: its default in words, in Markdown.
        unit: unit of its value.
        expected: what values it may have; empty if that is checked where it is used.
        meaning: what it is, in one line of Markdown.
    """

    name: str
    value: Any
    default: str
    unit: str
    expected: str
    meaning: str


def describe(*files: PathLike | str) -> list[Described]:
    """Describe the options of a config, or of several of which each is laid over those before it.

    Args:
        files: files of ``bundle/configs``.
    """
    found = {}
    for file in map(Path, files):
        for key, default in settings(json.loads(file.read_text(encoding="utf-8"))).items():
            option = OPTIONS[key]
            meaning = option.elsewhere.get(file.name, option.meaning)
            expected = option.rule.expected if option.rule else ""
            found[key] = Described(key, default, _shown(default), option.unit, expected, meaning)
    return list(found.values())


def document(folder: PathLike | str) -> str:
    """Describe the options of all configs, in Markdown.

    Args:
        folder: the configs.
    """
    return "\n".join([_INTRODUCTION, *(line for name in _CONFIGS for line in _section(Path(folder, name)))])


def _section(file: Path) -> Iterator[str]:
    yield f"## {file.name}\n\n{_CONFIGS[file.name]}\n\n| option | default | unit | values | meaning |"
    yield "| --- | --- | --- | --- | --- |"
    for option in describe(file):
        yield f"| `{option.name}` | {option.default} | {option.unit} | {option.expected} | {option.meaning} |"
    yield ""


def _shown(default: Any) -> str:
    """A default as a command line takes it, or an expression in words."""
    if isinstance(default, str):
        return _IN_WORDS.get(default, f"`{default}`")
    if default is None:
        return "`None`"
    return f"{default:,}" if isinstance(default, int) and default >= 10_000 else f"`{json.dumps(default)}`"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Print the document of all options.")
    parser.add_argument("configs", nargs="?", default=bundle_folder() / "configs", help="folder of the configs")
    print(document(parser.parse_args().configs), end="")
