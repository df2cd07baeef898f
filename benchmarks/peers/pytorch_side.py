"""Plain PyTorch: a forward pass and an input gradient, as a user writes them."""

import torch

from .torch_networks import about as about
from .torch_networks import channels_last, load

PACKAGES = ("torch",)


def prepare(command):
    """Return the run, or None where there is none."""
    network, _, images, classes = load(command)
    method = command["case"]["method"]
    if method == "forward":
        mode = torch.inference_mode if command["tuned"] else torch.no_grad

        def forward():
            with mode():
                return network(images).to(torch.float32).cpu().numpy()

        return forward
    if method == "saliency":

        def gradient():
            x = images.clone().requires_grad_(True)
            score = network(x).gather(1, classes[:, None]).sum()
            # autograd.grad leaves the parameters' gradients alone; backward, as users write it, does not.
            if command["tuned"]:
                return channels_last(torch.autograd.grad(score, x)[0])
            network.zero_grad()
            score.backward()
            return channels_last(x.grad)

        return gradient
    return None
