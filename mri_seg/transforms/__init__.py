"""Transforms of volumes, of batches and of predictions that MONAI does not have."""
