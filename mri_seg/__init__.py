"""Brain tumour segmentation on FLAIR MRI with an Attention U-Net, as a MONAI bundle.

What configs, notebooks and examples use is here by name, such as ``mri_seg.AttentionUNet``, so that files can move
without breaking a bundle. Nothing is imported before it is used: ``import mri_seg`` imports neither torch nor MONAI.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.5.0"

_PUBLIC = {
    "mri_seg.config.bundle_root": ("bundle_root",),
    "mri_seg.config.weights": (
        "CheckpointLoader",
        "bundle_weights",
        "initial_weights_file",
        "load_weights",
        "read_weights",
        "record_preprocessing",
        "save_to_bundle",
    ),
    "mri_seg.config.workflow": (
        "begin_workflow",
        "check_options",
        "end_workflow",
    ),
    "mri_seg.datasets.data_set": (
        "DataSet",
        "datalist",
        "split_name",
        "write_split",
    ),
    "mri_seg.dicom.reader": ("DICOMReader",),
    "mri_seg.evaluation.metrics": ("SliceProtocolMetric",),
    "mri_seg.evaluation.predicted": (
        "EvaluationDataset",
        "take_predictions",
    ),
    "mri_seg.evaluation.progress": (
        "EvaluationProgress",
        "RemainingSampler",
    ),
    "mri_seg.evaluation.writer": ("EvaluationWriter",),
    "mri_seg.follow_up.engine": ("make_timeline",),
    "mri_seg.follow_up.timeline": ("Scan",),
    "mri_seg.follow_up.writer": ("FollowUp",),
    "mri_seg.inference.case_dataset": ("CaseDataset",),
    "mri_seg.inference.case_quality": (
        "CaseQuality",
        "declaration",
    ),
    "mri_seg.inference.inferers": (
        "AutocastInferer",
        "EnsembleInferer",
        "ExclusiveInferer",
        "ForegroundSliceInferer",
        "bfloat16_is_fast",
    ),
    "mri_seg.inference.provenance": ("result_options",),
    "mri_seg.inference.quantization": ("quantize",),
    "mri_seg.inference.result": ("Segmentation",),
    "mri_seg.inference.runtimes": (
        "RuntimeInferer",
        "int8_file",
    ),
    "mri_seg.inference.segmenter": (
        "Segmenter",
        "segment",
    ),
    "mri_seg.inference.writer": ("CaseWriter",),
    "mri_seg.io.cases": (
        "CaseFinder",
        "find_cases",
    ),
    "mri_seg.io.collate": ("case_batch",),
    "mri_seg.io.load": ("LoadVolumed",),
    "mri_seg.io.slice_reader": ("SliceReader",),
    "mri_seg.measurements.lesions": ("measure",),
    "mri_seg.networks.attention_unet": (
        "AttentionGate",
        "AttentionUNet",
    ),
    "mri_seg.quality.image_checks": ("ImageChecksd",),
    "mri_seg.quality.lesion_checks": ("LesionChecksd",),
    "mri_seg.report": ("ReportWriter",),
    "mri_seg.report.archive": ("CaseArchive",),
    "mri_seg.training.ddp": (
        "AverageBuffers",
        "ContiguousDistributedSampler",
        "DistributedEvaluator",
        "rank_handlers",
        "rank_summary_writer",
        "sync_weights",
        "wrap_ddp",
    ),
    "mri_seg.training.handlers": (
        "GradientClip",
        "ProgressBar",
        "RaiseErrors",
        "StopOnBadLoss",
        "WeightAveraging",
    ),
    "mri_seg.training.loss": ("loss_of_classes",),
    "mri_seg.training.resume": (
        "TrainingCheckpoint",
        "begin_run",
        "run_folder",
        "run_training",
    ),
    "mri_seg.training.slice_cache": ("cases_in_memory",),
    "mri_seg.training.slice_dataset": (
        "EpochSampler",
        "SliceDataset",
    ),
    "mri_seg.training.tensorboard": (
        "LearningRateHandler",
        "PrecisionRecallCurve",
        "RunDescription",
        "TensorBoardSlices",
        "write_metrics",
    ),
    "mri_seg.transforms.brain": ("BrainMaskd",),
    "mri_seg.transforms.augment": (
        "AugmentBatch",
        "RandomAugment",
    ),
    "mri_seg.transforms.classes": (
        "AssignClassesd",
        "UniteClassesd",
    ),
    "mri_seg.transforms.labels": (
        "BinaryLabeld",
        "LabelToImageGridd",
    ),
    "mri_seg.transforms.post": (
        "FillHolesInSlicesd",
        "RemoveLesionsOutsideBraind",
        "RemoveSmallLesionsd",
    ),
    "mri_seg.transforms.sequences": ("AddSequencesd",),
    "mri_seg.transforms.volume": (
        "NeighboringSlicesd",
        "NormalizeForeground",
        "NormalizeForegroundd",
        "PlaneSpacingd",
        "RequireAxiald",
        "RequireImaged",
    ),
    "mri_seg.utils.bundle_folder": ("bundle_folder",),
    "mri_seg.utils.distributed": (
        "cleanup",
        "init_distributed",
        "is_main_process",
        "local_device",
        "print_on_main_process",
        "rank",
    ),
    "mri_seg.utils.flags": ("flag",),
    "mri_seg.utils.label_classes": ("LabelClasses",),
    "mri_seg.utils.sequence_names": ("sequence_names",),
}
"""Public names by the module that defines them."""

_MODULE_OF = {name: module for module, names in _PUBLIC.items() for name in names}

__all__ = ["__version__", *sorted(_MODULE_OF)]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used (PEP 562)."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Public names, whether imported yet or not."""
    return sorted({*globals(), *__all__})
