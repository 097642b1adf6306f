"""Transforms of volumes, labels, batches and predictions that MONAI does not have."""
