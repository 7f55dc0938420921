"""Attention gates with Gaussian noise: NUMAN on the image, LUMAN on features, and the two attentions they gate with.

Noise is drawn anew in every forward pass, in training and in evaluation alike, with the batch as leading axis.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from defenses.noise.gates import NODES, gate_for
from registry.errors import InvalidEntryError


class SpatialAttention(nn.Module):
    """Weights every place by a sigmoid of its channels: SA(x) = x * sigmoid(conv(x)), with one weight a place.

    Args:
        channels: Channels of the inputs.
    Source: Dhar et al. 2026, doi:10.1016/j.inffus.2025.103822; the attended features, not the weights, are returned.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weigh = nn.Conv2d(channels, 1, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns attended features, same shape; inputs are (N, C, H, W)."""
        return inputs * self.weights(inputs)

    def weights(self, inputs: Tensor) -> Tensor:
        """Returns the weights of the places, (N, 1, H, W)."""
        return torch.sigmoid(self.weigh(inputs))


class ChannelAttention(nn.Module):
    """Weights every channel by what its mean says: CA(x) = x * sigmoid(W2 relu(W1 mean(x))), one weight a channel.

    Args:
        channels: Channels of the inputs; half of them are hidden units, one where there is one channel only.
    Source: Dhar et al. 2026, doi:10.1016/j.inffus.2025.103822.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(1, channels // 2)
        self.squeeze = nn.Linear(channels, hidden)
        self.expand = nn.Linear(hidden, channels)

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns attended features, same shape; inputs are (N, C, H, W)."""
        return inputs * self.weights(inputs)[:, :, None, None]

    def weights(self, inputs: Tensor) -> Tensor:
        """Returns the weights of the channels, (N, C)."""
        return torch.sigmoid(self.expand(F.relu(self.squeeze(inputs.mean((2, 3))))))


class _NoisyGate(nn.Module):
    """Two attentions and the standard deviation of the noise on their outputs.

    Args:
        channels: Channels of the inputs.
        sigma: Standard deviation of the Gaussian numbers; 0 draws none.
    """

    differentiable = True
    learned = False
    """Whether the scales of the noise are learned, and the gates' product cubed."""
    straight = False
    """Whether clipping passes gradients on as if it did nothing; attackers switch it, see `attacks.bpda`."""

    def __init__(self, channels: int, sigma: float) -> None:
        super().__init__()
        if sigma < 0:
            raise InvalidEntryError(f"the noise's standard deviation is 0 or more, got {sigma}; 0 turns it off")
        self.spatial = SpatialAttention(channels)
        self.channel = ChannelAttention(channels)
        self.sigma = sigma

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns gated inputs, same shape; inputs are (N, C, H, W)."""
        return self._gated(inputs, (torch.randn_like(inputs), torch.randn_like(inputs)) if self.sigma else None)

    def bpda_twin(self, inputs: Tensor) -> Tensor:
        """Returns the mean over the noise, which has a gradient where the clipped draw has none."""
        nodes = torch.tensor(NODES, device=inputs.device)
        return self._gated(inputs, (nodes, nodes), shared=True)

    def _omegas(self) -> tuple[Tensor, Tensor]:
        """Returns the scales of the learned noise, each (1,)."""
        one = torch.ones(1, device=self.spatial.weigh.weight.device)
        return one, one

    def _gated(self, inputs: Tensor, noise: tuple[Tensor, Tensor] | None, *, shared: bool = False) -> Tensor:
        weights, omegas = (self.spatial.weights(inputs), self.channel.weights(inputs)), self._omegas()
        options = {"sigma": self.sigma, "learned": self.learned, "shared": shared, "straight": self.straight}
        return gate_for(inputs, omegas)(inputs, *weights, noise, omegas, **options)

    def extra_repr(self) -> str:
        return f"sigma={self.sigma}"


class NUMAN(_NoisyGate):
    """Gates of fixed noise on the image: y = x * clip(SA(x) + n1) * clip(CA(x) + n2), clipped to [0, 1].

    Only the noise is fixed: the attentions are trained.

    Args:
        channels: Channels of the images.
        sigma: Standard deviation of n1 and n2, in input units; 1 in the paper, 0 for gates without noise.
    Source: Dhar et al. 2026, doi:10.1016/j.inffus.2025.103822, as in the authors' published notebook.
    """

    def __init__(self, channels: int, sigma: float = 1.0) -> None:
        super().__init__(channels, sigma)


class LUMAN(_NoisyGate):
    """Gates of learned noise on features: y = x * (clip(SA(x) + m_s) * clip(CA(x) + m_c))^3, clipped to [0, 1].

    The noise is m = omega * (n + n^2) with Gaussian n: biased by omega * sigma^2, and never below -omega / 4 where
    omega is positive. Inputs may be negative; their gates are mostly shut.

    Args:
        channels: Channels of the features.
        sigma: Standard deviation of n; 1 in the paper, 0 for gates without noise, whose omegas then have no effect.
    Source: Dhar et al. 2026, doi:10.1016/j.inffus.2025.103822; the last of the definitions in the authors' notebooks,
    depth 1. Two learned scalars, both 1 at first.
    """

    learned = True

    def __init__(self, channels: int, sigma: float = 1.0) -> None:
        super().__init__(channels, sigma)
        self.omega_spatial = nn.Parameter(torch.ones(1), requires_grad=sigma > 0)
        self.omega_channel = nn.Parameter(torch.ones(1), requires_grad=sigma > 0)

    def _omegas(self) -> tuple[Tensor, Tensor]:
        return self.omega_spatial, self.omega_channel


def learned_omegas(model: nn.Module) -> dict[str, tuple[float, float]]:
    """Returns the learned scalars (spatial, channel) of every LUMAN of a model, by the name of its module."""
    gates = ((name, module) for name, module in model.named_modules() if isinstance(module, LUMAN))
    return {name: (gate.omega_spatial.item(), gate.omega_channel.item()) for name, gate in gates}
