"""Synthetic FLAIR cases with tumours, to try out and test the software without patients' data.

``python -m mri_seg.datasets.phantom DIR`` writes a data set with the folder structure of TCGA-LGG;
:py:class:`PhantomPatient` scans one head several times, with a tumour of given place and size. The anatomy comes
from the ICBM 152 average brain in nilearn's wheel, which needs the extra: ``pip install 'mri_seg[phantom]'``.
"""

from mri_seg.datasets.phantom.dataset import make_phantom
from mri_seg.datasets.phantom.lesion import mean_diameter, volume_of_diameter
from mri_seg.datasets.phantom.patient import PhantomPatient, PhantomScan
from mri_seg.datasets.phantom.volume import phantom_volume

__all__ = ["PhantomPatient", "PhantomScan", "make_phantom", "mean_diameter", "phantom_volume", "volume_of_diameter"]
