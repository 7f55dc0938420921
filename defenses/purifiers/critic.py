"""The critic of a Wasserstein GAN with gradient penalty, and the step that trains it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from defenses.purifiers.vae import sizes_of, widths_of

WIDEST = 64
"""Most channels of a layer of the critic: its penalty is differentiated twice."""


class Critic(nn.Module):
    """Tells real images from generated ones by one unbounded number; with classes it also names the class.

    It has no batch normalisation: the penalty is taken on the gradient of each image alone.

    Args:
        shape: (C, H, W) of the images.
        n_classes: Classes to tell apart, 0 for none.
    Source: Gulrajani et al. 2017, arXiv:1704.00028, section 4; the class head: Odena et al. 2017, arXiv:1610.09585.
    """

    def __init__(self, shape: tuple[int, ...], n_classes: int = 0) -> None:
        super().__init__()
        self.n_classes = n_classes
        sizes = sizes_of(*shape[1:])
        layers, channels = [], shape[0]
        for width in widths_of(len(sizes) - 1, widest=WIDEST):
            layers += [nn.Conv2d(channels, width, 3, 2, 1), nn.LeakyReLU(0.2)]
            channels = width
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(channels * sizes[-1][0] * sizes[-1][1], 1 + n_classes)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the score of each image, (N,), higher for real ones, and its class logits, (N, n_classes)."""
        outputs = self.head(self.layers(2 * images - 1).flatten(1))
        return outputs[:, 0], outputs[:, 1:]


class Adversary:
    """A critic with its optimiser.

    Args:
        critic: On its device; trained in place.
        lr: Learning rate of Adam.
        penalty: Weight of the gradient penalty.
    """

    def __init__(self, critic: Critic, *, lr: float, penalty: float) -> None:
        self.critic = critic
        self._penalty = penalty
        self._optimizer = torch.optim.Adam(critic.parameters(), lr=lr, betas=(0.5, 0.9))

    def learn(self, real: Tensor, generated: Tensor, label: Tensor | None = None) -> None:
        """Takes one step of the critic: score of real images up, of generated ones down, slope towards 1.

        Args:
            real: Images of the data, (N, C, H, W).
            generated: Images of the generator, same shape; they are detached.
            label: int64 (N,), classes of the real images; None for a critic without classes.
        Source: Gulrajani et al. 2017, arXiv:1704.00028, equation 3.
        """
        self.critic.requires_grad_(True)
        generated = generated.detach()
        score, logits = self.critic(real)
        loss = self.critic(generated)[0].mean() - score.mean() + self._penalty * self.slope_penalty(real, generated)
        if label is not None:
            loss = loss + F.cross_entropy(logits, label)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._optimizer.step()
        self.critic.requires_grad_(False)

    def state_dict(self) -> dict[str, object]:
        """Returns the weights of the critic and the state of its optimiser."""
        return {"critic": dict(self.critic.state_dict()), "optimizer": self._optimizer.state_dict()}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Takes over what an earlier `state_dict` returned, onto the device of the critic."""
        self.critic.load_state_dict(state["critic"])
        self._optimizer.load_state_dict(state["optimizer"])

    def slope_penalty(self, real: Tensor, generated: Tensor) -> Tensor:
        """Returns the mean squared distance from 1 of the slope at a uniform point between each pair of images."""
        share = torch.rand(len(real), 1, 1, 1, device=real.device)
        between = (share * real + (1 - share) * generated).requires_grad_(True)
        (slope,) = torch.autograd.grad(self.critic(between)[0].sum(), between, create_graph=True)
        return (slope.flatten(1).norm(dim=1) - 1).pow(2).mean()
