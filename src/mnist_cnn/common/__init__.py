"""What every step needs: errors that a user reads, whole files, command lines, MNIST's numbers."""
