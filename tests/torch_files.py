"""Torch files that tests build: storages, tensors and both formats around them; their arrays, read back."""

import io
import pickle
import struct
import sys
import types
import zipfile
from collections import OrderedDict

import numpy as np

from jaxai.weights_convert import torch_file
from jaxai.weights_convert.stored import FLOATS

ORDERED = b"ccollections\nOrderedDict\n"


def read_torch(path):
    """Return the arrays of a file; those of types that are no weights as they are described."""
    with path.open("rb") as file:
        state = torch_file.read_torch(file)
        return {key: array.read() if array.dtype in FLOATS else array for key, array in state.items()}


class Storage:
    """Stands for a torch storage in the pickles that the tests write."""

    def __init__(self, numbers, key="0", kind="FloatStorage", total=None, view=None):
        self.numbers = np.asarray(numbers, np.float32)
        total = len(self.numbers) if total is None else total
        self.identity = ["storage", kind, key, "cpu", total]
        self.view = view


class Tensor:
    """Stands for a torch tensor: a storage, an offset, a shape and strides."""

    def __init__(self, storage, offset=0, shape=(2,), strides=(1,)):
        self.parts = (storage, offset, shape, strides, False, OrderedDict())

    def __reduce__(self):
        return sys.modules["torch._utils"]._rebuild_tensor_v2, self.parts


def named_torch(monkeypatch):
    """Return modules that have torch's names, so that pickle can write references to them."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    for module in (torch, utils):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    for kind in ("FloatStorage", "QuantumStorage"):
        setattr(torch, kind, type(kind, (), {"__module__": "torch"}))
    for name in ("_rebuild_tensor_v2", "_rebuild_parameter"):
        function = types.FunctionType((lambda *a: None).__code__, {}, name)
        function.__module__, function.__qualname__ = "torch._utils", name
        setattr(utils, name, function)
    return torch


def pickled(root, torch, *, legacy=True, protocol=2):
    class Pickler(pickle.Pickler):
        def persistent_id(self, item):
            if isinstance(item, Storage):
                kind = getattr(torch, item.identity[1])
                view = [item.view] if legacy else []
                return ("storage", kind, *item.identity[2:], *view)
            return None

    buffer = io.BytesIO()
    Pickler(buffer, protocol).dump(root)
    return buffer.getvalue()


def legacy_file(path, root, torch, storages, **options):
    with path.open("wb") as file:
        for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}):
            pickle.dump(part, file, protocol=2)
        file.write(pickled(root, torch, **options))
        pickle.dump([storage.identity[2] for storage in storages], file, protocol=2)
        for storage in storages:
            file.write(struct.pack("<q", len(storage.numbers)) + storage.numbers.tobytes())
    return path


def zip_file(path, root, torch, storages, byteorder="little", **options):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled(root, torch, legacy=False, **options))
        archive.writestr("archive/byteorder", byteorder)
        for storage in storages:
            numbers = storage.numbers if byteorder == "little" else storage.numbers.byteswap()
            archive.writestr(f"archive/data/{storage.identity[2]}", numbers.tobytes())
    return path
