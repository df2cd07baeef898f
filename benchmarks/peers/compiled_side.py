"""PyTorch with `torch.compile`: as documented, and tuned: channels last, parameters frozen into programs."""

import torch

from .torch_networks import about as about
from .torch_networks import channels_last, load

PACKAGES = ("torch",)


def prepare(command):
    """Return the run, or None where there is none."""
    method, tuned = command["case"]["method"], command["tuned"]
    if method not in ("forward", "saliency"):
        return None
    network, _, images, classes = load(command)
    torch.compiler.reset()
    if method == "forward":
        # Freezing folds parameters and chooses their layouts; it is for inference alone.
        options = {"freezing": True} if tuned else None
        compiled = torch.compile(network, options=options)

        def forward():
            with torch.no_grad():
                return compiled(images).to(torch.float32).cpu().numpy()

        return forward

    # Several images are another program, with sizes that do not change.
    compiled = torch.compile(network, dynamic=False)

    def gradient():
        x = images.clone().requires_grad_(True)
        score = compiled(x).gather(1, classes[:, None]).sum()
        return channels_last(torch.autograd.grad(score, x)[0])

    return gradient
