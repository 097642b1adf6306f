"""Silence warnings of libraries about their own use of themselves, about which a user can do nothing."""

from __future__ import annotations

import logging
import warnings

__all__ = ["silence_library_warnings"]

_MESSAGES = (
    # MONAI's affine of a result whose metadata have one too: both are the same.
    "Setting affine, but the applied meta contains an affine",
    # MONAI's Invertd, Orientation and Spacing for items that have no geometry.
    r"transform info of `\w+` is not available",
    "`data_array` is not of type `?MetaTensor",
    # MONAI calls its own function with an argument that it deprecates.
    r".*get_mask_edges:\s*always_return_as_numpy",
    # MONAI's notice on configs of strangers; these are the bundle's own, or the user's.
    "parsing config_file",
)

_LOGGERS = {
    "tensorboard": logging.WARNING,  # "No path found after ..." whenever it has read a folder to its end
}


def silence_library_warnings() -> None:
    """Silence them in this process; for command lines. Other warnings, of the same libraries too, stay.

    Filters that are there already, such as those of ``python -W``, count less than these.
    """
    for message in _MESSAGES:
        warnings.filterwarnings("ignore", message=message)
    for name, level in _LOGGERS.items():
        logging.getLogger(name).setLevel(level)
