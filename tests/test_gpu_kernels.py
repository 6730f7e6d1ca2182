"""The GPU layer: the Triton attention against float64, the CUDA files through the compiler, the benchmark's arithmetic.

Run:         pytest tests/test_gpu_kernels.py               no GPU: Triton's interpreter runs the kernel on the CPU
             pytest tests/test_gpu_kernels.py -m gpu        on a CUDA device: the compiled kernels, the .cu programs run

The device "cpu" stands for the interpreter; where there is a CUDA device the same tests run the compiled kernel.
"""

import json
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

# Triton decides when a kernel is defined, so this must be set before the import below.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")
pytest.importorskip("triton", reason="triton exists for Linux only")

import attention_triton
import benchmark
from attention_triton import TOLERANCE, TYPES, attention, reference, relative_error

LAYER = Path(attention_triton.__file__).parent
KERNELS = sorted(file.stem for file in LAYER.glob("*.cu"))
needs_nvcc = pytest.mark.skipif(not shutil.which("nvcc"), reason="nvcc is not installed: no .cu file is compiled")


@pytest.fixture(params=["cpu"] if attention_triton.INTERPRETED else [pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request) -> str:
    return request.param


@pytest.fixture
def cuda() -> str:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return "cuda"


def qkv(device: str, name: str, *shape: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(sum(shape))
    return [torch.randn(*shape, generator=generator).to(device, TYPES[name]) for _ in range(3)]


# attention against an oracle

def test_reference_is_torchs_attention():
    """The oracle of the tests below: a wrong mask or scale of its own would bless the same fault in the kernel."""
    q, k, v = (x.double() for x in qkv("cpu", "fp32", 2, 3, 17, 16))
    for causal in (True, False):
        torchs = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
        assert relative_error(reference(q, k, v, causal), torchs) < 1e-14


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("T", [1, 2, 31, 32, 33, 63, 64, 65, 129])
def test_any_number_of_tokens(device, T, causal):
    """Edges of blocks: a query or key dropped, counted twice or made up when no block fits T evenly."""
    q, k, v = qkv(device, "fp32", 2, 3, T, 16)
    assert relative_error(attention(q, k, v, causal), reference(q, k, v, causal)) < TOLERANCE["fp32"]


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("D", attention_triton.HEAD_WIDTHS)
def test_every_head_width_and_type(device, D, name):
    """A scale, block size or cast that fits one head width or type only. T makes a ragged last block."""
    for causal in (True, False):
        q, k, v = qkv(device, name, 1, 2, 150, D)
        out = attention(q, k, v, causal)
        assert out.dtype == q.dtype and out.shape == q.shape
        assert relative_error(out, reference(q, k, v, causal)) < TOLERANCE[name]


def test_each_element_and_not_only_the_norm(device):
    """A norm over the whole output hides one wrong row of a long sequence; a row that is never stored is one."""
    q, k, v = qkv(device, "fp32", 1, 1, 300, 16)
    torch.testing.assert_close(attention(q, k, v).double(), reference(q, k, v), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("causal", [True, False])
def test_views_of_one_projection(device, causal):
    """Strides: GPT's q, k and v are views of one (B, T, 3, H, D) tensor, never contiguous as (B, H, T, D)."""
    B, T, H, D = 2, 70, 3, 32
    qkv_together = qkv(device, "fp32", B, T, 3, H, D)[0]
    q, k, v = qkv_together.permute(2, 0, 3, 1, 4)              # each (B, H, T, D)
    assert not q.is_contiguous()
    out = attention(q, k, v, causal)
    assert out.is_contiguous()
    assert relative_error(out, reference(q, k, v, causal)) < TOLERANCE["fp32"]


def test_three_different_strides(device):
    """One tensor's strides used for another: transposed q, every second row of k, one v for all heads (stride 0)."""
    q = qkv(device, "fp32", 2, 3, 16, 40)[0].transpose(2, 3)                   # (2, 3, 40, 16)
    k = qkv(device, "fp32", 2, 3, 80, 16)[1][:, :, ::2]
    v = qkv(device, "fp32", 2, 1, 40, 16)[2].expand(2, 3, 40, 16)
    assert relative_error(attention(q, k, v), reference(q, k, v)) < TOLERANCE["fp32"]


@pytest.mark.parametrize("sign", [1, -1])
def test_large_scores(device, sign):
    """exp of a raw score: +10,000 overflows to inf / inf, -10,000 underflows to 0 / 0; both are NaN."""
    q, k, v = qkv(device, "fp32", 1, 2, 100, 16)
    q, k = torch.full_like(q, 200.0), torch.full_like(k, sign * 200.0)         # every score is 200 * 200 * 16 / 4
    mean_so_far = v.double().cumsum(2) / torch.arange(1, 101, device=device)[:, None]
    assert relative_error(attention(q, k, v), mean_so_far) < 1e-5


def test_top_score_rises_block_after_block(device):
    """The online softmax: when a later key scores higher, earlier sums must shrink, and the output with them."""
    q, k, v = qkv(device, "fp32", 1, 1, 200, 16)
    q, k = torch.ones_like(q), torch.linspace(0, 20, 200, device=device)[:, None].expand(1, 1, 200, 16)      # rising
    assert relative_error(attention(q, k, v, False), reference(q, k, v, False)) < 1e-5


def test_the_future_is_not_read(device):
    """A causal mask that is off by one, or that multiplies by zero (0 * NaN is NaN) where it should leave out."""
    q, k, v = qkv(device, "fp32", 1, 2, 100, 16)
    before = attention(q, k, v)
    for t in (1, 32, 64, 99):
        k2, v2 = k.clone(), v.clone()
        k2[:, :, t:], v2[:, :, t:] = 1e4, 1e4
        after = attention(q, k2, v2)
        assert torch.equal(after[:, :, :t], before[:, :, :t])
        assert not torch.equal(after[:, :, t], before[:, :, t])


def test_what_lies_beyond_the_end_is_not_read(device):
    """A tail block that loads past T: here NaN lies right behind each sequence."""
    padded = [torch.full((2, 2, 80, 16), math.nan, device=device) for _ in range(3)]
    q, k, v = (x[:, :, :50] for x in padded)
    for view, values in zip((q, k, v), qkv(device, "fp32", 2, 2, 50, 16), strict=True):
        view.copy_(values)
    for causal in (True, False):
        assert relative_error(attention(q, k, v, causal), reference(q, k, v, causal)) < TOLERANCE["fp32"]


def test_no_tokens_and_no_batch(device):
    """A launch of no programs is an error on a GPU; the empty answer is right."""
    for shape in ((0, 2, 5, 16), (2, 2, 0, 16)):
        q, k, v = qkv(device, "fp32", *shape)
        assert attention(q, k, v).shape == shape


@pytest.mark.gpu
def test_float32_keeps_its_digits(cuda):
    """Triton's default for float32 is TF32, one product of cut-off numbers: three digits right, where seven are due."""
    q, k, v = qkv(cuda, "fp32", 1, 2, 1024, 64)
    assert relative_error(attention(q, k, v), reference(q, k, v)) < TOLERANCE["fp32"]


@pytest.mark.gpu
def test_more_heads_than_a_grid_has_rows(cuda):
    """CUDA grids have 65,535 rows at most: a launch with heads in the second dimension fails for a large batch."""
    q, k, v = qkv(cuda, "fp32", 70_000, 1, 1, 16)
    torch.testing.assert_close(attention(q, k, v), v)          # a single token sees only itself


@pytest.mark.gpu
@pytest.mark.parametrize(("shape", "strides"), [((3, 1, 16, 16), (2**30, 256, 16, 1)),
                                                ((1, 1, 65, 16), (0, 0, 2**25, 1))])
def test_addresses_beyond_32_bits(cuda, shape, strides):
    """Offsets in 32-bit integers: here the last sequence, or token, starts 2^31 elements in, and would wrap around."""
    if torch.cuda.get_device_properties(0).total_memory < 8 * 2**30:
        pytest.skip("needs 8 GB of GPU memory")
    x = torch.zeros(2**31 + 256, dtype=torch.float16, device=cuda).as_strided(shape, strides)
    x.copy_(qkv(cuda, "fp16", *shape)[0])
    assert relative_error(attention(x, x, x), reference(x, x, x)) < TOLERANCE["fp16"]


# what it refuses

@pytest.mark.parametrize(("change", "message"), [
    (lambda q, k, v: (q[0], k[0], v[0]), "one shape"),
    (lambda q, k, v: (q, k[:, :, :4], v[:, :, :4]), "one shape"),
    (lambda q, k, v: (q[..., :8], k[..., :8], v[..., :8]), "head width"),
    (lambda q, k, v: (q.double(), k.double(), v.double()), "float32, float16 or bfloat16"),
    (lambda q, k, v: (q, k.half(), v), "float32, float16 or bfloat16"),
    (lambda q, k, v: (q, k.to("meta"), v), "one device"),
])
def test_refuses_what_it_cannot_do(device, change, message):
    """Inputs that the kernel would read with wrong strides, types or addresses, and answer with noise."""
    q, k, v = change(*qkv(device, "fp32", 1, 1, 8, 16))
    with pytest.raises(ValueError, match=message):
        attention(q, k, v)


def test_refuses_to_lose_a_gradient(device):
    """There is no backward pass: training through the kernel would silently leave the weights before it as they are."""
    q, k, v = qkv(device, "fp32", 1, 1, 8, 16)
    with pytest.raises(RuntimeError, match="no backward"):
        attention(q, k.requires_grad_(), v)
    with torch.no_grad():
        assert torch.isfinite(attention(q, k, v)).all()


def python(code: str, **env: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **env})


def test_import_without_triton_says_what_to_do():
    """On macOS triton does not exist: the reader must learn that, and not read a traceback about a missing module."""
    result = python("import sys; sys.modules['triton'] = None; import attention_triton")
    assert "attention_triton needs the package triton" in result.stderr
    assert "scaled_dot_product_attention" in result.stderr


def test_cpu_tensors_without_the_interpreter_are_refused():
    """A compiled kernel that is given a CPU address crashes the process, or says '0 active drivers'."""
    code = "import torch, attention_triton; x = torch.ones(1, 1, 4, 16); attention_triton.attention(x, x, x)"
    result = python(code, TRITON_INTERPRET="0")
    assert "ValueError" in result.stderr and "TRITON_INTERPRET=1" in result.stderr


# the .cu files

def compile_command(kernel: str) -> list[str]:
    """The command that the head of the file gives."""
    found = re.search(r"^// Compile: +(nvcc .+?)(?:  |$)", (LAYER / f"{kernel}.cu").read_text(), re.MULTILINE)
    assert found, f"{kernel}.cu does not say how to compile it"
    return found[1].split()


@needs_nvcc
@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_compiles_and_refuses_to_run_without_a_gpu(kernel, arch, tmp_path):
    """The documented command, typed as it stands, must build without a warning; and the program without a GPU must
    fail: one that ignores CUDA's error codes would time an empty launch and print PASS."""
    *command, dash_o, name = compile_command(kernel)
    assert (dash_o, name) == ("-o", kernel) and "-arch=sm_90" in command
    command[command.index("-arch=sm_90")] = f"-arch={arch}"
    command += ["-o", str(tmp_path / kernel), "-Xcompiler=-Wall,-Wextra", "--Werror=all-warnings"]
    built = subprocess.run(command, cwd=LAYER, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr

    def run(*arguments: str, **env: str) -> subprocess.CompletedProcess:
        return subprocess.run([tmp_path / kernel, *arguments], capture_output=True, text=True,
                              env={**os.environ, **env})

    blind = run("--size", "8", CUDA_VISIBLE_DEVICES="")
    assert blind.returncode == 3 and "needs an NVIDIA GPU" in blind.stderr and "PASS" not in blind.stdout
    assert run("--help").returncode == 0 and "--size" in run("--help").stdout
    for wrong in ("--size 0", "--size 3x4", "--size 8x", "--repeats 0", "--sise 8", "--seed"):
        assert run(*wrong.split()).returncode == 2, wrong


@pytest.fixture(scope="module")
def binaries(tmp_path_factory) -> dict[str, Path]:
    """Every .cu file, and a broken kernel that leaves out the last term of the last row, built for this GPU."""
    if not torch.cuda.is_available() or not shutil.which("nvcc"):
        pytest.skip("no CUDA device, or no nvcc")
    folder = tmp_path_factory.mktemp("kernels")
    good = (LAYER / "matmul_naive.cu").read_text()
    broken = good.replace("k < K;", "k < K - (i == M - 1 && j == N - 1);")
    assert broken != good
    (folder / "broken.cu").write_text(broken)
    arch = "-arch=sm_{}{}".format(*torch.cuda.get_device_capability())
    sources = [*(LAYER / f"{kernel}.cu" for kernel in KERNELS), folder / "broken.cu"]
    for source in sources:
        subprocess.run(["nvcc", "-O3", arch, f"-I{LAYER}", source, "-o", folder / source.stem], check=True)
    return {source.stem: folder / source.stem for source in sources}


RAGGED = ["1", "1x2x3", "31x33x32", "64x1x65", "1x64x7", "127x129x255", "300x200x1"]


@pytest.mark.gpu
@pytest.mark.parametrize("kernel", KERNELS)
def test_matmul_at_every_edge(binaries, kernel):
    """Elements beyond a ragged edge read as data, or never written (the output starts as NaN)."""
    sizes = [argument for size in RAGGED for argument in ("--size", size)]
    result = subprocess.run([binaries[kernel], "--json", "--repeats", "3", *sizes], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [row["pass"] for row in rows] == [True] * len(RAGGED)
    assert all(len(row["ms"]) == 3 and min(row["ms"]) > 0 for row in rows)


@pytest.mark.gpu
@pytest.mark.parametrize("size", ["1x1x2", "100x90x80", "1500"])
def test_the_check_notices_one_missing_term(binaries, size):
    """A tolerance so wide that a wrong kernel passes. Here one element lacks one term; both references must see it."""
    result = subprocess.run([binaries["broken"], "--repeats", "1", "--size", size], capture_output=True, text=True)
    assert result.returncode == 1 and "FAIL" in result.stdout


# the benchmark

def test_attention_flops_count_the_pairs_that_are_seen():
    """TFLOPS twice too high: a causal kernel skips half of the pairs, and must not be credited with them."""
    B, H, T, D = 2, 3, 7, 16
    for causal in (True, False):
        pairs = sum(1 for query in range(T) for key in range(T) if key <= query or not causal)
        assert benchmark.attention_flops(causal, B, H, T, D) == B * H * pairs * (2 * D + 2 * D)


@pytest.mark.parametrize(("device_name", "name"), [
    ("NVIDIA H200", "h200"), ("NVIDIA GeForce RTX 4090", "rtx-4090"), ("NVIDIA A100-SXM4-80GB", "a100-sxm4-80gb"),
    ("../../x", "x"), ("", "gpu"),
])
def test_machine_names_are_file_names(device_name, name):
    """Results of two machines in one file, or a file outside the folder."""
    assert benchmark.machine_name(device_name) == name


def example_results() -> dict:
    size = {"M": 2, "N": 2, "K": 2}
    shape = {"dtype": "bf16", "causal": True, "B": 1, "H": 1, "T": 8, "D": 16}
    times, measured = [0.5, 0.25, 0.3], benchmark.measured
    return {
        "machine": "x", "device": "Example GPU", "date": "2026-01-02", "repeats": 3, "skipped": [],
        "versions": {"torch": "1"}, "copy": {"gb_s": 4000.0, "ms": times},
        "matmul": [{"kernel": "cublas fp32", **size, **measured(times, 10**9, 1e-7, 1e-6)},
                   {"kernel": "matmul_naive", **size, **measured(times, 10**8, math.nan, 1e-6)}],
        "attention": [{"implementation": "triton", **shape, **measured([0.4], 10**9, 1e-3, 1e-2)},
                      {"implementation": "sdpa flash", **shape, **measured([0.2], 10**9, 1e-3, 1e-2)},
                      {"implementation": "sdpa cudnn", **shape, "unavailable": "No available kernel"}]}


def test_results_survive_the_file(tmp_path, monkeypatch, capsys):
    """A file that is not JSON (NaN is not), that loses repeats, or a failure that is shown as if it were a result."""
    results = example_results()
    text = benchmark.compact(results)
    assert json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON")) == results
    assert results["matmul"][1]["pass"] is False and results["matmul"][0]["median_ms"] == 0.3
    assert results["matmul"][0]["tflops"] == pytest.approx(10**9 / 0.3e-3 / 1e12, abs=1e-4)

    (tmp_path / "gpu-x.json").write_text(text)
    monkeypatch.setattr(benchmark, "RESULTS", tmp_path)
    benchmark.show_committed()
    out = capsys.readouterr().out
    assert "No CUDA device" in out and "Example GPU" in out
    naive, triton = (next(line for line in out.splitlines() if line.startswith(name))
                     for name in ("matmul_naive", "triton"))
    assert "10%" in naive and "FAIL" in naive and "50%" in triton


def test_benchmark_without_a_gpu_measures_nothing(tmp_path):
    """On a laptop the benchmark must say so and show what was measured elsewhere, not write a table of CPU times."""
    result = subprocess.run([sys.executable, LAYER / "benchmark.py", "--out", tmp_path],
                            env={**os.environ, "CUDA_VISIBLE_DEVICES": ""}, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "No CUDA device here" in result.stdout and not list(tmp_path.iterdir())


@pytest.mark.parametrize("file", sorted(benchmark.RESULTS.glob("gpu-*.json")), ids=lambda file: file.stem)
def test_committed_results_are_whole(file):
    """A committed figure that no repeat supports, from a run that failed, or a path of the machine it came from."""
    text = file.read_text()
    results = json.loads(text)
    rows = [row for row in results["matmul"] + results["attention"] if "unavailable" not in row]
    assert file.stem == f"gpu-{results['machine']}" and not results["skipped"] and rows
    for row in rows:
        assert len(row["ms"]) == results["repeats"]
        assert row["median_ms"] == pytest.approx(benchmark.median(row["ms"]), abs=1e-6)
        flops = (benchmark.matmul_flops(row["M"], row["N"], row["K"]) if "kernel" in row else
                 benchmark.attention_flops(row["causal"], row["B"], row["H"], row["T"], row["D"]))
        assert row["tflops"] == pytest.approx(flops / row["median_ms"] / 1e9, rel=1e-3, abs=1e-3)
        assert row["pass"] is True and row["relative_error"] <= row["tolerance"]
    assert not re.search(r"/(home|work|root|tmp|mnt|usr)\b", text)
