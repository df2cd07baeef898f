"""Feature visualization in PyTorch: a tuned loop of jaxai's recipe, and torch-lucent's `render_vis`."""

import numpy as np
import torch
from torch.nn import functional

from .torch_networks import DEVICE, load
from .torch_networks import about as about

PACKAGES = ("torch", "torch-lucent")
_ROOT = torch.tensor([[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]])
_COLORS = _ROOT / _ROOT.norm(dim=0).max()


def prepare(command):
    """Return the run: `lucent` or `loop`, by the case's option `peer`."""
    options = command["case"]["options"]
    network, layer, _, _ = load(command)
    run = _lucent if options["peer"] == "lucent" else _loop
    return run(
        network, layer, command["case"]["batch"], options["steps"], getattr(torch, command["precision"])
    )


def _lucent(network, layer, batch, steps, dtype):
    from lucent.optvis import objectives, param, render

    if dtype != torch.float32:
        return None
    name = next(key for key, module in network.named_children() if module is layer)
    render.device = DEVICE

    def run():
        torch.manual_seed(0)
        images = render.render_vis(
            network,
            sum(objectives.channel(name, i, batch=i) for i in range(batch)),
            param_f=lambda: param.image(224, batch=batch, fft=True, decorrelate=True),
            thresholds=(steps,),
            show_image=False,
            progress=False,
        )
        return np.asarray(images[-1])

    return run


def _loop(network, layer, batch, steps, dtype):
    """Fourier parameters, one affine resampling an image, Adam; the network is cut after the layer."""
    size = 224
    index = next(i for i, module in enumerate(network) if module is layer)
    body = network[: index + 1]
    f = torch.hypot(torch.fft.fftfreq(size)[:, None], torch.fft.rfftfreq(size))
    scale = size / f.clamp(min=1 / size)
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    deviation = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    channels = torch.arange(batch)

    def run():
        torch.manual_seed(0)
        params = (0.01 * torch.randn(batch, 3, size, size // 2 + 1, 2)).requires_grad_(True)
        optimizer = torch.optim.Adam([params], lr=0.05, foreach=True)

        def render():
            image = torch.fft.irfft2(torch.view_as_complex(params) * scale, s=(size, size)) / 4
            return torch.sigmoid(torch.einsum("ij,bjhw->bihw", _COLORS, image))

        for _ in range(steps):
            optimizer.zero_grad(set_to_none=True)
            angle = torch.deg2rad(torch.randint(-10, 11, (batch,)).float())
            zoom = 1 / (0.9 + 0.02 * torch.randint(0, 11, (batch,)).float())
            shift = torch.randint(-6, 7, (batch, 2)).float() * 2 / size
            rows = torch.stack([zoom * angle.cos(), -zoom * angle.sin(), shift[:, 0]], 1)
            columns = torch.stack([zoom * angle.sin(), zoom * angle.cos(), shift[:, 1]], 1)
            grid = functional.affine_grid(
                torch.stack([rows, columns], 1), [batch, 3, size, size], align_corners=False
            )
            seen = functional.grid_sample(render() - 0.5, grid, align_corners=False) + 0.5
            x = ((seen - mean) / deviation).to(dtype).contiguous(memory_format=torch.channels_last)
            acts = body(x)
            loss = -acts[channels, channels].float().mean((1, 2)).sum()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            return render().permute(0, 2, 3, 1).cpu().numpy()

    return run
