"""Training as tutorials have it: what the project's own ``fit`` is measured against."""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils.data import DataLoader, Subset
from torchvision import datasets, transforms

BATCH_SIZE = 128
# As in the brief's log.
WORKERS = 4


def train_classically(
    network: nn.Module, raw: Path, scratch: Path, train: int, val: int, epochs: int, rate: float
) -> Iterator[float]:
    """Train a network in place; yields the validation accuracy in percent as each epoch ends.

    Images are turned, converted and normalised one by one in worker processes; each step asks for its loss as a
    number. The learning rate falls tenfold once the training loss of an epoch is not below the best one, which gives
    the two falls of the brief's log.

    Args:
        raw: MNIST's four files.
        scratch: where torchvision may lay out its own folders.
        train, val: so many images from the beginning and from the end of the training file.
    """
    (scratch / "MNIST").mkdir(parents=True, exist_ok=True)
    (scratch / "MNIST" / "raw").symlink_to(raw.resolve())
    plain = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))])
    turned = transforms.Compose([transforms.RandomRotation((-10, 10), fill=(0,)), *plain.transforms])
    train_set = Subset(datasets.MNIST(str(scratch), train=True, transform=turned), range(train))
    whole = datasets.MNIST(str(scratch), train=True, transform=plain)
    val_set = Subset(whole, range(len(whole) - val, len(whole)))
    train_loader = DataLoader(train_set, batch_size=BATCH_SIZE, shuffle=True, num_workers=WORKERS)
    val_loader = DataLoader(val_set, batch_size=BATCH_SIZE, num_workers=WORKERS)

    optimizer = torch.optim.SGD(network.parameters(), lr=rate, momentum=0.9)
    scheduler = ReduceLROnPlateau(optimizer, factor=0.1, patience=0)
    for _ in range(epochs):
        network.train()
        summed_loss = 0.0
        for images, labels in train_loader:
            optimizer.zero_grad()
            loss = F.cross_entropy(network(images), labels)
            loss.backward()
            optimizer.step()
            summed_loss += loss.item() * len(labels)
        network.eval()
        correct = 0
        with torch.no_grad():
            for images, labels in val_loader:
                correct += int((network(images).argmax(1) == labels).sum().item())
        scheduler.step(summed_loss / train)
        yield 100 * correct / val
