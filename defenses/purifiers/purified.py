"""A frozen network behind a trained purifier, and what such a model shows to attackers and to readers."""

from __future__ import annotations

from torch import Tensor, nn


class Purified(nn.Module):
    """A frozen network behind a purifier that maps images to images: net(purifier(images)).

    Args:
        purifier: Keeps the shape of images; a declared stage, see `defenses.stages`.
        net: The network behind it, e.g. the undefended one; it is not trained any more.
    """

    stored_elsewhere = ("net",)

    def __init__(self, purifier: nn.Module, net: nn.Module) -> None:
        super().__init__()
        self.purifier = purifier
        self.net = net.requires_grad_(False)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.net(self.purifier(inputs))

    def bare(self) -> nn.Module:
        """Returns the network without the purifier."""
        return self.net

    def mechanism(self) -> nn.Module:
        """Returns the map from images to restored images, (N, C * H * W): what the network is protected by."""
        return nn.Sequential(self.purifier, nn.Flatten())

    def restored(self, inputs: Tensor) -> Tensor:
        """Returns the images that the network sees, same shape."""
        return self.purifier(inputs)
