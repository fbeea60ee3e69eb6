"""Data: sets of examples, preprocessing and augmentation on the device, streams, pairs."""
