"""Training on the processor, several times faster than PyTorch does it: see kernels.c."""
