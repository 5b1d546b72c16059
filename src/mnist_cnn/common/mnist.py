"""MNIST's numbers. Source: "The MNIST database of handwritten digits", LeCun, Cortes, Burges, 1998."""

IMAGE_SIDE = 28
CLASSES = 10
# Images in the training file and in the test file.
TRAIN_IMAGES, TEST_IMAGES = 60_000, 10_000
