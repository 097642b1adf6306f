"""Measure what was found."""
