"""How fast training is: against the loop that everybody writes (``make bench``), and on a GPU (``gpu.sh``)."""

# Both ways train with it, as the recipes do.
BATCH_SIZE = 128
