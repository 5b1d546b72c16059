"""Training as tutorials have it: what the project's own ``fit`` is measured against."""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import MultiStepLR
from torch.utils.data import DataLoader, Subset
from torchvision import datasets, transforms

from benchmark import BATCH_SIZE

# Those of the original programme's log.
WORKERS = 4
FALLS_AFTER = (10, 15)


def loaders(raw: Path, train: int, val: int) -> tuple[DataLoader, DataLoader]:
    """Training and validation batches, every image turned, converted and normalised on its own.

    Args:
        raw: a folder with MNIST as torchvision lays it out.
        train, val: so many images from the beginning and from the end of the training file.
    """
    plain = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))])
    turned = transforms.Compose([transforms.RandomRotation((-10, 10), fill=(0,)), *plain.transforms])
    train_set = Subset(datasets.MNIST(str(raw), train=True, transform=turned), range(train))
    whole = datasets.MNIST(str(raw), train=True, transform=plain)
    val_set = Subset(whole, range(len(whole) - val, len(whole)))
    return (
        DataLoader(train_set, batch_size=BATCH_SIZE, shuffle=True, num_workers=WORKERS),
        DataLoader(val_set, batch_size=BATCH_SIZE, num_workers=WORKERS),
    )


def train_classically(
    network: nn.Module, train_loader: DataLoader, val_loader: DataLoader, epochs: int, rate: float
) -> Iterator[float]:
    """Train a network in place; yields the validation accuracy in percent as each epoch ends.

    Each step asks for its loss as a number, as for a progress bar. The learning rate falls tenfold where it did in the
    original programme's.
    """
    optimizer = torch.optim.SGD(network.parameters(), lr=rate, momentum=0.9)
    scheduler = MultiStepLR(optimizer, FALLS_AFTER, gamma=0.1)
    for _ in range(epochs):
        network.train()
        for images, labels in train_loader:
            optimizer.zero_grad()
            loss = F.cross_entropy(network(images), labels)
            loss.backward()
            optimizer.step()
            loss.item()
        scheduler.step()
        network.eval()
        correct = seen = 0
        with torch.no_grad():
            for images, labels in val_loader:
                correct += int((network(images).argmax(1) == labels).sum().item())
                seen += len(labels)
        yield 100 * correct / seen
