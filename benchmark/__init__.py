"""How fast training is, against the loop that everybody writes; ``make bench``."""
