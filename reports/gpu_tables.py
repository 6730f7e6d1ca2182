"""The tables of layer 1, from the JSON that 05_gpu/benchmark.py writes.

Use:         render_gpu(json.loads(path.read_text()))
"""


def render_gpu(results: dict) -> str:
    """The tables of one reports/results/gpu-<machine>.json as markdown."""
    def number(value: float) -> str:                           # three significant digits
        return f"{value:,.0f}" if value >= 99.95 else f"{value:#.3g}"

    def table(head: list[str], rows: list[list[str]], left: int) -> list[str]:
        rule = ["---"] * left + ["---:"] * (len(head) - left)
        return ["| " + " | ".join(row) + " |" for row in (head, rule, *rows)]

    gpu, versions = results, results["versions"]
    lines = [f"Measured on one {gpu['device']} ({gpu['date']}; torch {versions['torch']}, CUDA {versions['cuda']}, Triton "
             f"{versions['triton']}) by `{gpu['command']}`: {gpu['timing']}; {gpu['repeats']} repeats. Errors are relative, "
             "against float64.", ""]
    lines += table(["memory", "size", "reached by"], [
        ["registers", f"{gpu['registers_kb']} KB on each of {gpu['multiprocessors']} multiprocessors", "one thread"],
        ["shared memory", f"up to {gpu['shared_memory_kb']} KB on each multiprocessor", "the threads of one block"],
        ["L2 cache", f"{gpu['l2_mb']} MB", "every thread"],
        ["device memory", f"{gpu['memory_gb']} GB; a plain copy reads and writes {gpu['copy']['gb_s']:,.0f} GB/s together",
         "every thread"]], left=3)

    lines += ["", "**Matrix product**, C (M, N) = A (M, K) B (K, N). Share: of the fp32 product of torch, which is cuBLAS. "
              "The last three columns are torch's.", ""]
    sizes: dict[tuple, dict] = {}
    for r in results["matmul"]:
        sizes.setdefault((r["M"], r["N"], r["K"]), {})[r["kernel"]] = r
    rows = []
    for size, by_name in sorted(sizes.items(), key=lambda item: item[0][0] * item[0][1] * item[0][2]):
        row = [" x ".join(map(str, size))]
        for name in ("matmul_naive", "matmul_tiled"):
            r = by_name.get(name)
            row += ([number(r["median_ms"]), number(r["tflops"]), f"{r['tflops'] / by_name['cublas fp32']['tflops']:.0%}",
                     f"{r['relative_error']:.1e}"] if r and r["pass"] else ["-"] * 3 + ["WRONG" if r else "-"])
        row += [number(by_name[name]["tflops"]) for name in ("cublas fp32", "cublas tf32", "cublas bf16")]
        rows.append(row)
    lines += table(["M x N x K", "naive, ms", "TFLOPS", "share", "error", "tiled, ms", "TFLOPS", "share", "error",
                    "fp32, TFLOPS", "TF32, TFLOPS", "bf16, TFLOPS"], rows, left=1)

    lines += ["", "**Attention**, forward. Share: of the fastest backend of torch's scaled_dot_product_attention (SDPA) for the "
              "same row. The last column is the time of unfused PyTorch over ours.", ""]
    groups: dict[tuple, dict] = {}
    for r in results["attention"]:
        key = (r["dtype"], r["causal"], r["B"], r["H"], r["T"], r["D"])
        groups.setdefault(key, {})[r["implementation"]] = r if r.get("pass") else None
    rows = []
    for (dtype, causal, B, H, T, D), by_name in groups.items():
        ours, unfused = by_name["triton"], by_name["unfused"]
        sdpa = [r["median_ms"] for name, r in by_name.items() if name.startswith("sdpa") and r]
        rows.append([f"{dtype}, {'causal' if causal else 'full'}, B {B} H {H} T {T} D {D}",
                     *(number(by_name[name]["median_ms"]) if by_name.get(name) else "-"
                       for name in ("unfused", "sdpa efficient", "sdpa flash", "sdpa cudnn", "triton")),
                     number(ours["tflops"]) if ours else "WRONG",
                     f"{min(sdpa) / ours['median_ms']:.0%}" if ours and sdpa else "-",
                     f"{ours['relative_error']:.1e}" if ours else "-",
                     f"{unfused['median_ms'] / ours['median_ms']:.1f}x" if ours and unfused else "-"])
    lines += table(["type and shape", "unfused, ms", "SDPA efficient, ms", "SDPA flash, ms", "SDPA cuDNN, ms",
                    "ours, ms", "ours, TFLOPS", "share", "error", "over ours"], rows, left=1)
    return "\n".join(lines)
