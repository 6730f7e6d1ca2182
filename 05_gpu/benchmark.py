"""Builds, checks and times everything in this folder on the GPU of this machine, and writes the results as JSON.

Run:         python benchmark.py               about a minute on an H200; without a GPU it shows the committed results
Needs:       nvcc on the PATH (else the matmul kernels are left out), torch with CUDA, triton

How it times: CUDA events around one call, after three to warm up, the median of the repeats; before each call 512 MiB
are overwritten, more than any L2 cache, so inputs come from device memory. harness.cuh does the same for the .cu files.
How it checks: every implementation, torch's too, against float64: ||got - want|| / ||want||. A wrong result of ours
makes the exit code 1.

Letters:     M, N, K: C (M, N) = A (M, K) * B (K, N); B batch, H heads, T tokens, D head width.

What it leaves out: clocks and power (nothing is pinned: the card is measured as it is), backward passes, other vendors.
"""

import argparse
import datetime
import json
import math
import platform
import re
import shutil
import subprocess
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

HERE = Path(__file__).resolve().parent
RESULTS = HERE.parent / "reports" / "results"
KERNELS = ("matmul_naive", "matmul_tiled")
FLUSH_BYTES = 512 * 2**20

# The query "What is 1234 plus 5678?" has 23 characters, so at most 23 tokens. The first row of each table is what GPT-2
# (124 M) does with them: the first product of a block's network (768 -> 3072), and the attention of its 12 heads.
MATMULS = [(23, 3072, 768), (1024, 1024, 1024), (2047, 2049, 2051), (2048, 2048, 2048), (4096, 4096, 4096),
           (8192, 8192, 8192)]                                 # (M, N, K)
ATTENTIONS = [("bf16", True, 1, 12, 23, 64), ("bf16", True, 4, 16, 1024, 64), ("bf16", True, 4, 16, 4096, 64),
              ("bf16", False, 4, 16, 4096, 64), ("bf16", True, 4, 16, 4096, 128), ("bf16", True, 1, 16, 16384, 128),
              ("fp16", True, 4, 16, 4096, 64), ("fp32", True, 4, 16, 1024, 64)]
BACKENDS = {"sdpa flash": SDPBackend.FLASH_ATTENTION, "sdpa cudnn": SDPBackend.CUDNN_ATTENTION,
            "sdpa efficient": SDPBackend.EFFICIENT_ATTENTION}


def machine_name(device: str) -> str:
    """A file name from the name of a GPU: "NVIDIA H200" -> "h200", "NVIDIA GeForce RTX 4090" -> "rtx-4090"."""
    words = re.findall(r"[a-z0-9]+", device.lower())
    return "-".join(word for word in words if word not in ("nvidia", "geforce")) or "gpu"


def matmul_flops(M: int, N: int, K: int) -> int:
    """A multiply and an add for each of the M N K terms."""
    return 2 * M * N * K


def attention_flops(causal: bool, B: int, H: int, T: int, D: int) -> int:
    """Two products of 2 D operations for each pair of query and key that is seen; the softmax is not counted."""
    pairs = T * (T + 1) // 2 if causal else T * T
    return 4 * D * pairs * B * H


def time_ms(call: Callable[[], object], repeats: int) -> list[float]:
    """Milliseconds of each repeat of call() on the GPU, with a cold L2 cache."""
    scratch = torch.empty(FLUSH_BYTES, dtype=torch.int8, device="cuda")
    times = []
    for i in range(-3, repeats):
        start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        scratch.zero_()                                        # also hides the time that Python takes to queue the call
        start.record()
        call()
        stop.record()
        stop.synchronize()
        if i >= 0:
            times.append(start.elapsed_time(stop))
    return times


def measured(times: list[float], flops: int, error: float, tolerance: float) -> dict:
    ms = median(times)
    return {"median_ms": round(ms, 6), "tflops": round(flops / ms / 1e9, 4),
            "relative_error": float(f"{error:.3e}") if math.isfinite(error) else None, "tolerance": tolerance,
            "pass": error <= tolerance, "ms": [round(t, 6) for t in times]}


def build(kernel: str) -> Path:
    """Compiles one .cu file for the GPU of this machine."""
    major, minor = torch.cuda.get_device_capability()
    binary = HERE / "build" / kernel
    binary.parent.mkdir(exist_ok=True)
    subprocess.run(["nvcc", "-O3", f"-arch=sm_{major}{minor}", f"{kernel}.cu", "-o", binary], cwd=HERE, check=True)
    return binary


def measure_kernel(kernel: str, repeats: int) -> list[dict]:
    """Runs one compiled kernel over MATMULS; it checks and times itself (harness.cuh)."""
    sizes = [argument for M, N, K in MATMULS for argument in ("--size", f"{M}x{N}x{K}")]
    process = subprocess.run([build(kernel), "--json", "--repeats", str(repeats), *sizes], text=True,
                             stdout=subprocess.PIPE)
    if process.returncode not in (0, 1):                       # 1 is a wrong result, which is in the lines
        raise SystemExit(f"{kernel} stopped with exit code {process.returncode}; its message is above")
    return [json.loads(line) for line in process.stdout.splitlines()]


def measure_cublas(repeats: int) -> list[dict]:
    """torch.matmul, which calls cuBLAS, in fp32, with TF32 allowed, and in bf16."""
    rows = []
    for M, N, K in MATMULS:
        for name, precision, dtype, tolerance in (("cublas fp32", "highest", torch.float32, 1e-5),
                                                  ("cublas tf32", "high", torch.float32, 1e-3),
                                                  ("cublas bf16", "highest", torch.bfloat16, 1e-2)):
            torch.set_float32_matmul_precision(precision)
            a = (torch.rand(M, K, device="cuda") * 2 - 1).to(dtype)
            b = (torch.rand(K, N, device="cuda") * 2 - 1).to(dtype)
            want = a.double() @ b.double()
            error = ((torch.matmul(a, b).double() - want).norm() / want.norm()).item()
            del want
            times = time_ms(partial(torch.matmul, a, b), repeats)
            rows.append({"kernel": name, "M": M, "N": N, "K": K,
                         **measured(times, matmul_flops(M, N, K), error, tolerance)})
    torch.set_float32_matmul_precision("highest")
    return rows


def unfused(q: Tensor, k: Tensor, v: Tensor, future: Tensor | None) -> Tensor:
    """Attention in five steps, each through device memory: q, k, v (B, H, T, D) -> (B, H, T, D)."""
    scores = q @ k.transpose(2, 3) / math.sqrt(q.size(3))      # (B, H, T, T)
    if future is not None:
        scores = scores.masked_fill(future, float("-inf"))
    return scores.softmax(-1) @ v


def measure_attention(repeats: int) -> list[dict]:
    """Our Triton kernel, the unfused way and each backend of torch's SDPA that takes the shape."""
    from attention_triton import TOLERANCE, TYPES, attention, reference, relative_error

    rows = []
    for name, causal, B, H, T, D in ATTENTIONS:
        q, k, v = (torch.randn(B, H, T, D, device="cuda").to(TYPES[name]) for _ in range(3))
        want = reference(q, k, v, causal)
        future = torch.ones(T, T, dtype=torch.bool, device="cuda").triu(1) if causal else None
        calls = {"triton": partial(attention, q, k, v, causal),
                 "unfused": partial(unfused, q, k, v, future)}
        calls |= {backend: partial(F.scaled_dot_product_attention, q, k, v, is_causal=causal) for backend in BACKENDS}
        for implementation, call in calls.items():
            row = {"implementation": implementation, "dtype": name, "causal": causal, "B": B, "H": H, "T": T, "D": D}
            try:
                with warnings.catch_warnings(), sdpa_kernel(BACKENDS.get(implementation, SDPBackend.MATH)):
                    warnings.simplefilter("ignore")            # torch says of each backend why it does not fit
                    error = relative_error(call(), want)
                    times = time_ms(call, repeats)
                row |= measured(times, attention_flops(causal, B, H, T, D), error, TOLERANCE[name])
            except RuntimeError as problem:                    # out of memory, or a backend without this type
                if implementation == "triton":
                    raise
                row["unavailable"] = str(problem).splitlines()[0]
            rows.append(row)
    return rows


def measure_copy(repeats: int) -> dict:
    """Memory bandwidth as a plain copy of 1 GiB reaches it: bytes read and bytes written, each second."""
    source = torch.randint(0, 255, (2**30,), dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    times = time_ms(partial(target.copy_, source), repeats)
    return {"bytes": 2 * source.numel(), "gb_s": round(2 * source.numel() / median(times) / 1e6, 1),
            "ms": [round(t, 6) for t in times]}


def describe_machine() -> dict:
    """What the GPU and the software say of themselves."""
    gpu = torch.cuda.get_device_properties(0)
    nvcc = subprocess.run(["nvcc", "--version"], capture_output=True, text=True).stdout if shutil.which("nvcc") else ""
    release = re.search(r"release ([\d.]+)", nvcc)
    try:
        import triton
        triton_version = triton.__version__
    except ImportError:
        triton_version = None
    return {"device": gpu.name, "compute_capability": f"{gpu.major}.{gpu.minor}",
            "multiprocessors": gpu.multi_processor_count, "registers_kb": gpu.regs_per_multiprocessor * 4 // 1024,
            "shared_memory_kb": gpu.shared_memory_per_multiprocessor // 1024, "l2_mb": round(gpu.L2_cache_size / 2**20),
            "memory_gb": round(gpu.total_memory / 2**30),
            "versions": {"python": platform.python_version(), "torch": torch.__version__, "cuda": torch.version.cuda,
                         "nvcc": release[1] if release else None, "triton": triton_version}}


def compact(results: dict) -> str:
    """JSON with one measurement a line, so that a diff of two files can be read."""
    lines = []
    for key, value in results.items():
        rows = isinstance(value, list) and value
        text = "[\n  " + ",\n  ".join(map(json.dumps, value)) + "]" if rows else json.dumps(value)
        lines.append(f" {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def text_number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def show(results: dict) -> None:
    """Prints the tables of one results file."""
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    print(f"{results['device']}, {results['date']}: {versions}; {results['repeats']} repeats")
    print(f"a plain copy moves {results['copy']['gb_s']:.0f} GB/s (read and written)\n")
    line = "{:<14} {:>5} {:>5} {:>5} {:>11} {:>9} {:>10} {:>9}  {}"
    print(line.format("matmul", "M", "N", "K", "ms", "TFLOPS", "of cuBLAS", "error", ""))
    fp32 = {(r["M"], r["N"], r["K"]): r["tflops"] for r in results["matmul"] if r["kernel"] == "cublas fp32"}
    for r in sorted(results["matmul"], key=lambda r: (r["M"] * r["N"] * r["K"], r["M"])):
        share = f"{r['tflops'] / fp32[r['M'], r['N'], r['K']]:.0%}"
        print(line.format(r["kernel"], r["M"], r["N"], r["K"], f"{r['median_ms']:.4f}", f"{r['tflops']:.2f}", share,
                          text_number(r["relative_error"], ".1e"), "" if r["pass"] else "FAIL"))
    line = "{:<14} {:<4} {:<6} {:>2} {:>3} {:>6} {:>4} {:>10} {:>8} {:>9} {:>9}  {}"
    print("\n" + line.format("attention", "", "", "B", "H", "T", "D", "ms", "TFLOPS", "of sdpa", "error", ""))
    shape = ("dtype", "causal", "B", "H", "T", "D")
    for r in results["attention"]:
        labels = [r["implementation"], r["dtype"], "causal" if r["causal"] else "full", r["B"], r["H"], r["T"], r["D"]]
        if "unavailable" in r:
            print(line.format(*labels, "-", "-", "-", "-", r["unavailable"][:60]))
            continue
        best = min((o["median_ms"] for o in results["attention"] if all(o[s] == r[s] for s in shape)
                    and o["implementation"].startswith("sdpa") and o.get("pass")), default=None)
        print(line.format(*labels, f"{r['median_ms']:.4f}", f"{r['tflops']:.1f}",
                          text_number(best and best / r["median_ms"], ".0%"), text_number(r["relative_error"], ".1e"),
                          "" if r["pass"] else "FAIL"))


def show_committed() -> None:
    """Without a GPU: says so, and prints what was measured elsewhere."""
    print("No CUDA device here: nothing is measured. Results that were measured on other machines:\n")
    files = sorted(RESULTS.glob("gpu-*.json"))
    for file in files:
        show(json.loads(file.read_text()))
    if not files:
        print(f"none yet (no gpu-*.json in {RESULTS.relative_to(HERE.parent)})")


def main() -> None:
    parser = argparse.ArgumentParser(description="Builds, checks and times the kernels of this folder on the GPU here.")
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="DIR",
                        help="folder for gpu-<machine>.json (default: reports/results)")
    parser.add_argument("--machine", metavar="NAME", help="name of this machine (default: from the GPU's name)")
    parser.add_argument("--repeats", type=int, default=20, metavar="R",
                        help="timed calls of each, after 3 to warm up (default: 20)")
    args = parser.parse_args()
    if args.repeats < 1:
        parser.error(f"--repeats must be at least 1, not {args.repeats}")
    if not torch.cuda.is_available():
        return show_committed()

    torch.manual_seed(1)
    described = describe_machine()
    machine = args.machine or machine_name(described["device"])
    results = {"machine": machine, **described, "date": datetime.date.today().isoformat(),
               "command": f"python benchmark.py --repeats {args.repeats}", "repeats": args.repeats,
               "timing": f"CUDA events, 3 calls to warm up, median; {FLUSH_BYTES // 2**20} MiB overwritten before each "
                         "call (cold L2)", "skipped": []}
    results["copy"] = measure_copy(args.repeats)
    results["matmul"] = measure_cublas(args.repeats)
    if described["versions"]["nvcc"]:
        for kernel in KERNELS:
            print(f"building, checking and timing {kernel} ...", flush=True)
            results["matmul"] += measure_kernel(kernel, args.repeats)
    else:
        results["skipped"].append("the .cu kernels: no nvcc on the PATH (it comes with the CUDA toolkit)")
    if described["versions"]["triton"]:
        print("checking and timing attention ...\n", flush=True)
        results["attention"] = measure_attention(args.repeats)
    else:
        results["attention"] = []
        results["skipped"].append("attention: the package triton is not installed (pip install triton)")

    show(results)
    for reason in results["skipped"]:
        print(f"left out: {reason}")
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / f"gpu-{machine}.json"
    unfinished = path.with_suffix(".partial")
    unfinished.write_text(compact(results))
    unfinished.replace(path)
    print(f"\nwrote {path.name}")
    ours = [r for r in results["matmul"] if r["kernel"] in KERNELS]
    ours += [r for r in results["attention"] if r["implementation"] == "triton"]
    wrong = sum(not r["pass"] for r in ours)
    if wrong:
        raise SystemExit(f"{wrong} results of our kernels are wrong (FAIL above)")


if __name__ == "__main__":
    main()
