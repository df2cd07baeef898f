"""Two small torch files, legacy and zip, and what is in them.

python make_pth.py OUT_FOLDER
"""

import sys
from collections import OrderedDict
from pathlib import Path

import torch
from provenance import save
from torch import nn

folder = Path(sys.argv[1])
torch.manual_seed(0)
shared = torch.arange(12, dtype=torch.float32)
network = nn.Sequential(nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2))
state = network.state_dict()
state.update(
    OrderedDict(
        transposed=torch.arange(6.0).reshape(2, 3).T,
        channels_last=torch.randn(1, 2, 3, 4).to(memory_format=torch.channels_last),
        tail=shared[8:],
        every_third=shared[1::3],
        parameter=nn.Parameter(torch.ones(2)),
        half=torch.tensor([0.5, -2.0], dtype=torch.float16),
        bfloat=torch.tensor([0.5, 3.0], dtype=torch.bfloat16),
        double=torch.tensor([1 / 3], dtype=torch.float64),
        integer=torch.tensor(-7, dtype=torch.int32),
        flag=torch.tensor([True, False]),
        empty=torch.zeros(0, 3),
    )
)
torch.save(state, folder / "tiny_zip.pth")
torch.save(state, folder / "tiny_legacy.pth", _use_new_zipfile_serialization=False)
save(
    folder / "tiny_pth.npz",
    command="make_pth.py, seed 0",
    packages=("torch", "numpy"),
    **{
        key: (value.float() if value.dtype == torch.bfloat16 else value).detach().numpy()
        for key, value in state.items()
    },
)
