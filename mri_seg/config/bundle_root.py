"""The bundle of a workflow: the default of ``bundle_root``."""

from __future__ import annotations

from os import PathLike

from monai.bundle import ConfigWorkflow

from mri_seg.config.provenance import evaluated_config
from mri_seg.utils.bundle_folder import bundle_folder, refuse_installed
from mri_seg.utils.compat import caller_of

__all__ = ["bundle_root", "check_bundle_root"]

_DEFAULT = "$mri_seg.bundle_root()"


def bundle_root() -> str:
    """Folder of the bundle whose config calls this, so that a copy of the bundle uses its own weights.

    Without a workflow, or if the config lies in no folder ``configs``, it is :py:func:`mri_seg.bundle_folder`.
    """
    workflow = caller_of(ConfigWorkflow)
    if workflow is not None and workflow.config_root_path.name == "configs":
        return str(workflow.config_root_path.parent)
    return str(bundle_folder())


def check_bundle_root(folder: PathLike | str) -> None:
    """Check that weights may be written to a bundle: ``bundle_root`` was given, and is not the installed package.

    It must be called from an expression of a config.

    Args:
        folder: the value of ``bundle_root``.

    Raises:
        ValueError: when they may not.
    """
    if evaluated_config().get("bundle_root") == _DEFAULT:
        raise ValueError(
            f"--save_to_bundle: replaces the weights of a bundle, so say of which: give --bundle_root (the default, "
            f"{folder}, is for reading only)."
        )
    refuse_installed(folder, "--save_to_bundle: --bundle_root")
