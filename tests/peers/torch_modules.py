"""AlexNet as PyTorch's users write it, with random weights; it needs the parity extra."""

from typing import Any

import torch
from torch import nn

NARROW = (8, 12, 16, 12, 8)
CLASSES = 5


class Sequentials(nn.Module):  # type: ignore[misc]
    """AlexNet as torchvision and jiecaoyu write it."""

    def __init__(self, features: list[Any], classifier: list[Any]):
        super().__init__()
        self.features, self.classifier = nn.Sequential(*features), nn.Sequential(*classifier)

    def forward(self, x: Any) -> Any:
        return self.classifier(torch.flatten(self.features(x), 1))


def torchvision(widths: tuple[int, ...] = NARROW, width: int = 24, classes: int = CLASSES) -> Any:
    a, b, c, d, e = widths
    features = [
        *(nn.Conv2d(3, a, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(a, b, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(b, c, 3, padding=1), nn.ReLU(), nn.Conv2d(c, d, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(d, e, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2)),
    ]
    classifier = [
        *(nn.Dropout(), nn.Linear(e * 36, width), nn.ReLU()),
        *(nn.Dropout(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, classes)),
    ]
    return Sequentials(features, classifier)


def jiecaoyu() -> Any:
    a, b, c, d, e = NARROW

    def norm() -> Any:
        return nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1.0)

    features = [
        *(nn.Conv2d(3, a, 11, stride=4), nn.ReLU(), norm(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(a, b, 5, padding=2, groups=2), nn.ReLU(), norm(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(b, c, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(c, d, 3, padding=1, groups=2), nn.ReLU()),
        *(nn.Conv2d(d, e, 3, padding=1, groups=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
    ]
    classifier = [
        *(nn.Linear(e * 36, 24), nn.ReLU(), nn.Dropout()),
        *(nn.Linear(24, 24), nn.ReLU(), nn.Dropout(), nn.Linear(24, CLASSES)),
    ]
    return Sequentials(features, classifier)


def randomized(model: Any) -> Any:
    """Returns the model with asymmetric weights, in inference."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 100
            parameter.normal_(0.02, 1.5 / fan_in**0.5, generator=generator)
    return model.eval()
