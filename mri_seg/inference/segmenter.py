"""Segment a case from Python: one call for files or images in memory, by the bundle's own config."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import monai.handlers
import numpy as np
import torch
from monai.bundle import ConfigParser, ReferenceResolver
from monai.data import MetaTensor

from mri_seg.inference.provenance import describe_input, describe_volume
from mri_seg.inference.result import Segmentation
from mri_seg.inference.writer import CaseWriter
from mri_seg.io.memory import ImageInMemory
from mri_seg.io.one_case import find_case
from mri_seg.utils.bundle_folder import bundle_folder
from mri_seg.utils.compat import state_of
from mri_seg.utils.files import safe_name
from mri_seg.utils.messages import root_of

__all__ = ["Segmenter", "segment"]

_OF_THE_CALL = {
    "dataset_dir": "give the case to the call, as in segmenter(source)",
    "output_dir": "give the folder to the result, as in segmenter(source).save(folder)",
}
"""Options of the command that have another place here."""

_KEPT = (
    "flair",
    "pred",
    "pred_classes",
    "probability",
    "label",
)  # volumes of a case that outlive the call, in the input's grid


def segment(
    source: Any,
    affine: Sequence | None = None,
    spacing: Sequence[float] | None = None,
    *,
    case: str | None = None,
    **options: Any,
) -> Segmentation:
    """Segment one case. For several cases, make a :py:class:`Segmenter`, which loads the weights once.

    Args:
        source: see :py:meth:`Segmenter.__call__`, as for ``affine``, ``spacing`` and ``case``.
        affine: for arrays.
        spacing: for arrays, and for TIFF, PNG and JPEG slices.
        case: name of the case.
        options: see :py:class:`Segmenter`.

    Example::

        >>> import mri_seg
        >>> mri_seg.segment("flair.nii.gz", threshold=0.4).save("results")  # doctest: +SKIP
        PosixPath('results/flair')
    """
    return Segmenter(**options)(source, affine, spacing, case=case)


class Segmenter:
    """Segments cases with the bundle's ``inference.json``, as the command does, with weights that are loaded once.

    It may be called from several threads; they wait for each other.

    Args:
        bundle_root: folder of another bundle than the one that comes with the package.
        options: options of ``inference.json``, as on the command line; ``docs/options.md`` describes them. Paths are
            relative to the current folder. Parts of the config are options too, as in
            ``**{"network_def#channels": [8, 16]}``.

    Raises:
        FileNotFoundError: when the bundle or its weights are missing.
        ValueError: when an option does not exist or its value is invalid.
        ImportError: when the runtime's package is not installed.

    Example::

        >>> import mri_seg
        >>> segmenter = mri_seg.Segmenter(threshold=0.4)  # doctest: +SKIP
        >>> for file in files:  # doctest: +SKIP
        ...     segmenter(file).save("results")
    """

    def __init__(self, *, bundle_root: PathLike | str | None = None, **options: Any) -> None:
        for name, instead in _OF_THE_CALL.items():
            if name in options:
                raise ValueError(f"{name}: no option of a Segmenter; {instead}.")
        root = Path(bundle_folder() if bundle_root is None else bundle_root)
        config_file = root / "configs" / "inference.json"
        if not config_file.is_file():
            raise FileNotFoundError(f"{config_file}: no such file. Give bundle_root the folder of a bundle.")
        self.options = {
            key: os.fspath(value) if isinstance(value, PathLike) else value for key, value in options.items()
        }
        parser = ConfigParser()
        parser.read_config(str(config_file))
        parser.update({"bundle_root": str(root), "_end": "$mri_seg.end_workflow()", **self.options})
        self._lock = threading.Lock()
        self._batches: list[Any] = [None]  # the data of the evaluator: one batch
        self._build(parser)

    def _build(self, parser: ConfigParser) -> None:
        """Build the parts that the config describes, and load the weights."""
        parser.get_parsed_content("initialize")
        try:
            self._transform = parser.get_parsed_content("preprocessing")
            self._collate = parser.get_parsed_content("dataloader#collate_fn")
            self._spacing = parser.get_parsed_content("spacing")
            self._search = {key: parser.get_parsed_content(key) for key in ("series_uid", "series_description")}
            for value in parser["writer"].values():  # made first, or arguments would be descriptions of components
                if isinstance(value, str) and value.startswith("@"):
                    parser.get_parsed_content(value[1:])
            self._writing = parser.get_parsed_content("writer", instantiate=False).resolve_args()
            handlers = parser.get_parsed_content("handlers")
            loaders = [handler for handler in handlers if isinstance(handler, monai.handlers.CheckpointLoader)]
            # The evaluator gets its cases from a call, writes nothing, and must not load the weights in every run.
            self._resolve(parser, "dataloader", self._batches)
            self._resolve(parser, "evaluator#val_handlers", [one for one in handlers if one not in loaders])
            self._evaluator = parser.get_parsed_content("evaluator")
            self._evaluator.interrupt_resume_enabled = False  # or it silently does nothing after a run that failed
            for load in loaders:
                load(self._evaluator)
            self._writer = CaseWriter(**self._writing)  # describes results; each result is written by one of its own
            _ = self._writer.settings
        finally:
            parser.get_parsed_content("_end")

    @staticmethod
    def _resolve(parser: ConfigParser, name: str, value: Any) -> None:
        """Make a part of the config this object, in place of what the config describes."""
        parser.ref_resolver.resolved_content[ReferenceResolver.normalize_id(name)] = value

    def __call__(
        self,
        source: Any,
        affine: Sequence | None = None,
        spacing: Sequence[float] | None = None,
        *,
        case: str | None = None,
    ) -> Segmentation:
        """Segment one case.

        Args:
            source: the path of a file, or of a folder that holds one case; a list of the files of one case (slices, or
                a DICOM series); an image of nibabel, SimpleITK or ITK; a MetaTensor; or an array or tensor. The latter
                three are a slice ``(H, W)``, a volume ``(H, W, D)``, or with the option ``volume`` several volumes
                ``(C, H, W, D)``.
            affine: for an array or tensor, the matrix ``(4, 4)`` from voxels to RAS coordinates in mm.
            spacing: distance between rows, columns and slices in mm: for TIFF, PNG and JPEG slices, whose files carry
                none, and for an array or tensor without an affine, whose rows then run to posterior, columns to the
                patient's left, and slices to superior.
            case: name of the case; by default that of its file, folder or series, and ``volume`` if there is none.

        Returns:
            mask, probability and measurements in the grid of the input.

        Raises:
            FileNotFoundError: when there is no such file or folder.
            TypeError: when ``source`` is something else.
            ValueError: when the source is not one case, cannot be read, or is no FLAIR volume that can be segmented.
        """
        found = self._find(source, affine, spacing)
        if case is not None:
            found["case"] = safe_name(case)
        with self._lock:
            item = self._infer(found)
        image = found["image"]
        given_spacing = found.pop("spacing", None)
        if isinstance(image, ImageInMemory):
            flair = item["flair"]
            about = describe_volume(image.name, flair.cpu().numpy(), np.asarray(flair.affine))
            found |= {"image": [], "described": about}
        described = None
        with contextlib.suppress(OSError):  # the files may be gone when the result is saved
            described = describe_input(found)
        result = self._writer.result(item, found)
        if given_spacing is not None:  # as with the option of that name
            options = {**result.settings["options"], "spacing": given_spacing}
            result.settings = {**result.settings, "options": dict(sorted(options.items()))}
        result.item = {key: item[key].cpu() for key in _KEPT if isinstance(item.get(key), MetaTensor)}
        return Segmentation(result, found, described=described, writing=self._writing)

    def __repr__(self) -> str:
        return f"Segmenter({', '.join(f'{name}={value!r}' for name, value in self.options.items())})"

    def _find(self, source: Any, affine: Sequence | None, spacing: Sequence[float] | None) -> dict[str, Any]:
        """The case, as the reader takes it."""
        is_list = isinstance(source, (list, tuple)) and all(isinstance(one, (str, PathLike)) for one in source)
        if isinstance(source, (str, PathLike)) or is_list:
            if affine is not None:
                raise ValueError("affine: is for arrays; files say where their voxels lie. Leave it out.")
            found = find_case(source, **self._search)
            if spacing is not None and found["source"] not in ("tiff", "picture"):
                raise ValueError(
                    f"spacing: is for arrays and for TIFF, PNG and JPEG slices; {found['image'][0]} has its own. "
                    "Leave it out."
                )
            return found if spacing is None else {**found, "spacing": [float(step) for step in spacing]}
        if isinstance(source, (np.ndarray, torch.Tensor)) and not isinstance(source, MetaTensor) and affine is None:
            spacing = self._spacing if spacing is None else spacing
        image = ImageInMemory(source, affine=affine, spacing=spacing)
        return {"case": safe_name(image.case or "volume"), "image": image, "source": "memory"}

    def _infer(self, case: dict[str, Any]) -> dict[str, Any]:
        """What the evaluator gives for a case, as the handler that writes cases gets it."""
        state = state_of(self._evaluator)
        try:
            self._batches[0] = self._collate(self._transform(dict(case)))
            self._evaluator.run()
            (batch,), (output,) = state.batch, state.output
            return {**batch, **output}
        except Exception as error:
            root = root_of(error)
            if root is error:
                raise
            raise root from root.__cause__
        finally:
            self._batches[0] = state.batch = state.output = None
