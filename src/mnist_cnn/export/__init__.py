"""Trained networks as ONNX files, which other programs run: from an image's raw pixels to probabilities."""
