"""Loops, branches and checkpointed regions of a jaxpr: their bodies, and running them with other bodies.

Each entry of `STRUCTURES` takes a primitive's parameters and returns the bodies and `build(bodies) -> run`.
"""

import jax
from jax import lax

REMAT = ("remat2", "remat", "checkpoint")


def inner(closed):
    """Return the jaxpr of a closed one, or itself."""
    return getattr(closed, "jaxpr", closed)


def scan_counts(params) -> tuple[int, int]:
    """Return how many of a scan's operands are constants, and how many its state."""
    if "num_consts" in params:
        return params["num_consts"], params["num_carry"]
    numbers = range(len(inner(params["jaxpr"]).invars))
    consts, carry, _ = params["ft_in"].update(list(numbers)).unpack()
    return len(list(consts)), len(list(carry))


def _scan(params):
    consts, carry = scan_counts(params)

    def build(body):
        def run(*operands):
            fixed, state, xs = (
                operands[:consts],
                operands[consts : consts + carry],
                operands[consts + carry :],
            )

            def step(state, x):
                out = body(*fixed, *state, *x)
                return tuple(out[:carry]), tuple(out[carry:])

            state, ys = lax.scan(
                step, state, xs, length=params["length"], reverse=params["reverse"], unroll=params["unroll"]
            )
            return (*state, *ys)

        return run

    return (params["jaxpr"],), build


def _while(params):
    first, second = params["cond_nconsts"], params["body_nconsts"]

    def build(condition, body):
        def run(*operands):
            a, b, state = operands[:first], operands[first : first + second], operands[first + second :]
            return lax.while_loop(lambda s: condition(*a, *s)[0], lambda s: tuple(body(*b, *s)), tuple(state))

        return run

    return (params["cond_jaxpr"], params["body_jaxpr"]), build


def _cond(params):
    def build(*branches):
        def run(index, *operands):
            return lax.switch(index, [lambda *xs, b=b: tuple(b(*xs)) for b in branches], *operands)

        return run

    return tuple(params["branches"]), build


def _remat(params):
    def build(body):
        return jax.checkpoint(
            lambda *xs: tuple(body(*xs)), policy=params["policy"], prevent_cse=params["prevent_cse"]
        )

    return (params["jaxpr"],), build


STRUCTURES = {"scan": _scan, "while": _while, "cond": _cond, **dict.fromkeys(REMAT, _remat)}
