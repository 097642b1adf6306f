"""Synthetic FLAIR cases with tumours, to try out and test the software without patients' data.

``python -m mri_seg.datasets.phantom DIR`` writes a data set with the folder structure of TCGA-LGG. The anatomy comes
from the ICBM 152 average brain in nilearn's wheel, which needs the extra: ``pip install 'mri_seg[phantom]'``.
"""

from mri_seg.datasets.phantom.dataset import make_phantom
from mri_seg.datasets.phantom.volume import phantom_volume

__all__ = ["make_phantom", "phantom_volume"]
