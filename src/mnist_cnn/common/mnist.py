"""MNIST's numbers, which other sets of its form share.

Source: "The MNIST database of handwritten digits", LeCun, Cortes, Burges, 1998.
"""

IMAGE_SIDE = 28
CLASSES = 10
# Images in the training file and in the test file; Fashion-MNIST and KMNIST have as many.
TRAIN_IMAGES, TEST_IMAGES = 60_000, 10_000
