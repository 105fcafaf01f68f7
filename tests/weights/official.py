"""Published forward passes written once more in plain torch, from their description: imports are held to it.

Nothing of the package is used. Source of the description: the official SEDD code, model/transformer.py; MDLM and DUO
run the same layers and read their outputs otherwise.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F


def state_of(states, dim, heads, depth, cond, seed=0, prefix=""):
    """A random state dict in the official layout, nothing in it near zero, no sum much larger than its terms."""
    draw = torch.Generator().manual_seed(seed)

    def normal(*shape, scale=0.3, mean=0.0):
        return mean + scale * torch.randn(*shape, generator=draw)

    state = {
        "vocab_embed.embedding": normal(states, dim, scale=1.0),
        "sigma_map.mlp.0.weight": normal(cond, 256, scale=1 / 16),
        "sigma_map.mlp.0.bias": normal(cond),
        "sigma_map.mlp.2.weight": normal(cond, cond, scale=cond**-0.5),
        "sigma_map.mlp.2.bias": normal(cond),
        "rotary_emb.inv_freq": 1.0 / 10_000 ** (torch.arange(0, dim // heads, 2).float() / (dim // heads)),
    }
    for i in range(depth):
        state |= {
            f"blocks.{i}.norm1.weight": normal(dim, mean=1.0),
            f"blocks.{i}.attn_qkv.weight": normal(3 * dim, dim, scale=dim**-0.5),
            f"blocks.{i}.attn_out.weight": normal(dim, dim, scale=dim**-0.5),
            f"blocks.{i}.norm2.weight": normal(dim, mean=1.0),
            f"blocks.{i}.mlp.0.weight": normal(4 * dim, dim, scale=dim**-0.5),
            f"blocks.{i}.mlp.0.bias": normal(4 * dim),
            f"blocks.{i}.mlp.2.weight": normal(dim, 4 * dim, scale=dim**-0.5),
            f"blocks.{i}.mlp.2.bias": normal(dim),
            f"blocks.{i}.adaLN_modulation.weight": normal(6 * dim, cond, scale=cond**-0.5),
            f"blocks.{i}.adaLN_modulation.bias": normal(6 * dim),
        }
    state |= {
        "output_layer.norm_final.weight": normal(dim, mean=1.0),
        "output_layer.linear.weight": normal(states, dim, scale=dim**-0.5),
        "output_layer.linear.bias": normal(states),
        "output_layer.adaLN_modulation.weight": normal(2 * dim, cond, scale=cond**-0.5),
        "output_layer.adaLN_modulation.bias": normal(2 * dim),
    }
    return {prefix + name: value for name, value in state.items()}


def logits(state, heads, x, sigma, prefix=""):
    """What the network gives out, [B, L, states], in float64."""
    state = {name.removeprefix(prefix): value.double() for name, value in state.items()}
    sigma = sigma.double()
    frequency = torch.exp(-math.log(10_000) * torch.arange(128, dtype=torch.float64) / 128)
    waves = torch.cat([torch.cos(sigma[:, None] * frequency), torch.sin(sigma[:, None] * frequency)], -1)
    inner = F.silu(F.linear(waves, state["sigma_map.mlp.0.weight"], state["sigma_map.mlp.0.bias"]))
    c = F.silu(F.linear(inner, state["sigma_map.mlp.2.weight"], state["sigma_map.mlp.2.bias"]))
    h = state["vocab_embed.embedding"][x]
    dim, length = h.shape[-1], x.shape[1]
    width = dim // heads
    turns = 1.0 / 10_000 ** (torch.arange(0, width, 2, dtype=torch.float64) / width)
    angle = torch.arange(length, dtype=torch.float64)[:, None] * turns  # [L, width / 2]

    def normed(name):
        return F.layer_norm(h, (dim,), eps=1e-5) * state[name]

    def turned(z):
        first, second = z[..., : width // 2], z[..., width // 2 :]
        cos, sin = angle.cos()[None, :, None], angle.sin()[None, :, None]
        return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)

    depth = sum(name.endswith("attn_qkv.weight") for name in state)
    for i in range(depth):
        at = f"blocks.{i}."
        made = F.linear(c, state[at + "adaLN_modulation.weight"], state[at + "adaLN_modulation.bias"])[:, None]
        shift1, scale1, gate1, shift2, scale2, gate2 = made.chunk(6, -1)
        y = normed(at + "norm1.weight") * (1 + scale1) + shift1
        qkv = F.linear(y, state[at + "attn_qkv.weight"]).reshape(len(x), length, 3, heads, width)
        q, k, v = turned(qkv[:, :, 0]), turned(qkv[:, :, 1]), qkv[:, :, 2]
        share = torch.einsum("blhd,bmhd->bhlm", q, k).div(width**0.5).softmax(-1)
        mixed = torch.einsum("bhlm,bmhd->blhd", share, v).reshape(len(x), length, dim)
        h = h + gate1 * F.linear(mixed, state[at + "attn_out.weight"])
        y = normed(at + "norm2.weight") * (1 + scale2) + shift2
        y = F.gelu(F.linear(y, state[at + "mlp.0.weight"], state[at + "mlp.0.bias"]), approximate="tanh")
        h = h + gate2 * F.linear(y, state[at + "mlp.2.weight"], state[at + "mlp.2.bias"])
    made = F.linear(c, state["output_layer.adaLN_modulation.weight"], state["output_layer.adaLN_modulation.bias"])
    shift, scale = made[:, None].chunk(2, -1)
    y = normed("output_layer.norm_final.weight") * (1 + scale) + shift
    return F.linear(y, state["output_layer.linear.weight"], state["output_layer.linear.bias"])


def sedd_log_scores(state, heads, x, sigma, scale_by_sigma):
    """The official SEDD's output, [B, L, states]."""
    out = logits(state, heads, x, sigma)
    if scale_by_sigma:
        out = out - torch.expm1(sigma.double()).log()[:, None, None] - math.log(out.shape[-1] - 1)
    return out.scatter(-1, x[..., None], 0.0)
