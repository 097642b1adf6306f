"""Outlines, sheets and the page of a case."""
