"""References in double precision, computed from the definition and from nothing a framework brings. NumPy only.

Big problems are checked at sampled places, so that a check costs less than about 0.3 s: blocks of a product, output
pixels of a convolution, hidden units of a recurrent layer (at every time step). First and last places are always in
the sample, for that is where wrong shapes, strides and paddings show.
"""

from __future__ import annotations

from typing import Any

import numpy as np


# Elements of an operand that a sampled block may read.
BLOCK_ELEMENTS = 1 << 22
MOST_ROWS = 64
PIXELS = 24
CHANNELS = 4
UNITS = 16
SEQUENCES = 2


def sampled(size: int, count: int, seed: int = 0) -> Any:
    """At most ``count`` indices below ``size``, sorted: the first, the last and others drawn."""
    if count >= size:
        return np.arange(size)
    drawn = np.random.default_rng([seed, size]).integers(0, size, max(count - 2, 0))
    return np.unique(np.concatenate([[0, size - 1], drawn]))


def sampled_rows(size: int, length: int, seed: int = 0) -> Any:
    """Rows of an operand whose rows have ``length`` elements."""
    return sampled(size, int(np.clip(BLOCK_ELEMENTS // max(length, 1), 4, MOST_ROWS)), seed)


def product(rows: Any, columns: Any) -> Any:
    """``rows @ columns`` in fp64; of int8 operands in int64."""
    kind = np.int64 if rows.dtype.kind in "iu" else np.float64
    return rows.astype(kind) @ columns.astype(kind)


# --- convolution: x (n, c, h, w), filters (k, c, r, s), y (n, k, p, q); strides and paddings (vertical, horizontal)


def pixels(n: int, height: int, width: int, seed: int = 0) -> list[tuple[int, int, int]]:
    """Places (image, row, column): the four corners of the first and the last image, and others drawn."""
    corners = {(i, r, c) for i in (0, n - 1) for r in (0, height - 1) for c in (0, width - 1)}
    random = np.random.default_rng([seed, n, height, width])
    places = random.integers(0, (n, height, width), (PIXELS, 3))
    drawn = {(int(i), int(r), int(c)) for i, r, c in places}
    return sorted(corners | drawn)


def convolution_forward(x: Any, filters: Any, stride: Any, padding: Any, places: Any) -> Any:
    """``y[n, :, p, q]`` at each place: (places, k)."""
    k, _, r, s = filters.shape
    flat = filters.reshape(k, -1).astype(_wide(filters))
    found = []
    for image, p, q in places:
        patch = np.zeros((x.shape[1], r, s), flat.dtype)
        for row in range(r):
            for column in range(s):
                h, w = p * stride[0] + row - padding[0], q * stride[1] + column - padding[1]
                if 0 <= h < x.shape[2] and 0 <= w < x.shape[3]:
                    patch[:, row, column] = x[image, :, h, w]
        found.append(flat @ patch.ravel())
    return np.stack(found)


def convolution_backward_data(dy: Any, filters: Any, stride: Any, padding: Any, places: Any) -> Any:
    """``dx[n, :, h, w]`` at each place: (places, c). Each output that read the pixel hands its gradient back."""
    taps = np.ascontiguousarray(filters.transpose(2, 3, 0, 1), dtype=np.float64)
    found = []
    for image, h, w in places:
        total = np.zeros(filters.shape[1])
        for row in range(filters.shape[2]):
            p, odd = divmod(h + padding[0] - row, stride[0])
            if odd or not 0 <= p < dy.shape[2]:
                continue
            for column in range(filters.shape[3]):
                q, odd = divmod(w + padding[1] - column, stride[1])
                if not odd and 0 <= q < dy.shape[3]:
                    total += dy[image, :, p, q].astype(np.float64) @ taps[row, column]
        found.append(total)
    return np.stack(found)


def convolution_backward_weights(dy: Any, x: Any, kernel: Any, stride: Any, padding: Any) -> Any:
    """``dW`` of the channels given: dy (n, k', p, q) and x (n, c', h, w) give (k', c', r, s)."""
    p, q = dy.shape[2:]
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (padding[0],) * 2, (padding[1],) * 2))
    gradients = dy.astype(np.float64).transpose(1, 0, 2, 3).reshape(dy.shape[1], -1)
    found = np.empty((dy.shape[1], x.shape[1], *kernel))
    for row in range(kernel[0]):
        for column in range(kernel[1]):
            window = padded[
                :,
                :,
                row : row + (p - 1) * stride[0] + 1 : stride[0],
                column : column + (q - 1) * stride[1] + 1 : stride[1],
            ]
            found[:, :, row, column] = gradients @ window.transpose(0, 2, 3, 1).reshape(gradients.shape[1], -1)
    return found


def _wide(array: Any) -> Any:
    return np.int64 if array.dtype.kind in "iu" else np.float64


# --- recurrent: of the sampled sequences and hidden units, every time step, each from the kernel's own state before it


def sigmoid(x: Any) -> Any:
    """The logistic function, without overflow."""
    return 0.5 * (1.0 + np.tanh(0.5 * x))


def recurrent_gates(cell: str, x: Any, before: Any, weights: Any, units: Any, cell_state: Any) -> dict[str, Any]:
    """Gates and states of the sampled units, from the states ``before`` each step.

    x (t, n, gates, units) and weights (gates, units, hidden) are of the units sampled; before (t, n, hidden) is of all.
    ``cell_state`` (n, units) is an LSTM's first. Returns arrays (t, n, units) by name; ``h`` is the new state.
    """
    product = np.einsum("tnh,guh->tngu", before.astype(np.float64), weights.astype(np.float64), optimize=True)
    x = x.astype(np.float64)
    if cell == "vanilla":
        return {"h": np.maximum(x[:, :, 0] + product[:, :, 0], 0.0)}
    if cell == "gru":
        r, z = (sigmoid(x[:, :, gate] + product[:, :, gate]) for gate in (0, 1))
        candidate = np.tanh(x[:, :, 2] + r * product[:, :, 2])
        previous = before[:, :, units].astype(np.float64)
        state = candidate + z * (previous - candidate)
        return {"r": r, "z": z, "n": candidate, "u": product[:, :, 2], "before": previous, "h": state}
    pre = x + product
    i, f, o, g = sigmoid(pre[:, :, 0]), sigmoid(pre[:, :, 1]), sigmoid(pre[:, :, 2]), np.tanh(pre[:, :, 3])
    c = np.empty_like(i)
    states = [cell_state.astype(np.float64)]
    for t in range(len(i)):
        c[t] = f[t] * states[-1] + i[t] * g[t]
        states.append(c[t])
    tanh_c = np.tanh(c)
    return {
        "i": i,
        "f": f,
        "o": o,
        "g": g,
        "c": c,
        "c_before": np.stack(states[:-1]),
        "tanh_c": tanh_c,
        "h": o * tanh_c,
    }


def recurrent_gradients(cell: str, gates: dict[str, Any], given: Any, recurrent: Any) -> Any:
    """Gradients of the recurrent products of the sampled units: (t, n, gates, units).

    ``given`` (t, n, units) are the gradients of the outputs; ``recurrent`` (t, n, units) is what comes back through
    the product of step t + 1 (zero at the last).
    """
    through = given.astype(np.float64) + recurrent
    if cell == "vanilla":
        return np.where(gates["h"] > 0, through, 0.0)[:, :, None]
    steps = len(through)
    found = np.empty((steps, through.shape[1], 4 if cell == "lstm" else 3, through.shape[2]))
    carry = np.zeros_like(through[0])
    for t in reversed(range(steps)):
        now = {name: values[t] for name, values in gates.items()}
        if cell == "lstm":
            dh = through[t]
            dc = carry + dh * now["o"] * (1 - now["tanh_c"] ** 2)
            found[t, :, 0] = dc * now["g"] * now["i"] * (1 - now["i"])
            found[t, :, 1] = dc * now["c_before"] * now["f"] * (1 - now["f"])
            found[t, :, 2] = dh * now["tanh_c"] * now["o"] * (1 - now["o"])
            found[t, :, 3] = dc * now["i"] * (1 - now["g"] ** 2)
            carry = dc * now["f"]
        else:
            dh = through[t] + carry
            dn = dh * (1 - now["z"]) * (1 - now["n"] ** 2)
            found[t, :, 0] = dn * now["u"] * now["r"] * (1 - now["r"])
            found[t, :, 1] = dh * (now["before"] - now["n"]) * now["z"] * (1 - now["z"])
            found[t, :, 2] = dn * now["r"]
            carry = dh * now["z"]
    return found
