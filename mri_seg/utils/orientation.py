"""The orientation in which slices are measured and shown."""

from __future__ import annotations

__all__ = ["AXIAL"]

AXIAL = "PLS"
"""Axis codes: rows run to posterior, columns to the patient's left, slices to superior."""
