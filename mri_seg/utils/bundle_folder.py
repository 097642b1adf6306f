"""Where the bundle lies: its configs, weights and documents."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

__all__ = ["bundle_folder", "refuse_installed"]

_PACKAGE = Path(__file__).resolve().parent.parent


def bundle_folder() -> Path:
    """Folder of the bundle: within the package if it was installed from a wheel, beside it in a checkout.

    Raises:
        FileNotFoundError: when neither place has it, because the installation is not complete.
    """
    places = (_PACKAGE / "_bundle", _PACKAGE.parent / "bundle")
    for folder in places:
        if (folder / "configs").is_dir():
            return folder
    raise FileNotFoundError(
        f"the bundle was found neither in {places[0]} nor in {places[1]}: install mri_seg again, "
        "from a wheel or a checkout."
    )


def refuse_installed(folder: PathLike | str, option: str) -> None:
    """Refuse to write into the package: pip knows its files by their sums, and other users may share them.

    Args:
        folder: where something would be written.
        option: the option that says so, with ``--``.

    Raises:
        ValueError: when it lies in the package.
    """
    if Path(folder).resolve().is_relative_to(_PACKAGE):
        raise ValueError(
            f"{option} {folder}: lies in the installed package, in which nothing is written. Give another folder, or "
            'a copy of the bundle: cp -r "$(python -m mri_seg.bundle)" my_bundle'
        )
