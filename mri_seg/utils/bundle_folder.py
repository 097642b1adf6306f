"""Where the bundle lies: its configs, weights and documents."""

from __future__ import annotations

from pathlib import Path

__all__ = ["bundle_folder"]


def bundle_folder() -> Path:
    """Folder of the bundle: within the package if it was installed from a wheel, beside it in a checkout.

    Raises:
        FileNotFoundError: when neither place has it, because the installation is not complete.
    """
    package = Path(__file__).resolve().parent.parent
    places = (package / "_bundle", package.parent / "bundle")
    for folder in places:
        if (folder / "configs").is_dir():
            return folder
    raise FileNotFoundError(
        f"the bundle was found neither in {places[0]} nor in {places[1]}: install mri_seg again, "
        "from a wheel or a checkout."
    )
