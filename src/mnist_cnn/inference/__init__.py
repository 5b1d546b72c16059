"""A trained model put to work: pictures made into digits as MNIST has them, and what is in them."""
