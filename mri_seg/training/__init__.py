"""Training: slices, handlers, resuming, TensorBoard, distributed training."""
