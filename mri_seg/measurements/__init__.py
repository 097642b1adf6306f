"""Measure lesions: volume, place and diameters."""
