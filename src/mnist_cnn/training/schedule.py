"""The learning rate of each step."""

import math

from mnist_cnn.settings.params import Recipe


def learning_rate(recipe: Recipe, step: int, steps: int) -> float:
    """The rate for a step (counted from 0) out of ``steps`` in the whole run.

    It rises linearly over the recipe's ``warmup_fraction`` of the run; then it stays (``constant``), or falls
    along half a cosine to nearly nothing (``one_cycle``).

    Source: "Super-Convergence: Very Fast Training of Neural Networks Using Large Learning Rates", 2018,
    https://arxiv.org/abs/1708.07120
    """
    warmup = recipe.warmup_fraction * steps
    if step + 1 <= warmup:
        return recipe.max_lr * (step + 1) / warmup
    if recipe.schedule == "constant":
        return recipe.max_lr
    return recipe.max_lr * (1 + math.cos(math.pi * (step + 1 - warmup) / (steps + 1 - warmup))) / 2
