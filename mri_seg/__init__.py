"""Brain tumour segmentation on FLAIR MRI with an Attention U-Net, as a MONAI bundle."""

__version__ = "0.1.0"
