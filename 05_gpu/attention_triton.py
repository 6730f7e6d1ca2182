"""Attention in one kernel: softmax(Q K^T / sqrt(D)) V, and the (T, T) matrix of scores never leaves the chip.

Run:         python attention_triton.py       checks itself against torch in float64 (no GPU: in Triton's interpreter)
Use:         from attention_triton import attention; y = attention(q, k, v, causal=True)

Letters:     B batch, H heads, T time (tokens), D head width; BLOCK_M queries of one program, BLOCK_N keys of one step.

Idea:        written the plain way, attention stores T * T scores for each head, reads them for the softmax, stores them
             again and reads them again for the product with V. Here a program keeps BLOCK_M queries, walks along the
             keys BLOCK_N at a time and keeps only what is needed to finish: for each query the largest score so far
             (top), the sum of exponentials (total) and the weighted sum of values (out). When a larger score turns up,
             what was summed so far is scaled down to match it; at the end, out / total is the softmax exactly.
Bytes:       Q, K, V read and the output written: 4 B H T D elements, besides K and V read again from L2 for each block
             of queries. The plain way adds at least 4 B H T T for the scores.

What it leaves out: the backward pass (training uses torch's attention), a KV cache (T new tokens against S old ones),
dropout, a loop without masks for the blocks below the diagonal, and what Hopper adds (tensor descriptors, warp roles).
Source: Dao et al. 2022 (FlashAttention), arXiv:2205.14135, algorithm 1; Milakov and Gimelshein 2018 (online softmax),
arXiv:1805.02867.
"""

import math
import os
from typing import Any

import torch
from torch import Tensor

if __name__ == "__main__" and not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")             # Triton reads this once, when a kernel is defined
try:
    import triton
    import triton.language as tl
    from triton import knobs
except ImportError as error:
    raise ImportError("attention_triton needs the package triton, which exists for Linux only: pip install triton. "
                      "Everywhere else use torch.nn.functional.scaled_dot_product_attention.") from error

INTERPRETED = knobs.runtime.interpret                          # kernels run as NumPy on the CPU, slow but the same
HEAD_WIDTHS = (16, 32, 64, 128)
TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
# The largest relative error that rounding explains: bf16 keeps 8 significant bits, fp16 11, fp32 24.
TOLERANCE = {"bf16": 1e-2, "fp16": 1e-3, "fp32": 1e-6}


@triton.jit
def _dot(a, b, out, WIDEN: tl.constexpr):
    # The interpreter of Triton 3.6 to 3.9 multiplies the bits of bf16 numbers as if they were integers. As float32 it
    # gets the same exact products that a tensor core does.
    if WIDEN:
        a, b = a.to(tl.float32), b.to(tl.float32)
    # Tensor cores take 11 bits of a float32's 24 (TF32). tf32x3 splits each number into two such parts and adds three
    # products, for float32's accuracy without leaving the tensor cores. 16-bit types are not affected.
    return tl.dot(a, b, out, input_precision="tf32x3")


@triton.jit
def _attention_kernel(Q, K, V, Out, q_strides, k_strides, v_strides, out_strides, H, T, scale,
                      CAUSAL: tl.constexpr, WIDEN: tl.constexpr, D: tl.constexpr,
                      BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    # One program: BLOCK_M queries of one head. In a causal head the last queries have the most keys: start them first.
    blocks = tl.cdiv(T, BLOCK_M)
    head = tl.program_id(0) // blocks
    first = (blocks - 1 - tl.program_id(0) % blocks) * BLOCK_M
    b, h = (head // H).to(tl.int64), (head % H).to(tl.int64)   # int64: a tensor may have more than 2^31 elements

    m = first + tl.arange(0, BLOCK_M)                          # positions of the queries
    n = tl.arange(0, BLOCK_N)                                  # positions of the keys of the first step
    d = tl.arange(0, D)
    m_offsets, n_offsets = m[:, None].to(tl.int64), n[:, None].to(tl.int64)
    q_at = Q + b * q_strides[0] + h * q_strides[1] + m_offsets * q_strides[2] + d[None, :] * q_strides[3]
    k_at = K + b * k_strides[0] + h * k_strides[1] + n_offsets * k_strides[2] + d[None, :] * k_strides[3]
    v_at = V + b * v_strides[0] + h * v_strides[1] + n_offsets * v_strides[2] + d[None, :] * v_strides[3]
    q = tl.load(q_at, mask=m[:, None] < T, other=0.0)          # (BLOCK_M, D)

    top = tl.full((BLOCK_M,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_M,), tl.float32)
    out = tl.zeros((BLOCK_M, D), tl.float32)
    end = tl.minimum(first + BLOCK_M, T) if CAUSAL else T      # a causal block needs no keys after its last query
    step = tl.full((), BLOCK_N, tl.int64)                      # so that step * stride is not cut to 32 bits
    for start in range(0, end, BLOCK_N):
        here = start + n
        k = tl.load(k_at, mask=here[:, None] < T, other=0.0)   # (BLOCK_N, D)
        scores = _dot(q, tl.trans(k), None, WIDEN) * scale              # (BLOCK_M, BLOCK_N)
        seen = here[None, :] < T
        if CAUSAL:
            seen = seen & (here[None, :] <= m[:, None])
        scores = tl.where(seen, scores, float("-inf"))
        # The first step shows each query at least key 0, so the new top is finite and no -inf - -inf (NaN) arises.
        new_top = tl.maximum(top, tl.max(scores, 1))           # (BLOCK_M,)
        shrink = tl.exp2(top - new_top)                        # 0 in the first step
        weights = tl.exp2(scores - new_top[:, None])           # (BLOCK_M, BLOCK_N), 0 where nothing is seen
        total = total * shrink + tl.sum(weights, 1)
        v = tl.load(v_at, mask=here[:, None] < T, other=0.0)   # (BLOCK_N, D)
        out = _dot(weights.to(v.dtype), v, out * shrink[:, None], WIDEN)     # (BLOCK_M, D)
        top = new_top
        k_at += step * k_strides[2]
        v_at += step * v_strides[2]

    out_at = Out + b * out_strides[0] + h * out_strides[1] + m_offsets * out_strides[2] + d[None, :] * out_strides[3]
    tl.store(out_at, (out / total[:, None]).to(Out.dtype.element_ty), mask=m[:, None] < T)


def _tuning(dtype: torch.dtype, D: int) -> dict[str, int]:
    """Block sizes, warps of a program and loads in flight. They change the speed, not the result.

    Who changes them should run the tests on a GPU (-m gpu): Triton 3.6 also took 8 warps for float32 blocks of 64 x 16
    with D = 128, and on an H200 that kernel made an illegal memory access.
    """
    if dtype == torch.float32:                                 # twice the bytes an element, and two parts of each
        M, N, warps, stages = (64, 32, 4, 2) if D <= 64 else (64, 16, 4, 2)
    else:
        M, N, warps, stages = 64, 64, 4, 3
    return {"BLOCK_M": M, "BLOCK_N": N, "num_warps": warps, "num_stages": stages}


def attention(q: Tensor, k: Tensor, v: Tensor, causal: bool = True) -> Tensor:
    """softmax(q k^T / sqrt(D)) v for q, k, v of one shape (B, H, T, D), any strides -> (B, H, T, D), contiguous.

    causal: token t sees the tokens 0 to t; otherwise every token sees all T.
    Sums are float32 for every type; the weights are rounded to the type of v before they meet v.

    Raises ValueError for a shape, type or device it cannot do, RuntimeError where a gradient would be lost.
    """
    if q.dim() != 4 or q.shape != k.shape or q.shape != v.shape:
        raise ValueError("q, k and v must have one shape (batch, heads, tokens, head width), not "
                         f"{tuple(q.shape)}, {tuple(k.shape)} and {tuple(v.shape)}")
    if q.dtype not in TYPES.values() or k.dtype != q.dtype or v.dtype != q.dtype:
        raise ValueError(f"q, k and v must all be float32, float16 or bfloat16, not {q.dtype}, {k.dtype} and {v.dtype}")
    if q.device != k.device or q.device != v.device:
        raise ValueError(f"q, k and v must be on one device, not {q.device}, {k.device} and {v.device}")
    if q.device.type != "cuda" and not INTERPRETED:
        raise ValueError(f"a Triton kernel runs on a CUDA device, not on {q.device}; to run it on the CPU, slowly, set "
                         "TRITON_INTERPRET=1 before Python imports triton")
    B, H, T, D = q.shape
    if D not in HEAD_WIDTHS:
        raise ValueError(f"the head width must be one of {HEAD_WIDTHS}, not {D}")
    if torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad):
        raise RuntimeError("this kernel has no backward pass: call it under torch.no_grad(), or train with "
                           "torch.nn.functional.scaled_dot_product_attention")
    out = torch.empty_like(q, memory_format=torch.contiguous_format)                                 # (B, H, T, D)
    if out.numel() == 0:
        return out
    tuning = _tuning(q.dtype, D)
    # exp2 is one instruction and exp is not, so the scores are scaled to powers of two: e^x = 2^(x log2 e).
    scale = math.log2(math.e) / math.sqrt(D)
    launch: Any = _attention_kernel[triton.cdiv(T, tuning["BLOCK_M"]) * B * H,]                      # one program each
    with torch.cuda.device_of(q):                              # Triton launches on the current GPU: make it q's
        launch(q, k, v, out, q.stride(), k.stride(), v.stride(), out.stride(), H, T, scale, D=D, CAUSAL=causal,
               WIDEN=INTERPRETED and q.dtype == torch.bfloat16, **tuning)
    return out


def reference(q: Tensor, k: Tensor, v: Tensor, causal: bool = True) -> Tensor:
    """The same in float64, by the definition: (B, H, T, D) -> (B, H, T, D). One head at a time, for long T."""
    B, H, T, D = q.shape
    out = torch.empty(B, H, T, D, dtype=torch.float64, device=q.device)
    future = torch.ones(T, T, dtype=torch.bool, device=q.device).triu(1)                             # (T, T)
    for b in range(B):
        for h in range(H):
            scores = q[b, h].double() @ k[b, h].double().T / math.sqrt(D)                            # (T, T)
            if causal:
                scores.masked_fill_(future, float("-inf"))
            out[b, h] = scores.softmax(-1) @ v[b, h].double()
    return out


def relative_error(got: Tensor, want: Tensor) -> float:
    """||got - want|| / ||want||; NaN when got holds one."""
    return ((got.double() - want).norm() / want.norm()).item()


def main() -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    print(f"attention against torch float64, on {torch.cuda.get_device_name() if device == 'cuda' else 'the CPU'}"
          f"{', in the Triton interpreter' if INTERPRETED else ''}\n")
    torch.manual_seed(1)
    wrong = 0
    for T, D in ((1, 16), (23, 64), (129, 32), (200, 128)):
        for name, dtype in TYPES.items():
            for causal in (True, False):
                q, k, v = (torch.randn(2, 3, T, D, device=device).to(dtype) for _ in range(3))
                error = relative_error(attention(q, k, v, causal), reference(q, k, v, causal))
                right = error <= TOLERANCE[name]
                wrong += not right
                print(f"B 2  H 3  T {T:<4} D {D:<4} {name}  {'causal' if causal else 'full  '}  "
                      f"error {error:.1e} (at most {TOLERANCE[name]:.0e})  {'PASS' if right else 'FAIL'}")
    if wrong:
        raise SystemExit(f"\n{wrong} of the results are wrong")


if __name__ == "__main__":
    main()
