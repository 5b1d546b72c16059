"""Small networks for MNIST: models, training, evaluation and reporting."""
