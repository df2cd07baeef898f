"""Makes torch files of a small network that are right, or nearly: changed pickles, storages and archives."""

import io
import math
import pickletools
import struct
import warnings
import zipfile

import ml_dtypes
import numpy as np
import tiny_weights

FLOATS = (np.float32, np.float16, np.float64, ml_dtypes.bfloat16)
WORDS = (
    "",
    "a",
    "state_dict",
    "\x1b[31m\x07",
    "features.0.weight",
    "\ud800",
    "x" * 5000,
    "..",
    "data/0",
    "\n",
)
NUMBERS = (
    0,
    1,
    2,
    3,
    7,
    49,
    255,
    256,
    65535,
    2**31 - 1,
    2**31,
    2**62,
    2**63 - 1,
    2**63,
    2**70,
    -1,
    -(2**31),
    10**40,
)


class Description(tiny_weights.Description):
    """A description whose tensors lie in their storages in any order of axes, with others around them."""

    def __init__(self, state, rng, **options):
        self.rng = rng
        super().__init__(state, **options)

    def laid(self, array):
        order = self.rng.sample(range(array.ndim), array.ndim)
        base = array.transpose(order).copy("C")
        back = sorted(range(array.ndim), key=order.__getitem__)
        strides = [step // array.itemsize for step in base.transpose(back).strides]
        before, after = self.rng.choice((0, 0, 3)), self.rng.choice((0, 0, 5))
        around = [np.zeros(count, array.dtype) for count in (before, after)]
        return np.concatenate([around[0], base.ravel(), around[1]]), before, strides


def word(text):
    data = text.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(data)) + data


def whole(number):
    size = number.bit_length() // 8 + 1
    return b"\x8a" + bytes([size]) + number.to_bytes(size, "little", signed=True)


def hostile(rng):
    """Return instructions that build or ask for something that no state dict has."""
    size = rng.choice((3, 50, 3000, 200_000))
    memo = b"r" + struct.pack("<I", 900)
    again = b"j" + struct.pack("<I", 900)
    return rng.choice(
        (
            b")" + b"\x85" * size,
            b"]" * size + b"a" * (size - 1),
            b"}" + (word("a") + b"}") * size + b"s" * size,
            b")" + (memo + again + b"\x86") * min(size, 60),
            b"]" + memo + again + b"a",
            b"}" + memo + word("a") + again + b"s",
            b"(" * size,
            again * size,
            b"](" + b"N" * size + b"e" + memo + again * 9,
            b"ccollections\nOrderedDict\n](" + (word("a") + b"N\x86") * min(size, 9000) + b"e\x85R",
            b"cos\nsystem\n" + word("true") + b"\x85R",
            word("os") + word("system") + b"\x93" + word("true") + b"\x85R",
            b"cbuiltins\neval\n" + word("1") + b"\x85R",
            b"(ios\nsystem\n",
            b"(cos\nsystem\no",
            b"cos\nsystem\n)\x81",
            b"cos\nsystem\n)}\x92",
            b"ctorch\nQInt8Storage\n",
            b"ctorch._utils\n_rebuild_qtensor\n",
            b"ctorch._utils\n_rebuild_parameter\n",
            b"\x82\x01",
            b"Pname\n",
            whole(rng.choice(NUMBERS)),
            b"\x8b" + struct.pack("<i", size) + bytes(size),
            b"I" + b"9" * size + b"\n",
            b"G" + struct.pack(">d", rng.choice((math.nan, math.inf, 2.0, -1.0))),
            word(rng.choice(WORDS)),
            b"X" + struct.pack("<I", 2**32 - 1),
            b"U" + bytes([3]) + b"\xff\xfe\xfd",
            b"C" + bytes([3]) + b"abc",
            b"\x95" + struct.pack("<Q", rng.choice((0, 5, 2**63))),
            b"\x80" + bytes([rng.randrange(256)]),
            rng.choice((b"N", b"\x88", b"\x89", b")", b"]", b"}", b"(", b"t", b"0", b"2", b"1", b".")),
        )
    )


def changed_instructions(instructions, rng):
    """Return instructions with one to four changes."""
    made = list(instructions)
    codes = [opcode.code.encode("latin-1") for opcode in pickletools.opcodes]
    for _ in range(rng.choice((1, 1, 2, 4))):
        at, other = rng.randrange(len(made)), rng.randrange(len(made))
        old = made[at]
        numbers = [i for i, part in enumerate(made) if part[:1] in b"KJMr\x8ajhq"]
        words = [i for i, part in enumerate(made) if part[:1] in b"Xc"]
        match rng.randrange(12):
            case 0:
                del made[at]
            case 1:
                made.insert(other, old)
            case 2:
                made[at], made[other] = made[other], old
            case 3:
                made[at] = rng.choice(codes) + old[1:]
            case 4:
                made.insert(at, hostile(rng))
            case 5:
                made[at] = hostile(rng)
            case 6 if numbers:
                made[rng.choice(numbers)] = whole(rng.choice(NUMBERS))
            case 7 if words:
                # A key, among others.
                nested = b")" + rng.choice((b"\x85" * 200_000, b"q\0h\0\x86" * 60))
                made[rng.choice(words)] = rng.choice((word(rng.choice(WORDS)), nested))
            case 8 if words:
                made[rng.choice(words)] = made[rng.choice(words)]
            case 9:
                made[at:at] = made[other : other + rng.choice((3, 30, 300))]
            case 10:
                del made[at : at + rng.choice((3, 30))]
            case 11 if len(old) > 1:
                place = rng.randrange(len(old))
                made[at] = old[:place] + bytes([rng.randrange(256)]) + old[place + 1 :]
        made = made or [b"."]
    return made


def torch_state(rng, *, changed=False):
    """Return a network's name and state dict, and its description in one of the ways that mean the same.

    With `changed`, an array of the state dict is another.
    """
    name = rng.choice(("vgg11", "vgg11_bn"))
    state = tiny_weights.torchvision(norm=name.endswith("bn"), seed=rng.randrange(5))
    cast = rng.choice((*FLOATS, None))
    for key, array in state.items():
        if array.dtype == np.float32:
            state[key] = array.astype(cast or rng.choice(FLOATS))
    for index in (0, 3, 6):
        if rng.random() < 0.2:
            key = f"classifier.{index}.weight"
            state[key] = state[key].reshape(len(state[key]), -1, *((7, 7) if index == 0 else (1, 1)))
    if changed:
        state = changed_state(state, rng)
    return name, state, Description(state, rng, wrapper=rng.choice((None, None, "state_dict", "model")))


def changed_state(state, rng):
    """Return a state dict in which one array is another: its shape, which may be broadcast, type or name."""
    state = dict(state)
    key = rng.choice(list(state))
    array, some = state[key], np.random.default_rng(rng.randrange(9))
    match rng.randrange(12):
        case 0 if array.ndim:
            state[key] = array[:1]
        case 1:
            state[key] = array[None] if rng.random() < 0.5 else array[..., None]
        case 2:
            state[key] = array.swapaxes(0, -1) if array.ndim else array[None, None]
        case 3:
            state[key] = array.reshape(-1) if array.ndim > 1 else array.reshape(-1, 1)
        case 4 if array.ndim > 1:
            state[key] = array.reshape(array.shape[1], array.shape[0], *array.shape[2:])
        case 5:
            state[key] = array.ravel()[0]
        case 6:
            dtype = rng.choice(("int8", "uint8", "int32", "int64"))
            state[key] = some.integers(0, 9, array.shape).astype(dtype)
        case 7:
            state[key] = array.astype(rng.choice(("bool", "complex64")))
        case 8 if array.ndim:
            state[key] = array * np.array(rng.choice((np.nan, np.inf, -1.0)), array.dtype)
        case 9:
            del state[key]
        case 10:
            state[f"{key}.more"] = array
        case 11:
            state[rng.choice(("x.num_batches_tracked", "head.fc.weight"))] = state.pop(key)
    return {key: np.ascontiguousarray(array).reshape(np.shape(array)) for key, array in state.items()}


def changed_storages(storages, counts, instructions, rng):
    """Return storages with bits, sizes, types or keys that are others."""
    storages, counts, instructions = dict(storages), dict(counts), list(instructions)
    key = rng.choice(list(storages))
    data = bytearray(storages[key])
    match rng.randrange(7):
        case 0 if data:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            storages[key] = bytes(data)
        case 1:
            storages[key] = bytes(data[: rng.randrange(len(data) + 1)])
        case 2:
            storages[key] = bytes(data) + bytes(rng.choice((1, 4, 400)))
        case 3:
            del storages[key]
        case 4:
            storages[rng.choice((*filter(str.isascii, WORDS), "999"))] = bytes(data)
            counts.setdefault(list(storages)[-1], len(data) // 4)
        case 5:
            counts[key] = rng.choice((0, 1, counts[key] + 1, 2**40, 2**63 - 1, -1))
        case 6:
            kinds = [i for i, part in enumerate(instructions) if part.startswith(b"ctorch\n")]
            kind = rng.choice(list(tiny_weights.KINDS.values()))
            instructions[rng.choice(kinds)] = f"ctorch\n{kind}Storage\n".encode()
    counts = {key: counts.get(key, 0) for key in storages}
    return storages, counts, instructions


def changed_bytes(data, rng):
    """Return data with single bits or pieces that are others; ends are changed more often than middles."""
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        size = len(data)
        if not size:
            break
        place = min(
            rng.choice(
                (rng.randrange(size), rng.randrange(min(size, 300)), size - 1 - rng.randrange(min(size, 300)))
            ),
            size - 1,
        )
        match rng.randrange(6):
            case 0 | 1:
                data[place] ^= 1 << rng.randrange(8)
            case 2:
                data[place] = rng.choice((0, 1, 127, 128, 255))
            case 3:
                del data[place : place + rng.choice((1, 4, 100))]
            case 4:
                data[place:place] = rng.choice(
                    (b"\0", b"\xff\xff\xff\xff", bytes(data[: rng.randrange(200)]))
                )
            case 5 if rng.random() < 0.5:
                del data[place:]
    return bytes(data)


# Where the fields of an archive's parts lie: local header, entry of the list, end of the list.
FIELDS = {
    b"PK\3\4": ((4, 2), (6, 2), (8, 2), (14, 4), (18, 4), (22, 4), (26, 2), (28, 2)),
    b"PK\1\2": (
        (6, 2),
        (8, 2),
        (10, 2),
        (16, 4),
        (20, 4),
        (24, 4),
        (28, 2),
        (30, 2),
        (32, 2),
        (34, 2),
        (42, 4),
    ),
    b"PK\5\6": ((4, 2), (6, 2), (8, 2), (10, 2), (12, 4), (16, 4), (20, 2)),
}


def changed_archive(data, rng):
    """Return an archive that says other things of itself."""
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 3))):
        mark = rng.choice(list(FIELDS))
        places = [place for place in range(len(data) - 22) if data.startswith(mark, place)]
        if mark == b"PK\5\6":
            places = [len(data) - 22]
        if not places:
            continue
        place, (field, size) = rng.choice(places), rng.choice(FIELDS[mark])
        old = int.from_bytes(data[place + field : place + field + size], "little")
        new = rng.choice((0, 1, 8, 255, old + 1, old - 1, old * 2, 2**31, 2**32 - 1, rng.randrange(2**32)))
        data[place + field : place + field + size] = (new % 256**size).to_bytes(size, "little")
    if rng.random() < 0.3:
        # Sizes and a place of eight bytes, which an entry can have beside its own.
        places = [place for place in range(len(data) - 46) if data.startswith(b"PK\1\2", place)]
        if places:
            place = rng.choice(places)
            (name, extra) = struct.unpack("<HH", data[place + 28 : place + 32])
            numbers = [
                rng.choice((0, 4, 400, 2**32, 2**62, 2**63, 2**64 - 1)) for _ in range(rng.randrange(1, 4))
            ]
            more = struct.pack(f"<HH{len(numbers)}Q", 1, 8 * len(numbers), *numbers)
            data[place + 30 : place + 32] = struct.pack("<H", extra + len(more))
            data[place + 20 : place + 28] = b"\xff" * 8
            if len(numbers) == 3:
                data[place + 42 : place + 46] = b"\xff" * 4
            data[place + 46 + name : place + 46 + name] = more
            end = len(data) - 22
            (listed,) = struct.unpack("<I", data[end + 12 : end + 16])
            data[end + 12 : end + 16] = struct.pack("<I", (listed + len(more)) % 2**32)
    return bytes(data)


def zip_input(rng):
    harmless, kind = rng.random() < 0.1, rng.randrange(12)
    name, _, made = torch_state(rng, changed=not harmless and kind > 9)
    instructions, storages, counts = made.instructions, made.storages, made.counts
    options = {}
    if not harmless:
        if kind < 4:
            instructions = changed_instructions(instructions, rng)
        elif kind < 6:
            storages, counts, instructions = changed_storages(storages, counts, instructions, rng)
        elif kind == 6:
            members = ("data.pkl", "byteorder", "data/0", "version")
            options = rng.choice(
                (
                    {"byteorder": rng.choice((b"big", b"", b"Little", b"little\n", bytes(99)))},
                    {"compressed": rng.sample(members, rng.randrange(1, 4))},
                )
            )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = tiny_weights.zip_file(instructions, storages, **options)
        if not harmless and kind in (7, 8) and rng.random() < 0.6:
            data = changed_archive(data, rng)
        elif not harmless and kind in (7, 8):
            buffer = io.BytesIO(data)
            with zipfile.ZipFile(buffer, "a") as archive:
                more = rng.choice(
                    (
                        "archive/data/0",
                        "archive/data.pkl",
                        "other/data.pkl",
                        "archive/data/x",
                        "../x",
                        "x\x1b",
                    )
                )
                archive.writestr(more, rng.choice((b"", b"x", storages["0"])))
            data = buffer.getvalue()
    if not harmless and kind == 9:
        data = changed_bytes(data, rng)
    return name, data, harmless


def legacy_input(rng):
    harmless, kind = rng.random() < 0.1, rng.randrange(12)
    name, _, made = torch_state(rng, changed=not harmless and kind > 9)
    instructions, storages, counts = made.instructions, made.storages, made.counts
    options = {}
    if not harmless:
        if kind < 5:
            instructions = changed_instructions(instructions, rng)
        elif kind < 7:
            storages, counts, instructions = changed_storages(storages, counts, instructions, rng)
        elif kind == 7:
            keys = list(storages)
            options = rng.choice(
                (
                    {"keys": keys[:-1]},
                    {"keys": [*keys, keys[0]]},
                    {"keys": [*keys[1:], keys[0]]},
                    {"keys": [*keys, 3]},
                    {"keys": tuple(keys)},
                    {"keys": {}},
                    {"system": {"little_endian": False}},
                    {"system": {"little_endian": [[[]]]}},
                    {"system": []},
                )
            )
    data = tiny_weights.legacy_file(instructions, storages, counts, **options)
    if not harmless and kind in (8, 9):
        data = changed_bytes(data, rng)
    return name, data, harmless
