"""Helpers that all stages use: distributed processes, files, size limits, messages."""
