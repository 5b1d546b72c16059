"""From images to logits: by PyTorch or the kernels in ``native``, on a device, with test-time augmentation."""
