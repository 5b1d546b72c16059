"""One network trained by one recipe."""
