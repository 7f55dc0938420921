"""A frozen network behind a trained purifier, and what such a model shows to attackers and to readers."""

from __future__ import annotations

from torch import Tensor, nn

NET = "net"


class Purified(nn.Module):
    """A frozen network behind a purifier that maps images to images: net(purifier(images)).

    The weights of the network are not part of its state: they are those of the wrapped entry, in a file of their own.

    Args:
        purifier: Keeps the shape of images; a declared stage, see `defenses.stages`.
        net: The network behind it, e.g. the undefended one; it is not trained any more.
    """

    def __init__(self, purifier: nn.Module, net: nn.Module) -> None:
        super().__init__()
        self.purifier = purifier
        self.net = net.requires_grad_(False)
        self.register_state_dict_post_hook(_without_net)
        self.register_load_state_dict_post_hook(_net_is_elsewhere)

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


def _without_net(model: nn.Module, state: dict[str, Tensor], prefix: str, metadata: dict) -> None:
    for name in [name for name in state if name.startswith(f"{prefix}{NET}.")]:
        del state[name]


def _net_is_elsewhere(model: nn.Module, incompatible) -> None:
    missing = incompatible.missing_keys
    missing[:] = [name for name in missing if not name.startswith(f"{NET}.")]
