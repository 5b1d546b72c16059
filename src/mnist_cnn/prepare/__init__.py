"""From MNIST's files on the network to its splits."""
