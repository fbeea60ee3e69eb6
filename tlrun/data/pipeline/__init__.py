"""From examples to batches: streams, augmentation, preprocessing."""
