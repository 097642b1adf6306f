"""Synthetic FLAIR cases with tumours, for trying and testing everything without patients' data.

``python -m mri_seg.datasets.phantom DIR`` writes a data set in the folder form of TCGA-LGG. The anatomy comes from the
ICBM 152 average brain that nilearn carries in its wheel, hence the extra: ``pip install 'mri_seg[phantom]'``.
"""

from mri_seg.datasets.phantom.dataset import make_phantom
from mri_seg.datasets.phantom.volume import phantom_volume

__all__ = ["make_phantom", "phantom_volume"]
