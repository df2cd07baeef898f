"""Captum's TCAV and overcomplete's autoencoder as their users call them."""

import tempfile

import numpy as np
import torch

from .torch_networks import about as about
from .torch_networks import load

PACKAGES = ("torch", "captum", "overcomplete")


def prepare(command):
    """Return the run of a command."""
    return _RUNS[command["case"]["method"]](command)


def _channels_first(path):
    return torch.from_numpy(np.load(path).transpose(0, 3, 1, 2).copy())


def _tcav(command):
    """Captum's TCAV: one set of the concept, and sets of random images against others for chance."""
    from captum.concept import TCAV, Concept

    network, layer, images, _ = load(command)
    name = next(name for name, module in network.named_modules() if module is layer)
    concept, others = _channels_first(command["concept"]), _channels_first(command["random"])
    draws, size = command["case"]["draws"], len(concept)
    rng = np.random.default_rng(0)
    random = [others[torch.from_numpy(rng.permutation(len(others))[:size])] for _ in range(draws + 1)]

    def wrapped(number, some):
        loader = torch.utils.data.DataLoader(some, batch_size=16)
        return Concept(number, f"concept{number}", loader)

    def run():
        with tempfile.TemporaryDirectory() as folder:
            sets = [wrapped(i, some) for i, some in enumerate([concept, *random])]
            tcav = TCAV(network, layers=[name], model_id="net", save_path=folder)
            pairs = [[sets[0], sets[1]], *([sets[i], sets[i + 1]] for i in range(1, draws + 1))]
            found = tcav.interpret(images, experimental_sets=pairs, target=command["case"]["target"])
            return np.array([float(one[name]["sign_count"][0]) for one in found.values()])

    return run


def _sae(command):
    """Training steps of overcomplete's TopK autoencoder."""
    from overcomplete.sae import TopKSAE, train_sae

    case = command["case"]
    rows = torch.from_numpy(np.load(command["acts"]))
    steps, examples = case["steps"], case["examples"]

    def run():
        torch.manual_seed(0)
        model = TopKSAE(rows.shape[1], nb_concepts=case["codes"], top_k=case["k"])
        drawn = torch.randint(0, len(rows), (steps * examples,))
        loader = torch.utils.data.DataLoader(
            torch.utils.data.TensorDataset(rows[drawn]), batch_size=examples, shuffle=False
        )

        def criterion(x, x_hat, pre_codes, codes, dictionary):
            return (x - x_hat).square().mean()

        optimizer = torch.optim.Adam(model.parameters(), lr=5e-4)
        train_sae(model, loader, criterion, optimizer, nb_epochs=1, monitoring=0, device="cpu")
        with torch.no_grad():
            model.eval()
            left = (rows - model(rows)[2]).square().mean() / (rows - rows.mean(0)).square().mean()
        return np.array([1 - float(left)])

    return run


_RUNS = {"tcav": _tcav, "sae": _sae}
