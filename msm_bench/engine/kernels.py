# mypy: disable-error-code="no-untyped-def,untyped-decorator,import-not-found,import-untyped"
"""Triton kernels of a decode step: attention over shared prefixes and own suffixes, and the small things around it.

One decode step reads every weight and every stored key once, so it is bound by memory; what costs beside that is the
number of kernels. Attention takes four: storing the new keys, scores of all rows that share a piece of a prefix in one
product, scores of each row with its own suffix, and joining the parts by their log-sum-exp (base 2 inside). What each
program works on stands in tables in the card's memory, so that a captured graph stays valid while rows come and go.

Letters in shapes as in `attention`; I pieces of prefixes, N tokens that a piece serves at once (`piece_tokens`),
C chunks of a suffix, P pieces that one token sees.
"""

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

PIECE_KEYS = 768
SUFFIX_KEYS = 256
_ROWS = 128  # rows of a product: tokens of a piece times query heads of one key head
# Of 19 ways tried on an H100 (8B, 90 rows, three prompts) 768 keys, four warps and three stages were the quickest (.8 ms a
# step); with two stages (1.2 ms) a piece also fits the shared memory of smaller cards.
_PIECE = {"KEYS": 64, "num_warps": 4, "num_stages": 2}
_LOG2E = 1.4426950408889634


def piece_tokens(group: int) -> int:
    """How many tokens one piece of a prefix serves, with `group` query heads a key head."""
    return max(1, _ROWS // group)


@triton.jit
def _piece(
    q, q_token, q_head, keys, values, shape, tokens, out, lse, scale,
    HEADS: tl.constexpr, GROUP: tl.constexpr, WIDTH: tl.constexpr, WIDE: tl.constexpr, SERVED: tl.constexpr,
    ROWS: tl.constexpr, KEYS: tl.constexpr, PRECISION: tl.constexpr, ALIGNED: tl.constexpr,
):  # fmt: skip
    item, kv_head = tl.program_id(0), tl.program_id(1)
    count = tl.load(shape + item * 2)
    if count == 0:
        return
    # An address from a table says nothing of its alignment, and without that every load would fetch two bytes.
    stride = tl.multiple_of(tl.load(shape + item * 2 + 1), ALIGNED)
    key_at = tl.multiple_of(tl.load(keys + item).to(q.dtype), 16) + kv_head * stride
    value_at = tl.multiple_of(tl.load(values + item).to(q.dtype), 16) + kv_head * stride
    row = tl.arange(0, ROWS)
    place, head = row // GROUP, kv_head * GROUP + row % GROUP
    token = tl.load(tokens + item * SERVED + place, mask=place < SERVED, other=-1)
    there = token >= 0
    wide = tl.arange(0, WIDE)
    inside = wide < WIDTH
    query_at = q + token[:, None].to(tl.int64) * q_token + head[:, None] * q_head + wide[None, :]
    query = tl.load(query_at, mask=there[:, None] & inside[None, :], other=0.0)
    best = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    gathered = tl.zeros([ROWS, WIDE], tl.float32)
    for begin in range(0, count, KEYS):
        key = begin + tl.arange(0, KEYS)
        real = key < count
        k = tl.load(key_at + key[None, :] * WIDTH + wide[:, None], mask=real[None, :] & inside[:, None], other=0.0)
        score = tl.dot(query, k, input_precision=PRECISION) * scale
        score = tl.where(real[None, :], score, float("-inf"))
        higher = tl.maximum(best, tl.max(score, 1))
        weight = tl.exp2(score - higher[:, None])
        fade = tl.exp2(best - higher)
        total = total * fade + tl.sum(weight, 1)
        v = tl.load(value_at + key[:, None] * WIDTH + wide[None, :], mask=real[:, None] & inside[None, :], other=0.0)
        gathered = gathered * fade[:, None] + tl.dot(weight.to(v.dtype), v, input_precision=PRECISION)
        best = higher
    slot = (item * SERVED + place) * HEADS + head
    tl.store(out + slot[:, None] * WIDTH + wide[None, :], gathered / total[:, None], mask=there[:, None] & inside[None, :])
    tl.store(lse + slot, best + tl.log2(total), mask=there)


@triton.jit
def _suffix(
    q, q_token, q_head, keys, values, kv_row, kv_head_stride, lengths, out, lse, scale, CHUNKS,
    HEADS: tl.constexpr, GROUP: tl.constexpr, WIDTH: tl.constexpr, WIDE: tl.constexpr, SPAN: tl.constexpr,
    ROWS: tl.constexpr, KEYS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    token, kv_head, chunk = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    row = tl.arange(0, ROWS)
    head = kv_head * GROUP + row
    there = row < GROUP
    slot = (token * CHUNKS + chunk) * HEADS + head
    start = chunk * SPAN
    end = tl.minimum(tl.load(lengths + token).to(tl.int32) + 1, start + SPAN)
    if start >= end:
        tl.store(lse + slot, tl.full([ROWS], float("-inf"), tl.float32), mask=there)
        return
    wide = tl.arange(0, WIDE)
    inside = wide < WIDTH
    query_at = q + token.to(tl.int64) * q_token + head[:, None] * q_head + wide[None, :]
    query = tl.load(query_at, mask=there[:, None] & inside[None, :], other=0.0)
    base = token.to(tl.int64) * kv_row + kv_head * kv_head_stride
    best = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    gathered = tl.zeros([ROWS, WIDE], tl.float32)
    for begin in range(start, end, KEYS):
        key = begin + tl.arange(0, KEYS)
        real = key < end
        k = tl.load(keys + base + key[None, :] * WIDTH + wide[:, None], mask=real[None, :] & inside[:, None], other=0.0)
        score = tl.dot(query, k, input_precision=PRECISION) * scale
        score = tl.where(real[None, :], score, float("-inf"))
        higher = tl.maximum(best, tl.max(score, 1))
        weight = tl.exp2(score - higher[:, None])
        fade = tl.exp2(best - higher)
        total = total * fade + tl.sum(weight, 1)
        v = tl.load(values + base + key[:, None] * WIDTH + wide[None, :], mask=real[:, None] & inside[None, :], other=0.0)
        gathered = gathered * fade[:, None] + tl.dot(weight.to(v.dtype), v, input_precision=PRECISION)
        best = higher
    tl.store(out + slot[:, None] * WIDTH + wide[None, :], gathered / total[:, None], mask=there[:, None] & inside[None, :])
    tl.store(lse + slot, best + tl.log2(total), mask=there)


@triton.jit
def _join(
    piece_out, piece_lse, slots, own_out, own_lse, out,
    PIECES: tl.constexpr, CHUNKS: tl.constexpr, OWN: tl.constexpr,
    HEADS: tl.constexpr, WIDTH: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    token, head = tl.program_id(0), tl.program_id(1)
    wide = tl.arange(0, WIDE)
    inside = wide < WIDTH
    part = tl.arange(0, OWN)
    mine = (token * CHUNKS + part) * HEADS + head
    own = tl.load(own_lse + mine, mask=part < CHUNKS, other=float("-inf"))
    slot = tl.load(slots + token * PIECES + tl.arange(0, PIECES))
    shared_at = slot * HEADS + head
    shared = tl.load(piece_lse + shared_at, mask=slot >= 0, other=float("-inf"))
    best = tl.maximum(tl.max(own, 0), tl.max(shared, 0))
    own_weight, shared_weight = tl.exp2(own - best), tl.exp2(shared - best)
    total = tl.sum(own_weight, 0) + tl.sum(shared_weight, 0)
    used = (own > float("-inf"))[:, None] & inside[None, :]
    gathered = tl.sum(tl.load(own_out + mine[:, None] * WIDTH + wide[None, :], mask=used, other=0.0) * own_weight[:, None], 0)
    used = (slot >= 0)[:, None] & inside[None, :]
    pieces = tl.load(piece_out + shared_at[:, None] * WIDTH + wide[None, :], mask=used, other=0.0)
    gathered += tl.sum(pieces * shared_weight[:, None], 0)
    at = out + (token * HEADS + head) * WIDTH + wide
    tl.store(at, (gathered / total).to(out.dtype.element_ty), mask=inside)


@triton.jit
def _store(
    k, k_token, k_head, v, v_token, v_head, keys, values, kv_row, kv_head_stride, lengths,
    WIDTH: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    token, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    wide = tl.arange(0, WIDE)
    inside = wide < WIDTH
    at = token * kv_row + head * kv_head_stride + tl.load(lengths + token) * WIDTH + wide
    tl.store(keys + at, tl.load(k + token * k_token + head * k_head + wide, mask=inside), mask=inside)
    tl.store(values + at, tl.load(v + token * v_token + head * v_head + wide, mask=inside), mask=inside)


@triton.jit
def _rotate(
    q, q_token, q_head, k, k_token, k_head, cos, sin, q_out, k_out,
    HEADS: tl.constexpr, KV_HEADS: tl.constexpr, WIDTH: tl.constexpr, HALF: tl.constexpr,
):  # fmt: skip
    token, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    half = tl.arange(0, HALF)
    inside = half < WIDTH // 2
    first = tl.load(cos + token * WIDTH + half, mask=inside).to(tl.float32)
    second = tl.load(cos + token * WIDTH + WIDTH // 2 + half, mask=inside).to(tl.float32)
    first_sin = tl.load(sin + token * WIDTH + half, mask=inside).to(tl.float32)
    second_sin = tl.load(sin + token * WIDTH + WIDTH // 2 + half, mask=inside).to(tl.float32)
    if head < HEADS:
        source, target = q + token * q_token + head * q_head, q_out + (token * HEADS + head) * WIDTH
    else:
        source = k + token * k_token + (head - HEADS) * k_head
        target = k_out + (token * KV_HEADS + head - HEADS) * WIDTH
    low = tl.load(source + half, mask=inside).to(tl.float32)
    high = tl.load(source + WIDTH // 2 + half, mask=inside).to(tl.float32)
    tl.store(target + half, (low * first - high * first_sin).to(q_out.dtype.element_ty), mask=inside)
    tl.store(target + WIDTH // 2 + half, (high * second + low * second_sin).to(q_out.dtype.element_ty), mask=inside)


@triton.jit
def _norm(x, weight, out, eps, WIDTH: tl.constexpr, WIDE: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    wide = tl.arange(0, WIDE)
    inside = wide < WIDTH
    value = tl.load(x + row * WIDTH + wide, mask=inside, other=0.0).to(tl.float32)
    value = value * tl.rsqrt(tl.sum(value * value, 0) / WIDTH + eps)
    scaled = value.to(out.dtype.element_ty).to(tl.float32) * tl.load(weight + wide, mask=inside).to(tl.float32)
    tl.store(out + row * WIDTH + wide, scaled.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _gate(gate, gate_row, up, up_row, out, INNER, BLOCK: tl.constexpr):
    row, block = tl.program_id(0).to(tl.int64), tl.program_id(1)
    column = block * BLOCK + tl.arange(0, BLOCK)
    inside = column < INNER
    opened = tl.load(gate + row * gate_row + column, mask=inside, other=0.0).to(tl.float32)
    factor = tl.load(up + row * up_row + column, mask=inside, other=0.0).to(tl.float32)
    silu = (opened / (1 + tl.exp2(-opened * 1.4426950408889634))).to(out.dtype.element_ty).to(tl.float32)
    tl.store(out + row * INNER + column, (silu * factor).to(out.dtype.element_ty), mask=inside)


def attend(q: Tensor, k: Tensor, v: Tensor, scale: float, layer: Any) -> Tensor:
    """Attention of one new token a row; stores its key and value.

    Args:
        q: [R, H, D], last dimension dense.
        k: [R, K, D], likewise.
        v: [R, K, D], likewise.
        scale: Factor of the scores.
        layer: A `tables.LayerTables`.

    Returns:
        [R, H, D] in the dtype of `q`.
    """
    rows, heads, width = q.shape
    kv_heads = k.shape[1]
    group, wide = heads // kv_heads, triton.next_power_of_2(width)
    keys, values, tables = layer.keys, layer.values, layer.tables
    row, head_stride = keys.stride(0), keys.stride(1)
    precision = "ieee" if q.dtype == torch.float32 else "tf32"
    scale = scale * _LOG2E
    _store[(rows, kv_heads)](
        k, k.stride(0), k.stride(1), v, v.stride(0), v.stride(1), keys, values, row, head_stride, tables.lengths,
        WIDTH=width, WIDE=wide, num_warps=1,
    )  # fmt: skip
    served = piece_tokens(group)
    _piece[(tables.shape.shape[0], kv_heads)](
        q, q.stride(0), q.stride(1), layer.piece_keys, layer.piece_values, tables.shape, tables.tokens,
        tables.piece_out, tables.piece_lse, scale,
        HEADS=heads, GROUP=group, WIDTH=width, WIDE=wide, SERVED=served,
        ROWS=max(16, triton.next_power_of_2(served * group)), PRECISION=precision, ALIGNED=math.gcd(width, 16), **_PIECE,
    )  # fmt: skip
    chunks = tables.own_lse.shape[1]
    _suffix[(rows, kv_heads, chunks)](
        q, q.stride(0), q.stride(1), keys, values, row, head_stride, tables.lengths,
        tables.own_out, tables.own_lse, scale, chunks,
        HEADS=heads, GROUP=group, WIDTH=width, WIDE=wide, SPAN=SUFFIX_KEYS,
        ROWS=max(16, triton.next_power_of_2(group)), KEYS=64, PRECISION=precision, num_warps=4, num_stages=2,
    )  # fmt: skip
    out = torch.empty(rows, heads, width, dtype=q.dtype, device=q.device)
    _join[(rows, heads)](
        tables.piece_out, tables.piece_lse, tables.slots, tables.own_out, tables.own_lse, out,
        PIECES=tables.slots.shape[1], CHUNKS=chunks, OWN=triton.next_power_of_2(chunks),
        HEADS=heads, WIDTH=width, WIDE=wide, num_warps=2,
    )  # fmt: skip
    return out


def rotate(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """Rotary position encoding of q [1, H, T, D] and k [1, K, T, D] with cos and sin [1, T, D]."""
    _, heads, tokens, width = q.shape
    kv_heads = k.shape[1]
    new_q, new_k = (torch.empty(1, tokens, n, width, dtype=q.dtype, device=q.device) for n in (heads, kv_heads))
    _rotate[(tokens, heads + kv_heads)](
        q, q.stride(2), q.stride(1), k, k.stride(2), k.stride(1), cos.contiguous(), sin.contiguous(), new_q, new_k,
        HEADS=heads, KV_HEADS=kv_heads, WIDTH=width, HALF=triton.next_power_of_2(width // 2), num_warps=1,
    )  # fmt: skip
    return new_q.transpose(1, 2), new_k.transpose(1, 2)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Root-mean-square norm over the last dimension, rounded as transformers does."""
    x = x.contiguous()
    out = torch.empty_like(x)
    width = x.shape[-1]
    wide = triton.next_power_of_2(width)
    _norm[(x.numel() // width,)](x, weight, out, eps, WIDTH=width, WIDE=wide, num_warps=4 if wide <= 2048 else 8)
    return out


def gated(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up of two [1, T, n], whose rows may lie apart."""
    tokens, inner = gate.shape[-2:]
    out = torch.empty(1, tokens, inner, dtype=gate.dtype, device=gate.device)
    _gate[(tokens, triton.cdiv(inner, 1024))](gate, gate.stride(-2), up, up.stride(-2), out, inner, BLOCK=1024, num_warps=4)
    return out
