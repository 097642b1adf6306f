"""Find and order DICOM series. The reader for MONAI is in ``mri_seg.dicom.reader``, so that this imports quickly."""

from mri_seg.dicom.geometry import Frame, FrameGrid, order_frames
from mri_seg.dicom.series import Series, choose_flair, find_series, is_dicom

__all__ = ["Frame", "FrameGrid", "Series", "choose_flair", "find_series", "is_dicom", "order_frames"]
