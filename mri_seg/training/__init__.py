"""Slices to train on, handlers, resuming, TensorBoard, several processes."""
