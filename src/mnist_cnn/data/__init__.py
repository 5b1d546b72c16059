"""Images as tensors: their splits, deskewing, augmentation."""
