"""Makes .venv and installs the requirements; does nothing when that is already done.

Run:         python3 scripts/setup.py              what the demo needs
             python3 scripts/setup.py --dev        and what the tests need

Only the standard library is used, and nothing newer than Python 3.6, so that an old Python can say that it is too old.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VENV = os.path.join(ROOT, ".venv")
PYTHON = os.path.join(VENV, "bin", "python")
STAMP = os.path.join(VENV, "installed.sha256")
CPU_INDEX = "https://download.pytorch.org/whl/cpu"             # PyTorch's own builds without CUDA
NEEDED_GB = 3


def fail(message):
    """Stop with a message that says what to do."""
    sys.exit("setup: " + message)


def check_machine():
    """Python's version, the venv module and the free disk, before anything is written."""
    if sys.version_info < (3, 11):
        fail("Python 3.11 or newer is needed, this is %d.%d. Install one and run  make PYTHON=python3.11 demo"
             % sys.version_info[:2])
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        fail("this Python has no venv module. On Debian and Ubuntu:  sudo apt install python3-venv")
    free = shutil.disk_usage(ROOT).free / 1e9
    if free < NEEDED_GB and not os.path.exists(STAMP):
        fail("only %.1f GB are free here; the installation needs about %d GB" % (free, NEEDED_GB))


def wanted_stamp(files):
    """A hash of everything that decides what is installed."""
    digest = hashlib.sha256(sys.version.encode())
    for name in [*files, "pyproject.toml"]:
        with open(os.path.join(ROOT, name), "rb") as file:
            digest.update(file.read())
    return digest.hexdigest()


def has_nvidia_gpu():
    """Whether the driver's tool is there and lists a GPU."""
    tool = shutil.which("nvidia-smi")
    return bool(tool) and subprocess.run([tool, "-L"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0


def cpu_index_reachable():
    """Whether PyTorch's index of CPU builds answers within three seconds."""
    try:
        with urllib.request.urlopen(CPU_INDEX + "/torch/", timeout=3):
            return True
    except (OSError, urllib.error.URLError):
        return False


def main():
    parser = argparse.ArgumentParser(description="Make .venv and install the requirements.")
    parser.add_argument("--dev", action="store_true", help="also what the tests need")
    args = parser.parse_args()
    files = ["requirements.txt"] + (["requirements-dev.txt"] if args.dev else [])
    stamp = wanted_stamp(files)
    have = open(STAMP).read().split() if os.path.exists(STAMP) else []
    if stamp in have:
        return
    check_machine()
    if not os.path.exists(PYTHON):
        print("setup: making .venv", flush=True)
        if subprocess.call([sys.executable, "-m", "venv", VENV]) != 0:
            fail("python -m venv failed; on Debian and Ubuntu:  sudo apt install python3-venv")
    command = [PYTHON, "-m", "pip", "install", "--progress-bar", "on" if sys.stdout.isatty() else "off", "-r", files[-1]]
    if sys.platform == "linux" and not has_nvidia_gpu():
        if cpu_index_reachable():
            command += ["--extra-index-url", CPU_INDEX]
        else:
            print("setup: PyTorch's index of CPU builds does not answer; pip takes the build it finds", flush=True)
    print("setup: installing %s (once; a few minutes)" % files[-1], flush=True)
    if not sys.stdout.isatty():
        command += ["--quiet"]
    if subprocess.call(command, cwd=ROOT) != 0:
        free = shutil.disk_usage(ROOT).free / 1e9
        fail("pip failed, see above%s" % (" (only %.1f GB are free)" % free if free < 1 else ""))
    # The larger set holds the smaller one.
    stamps = [stamp] if not args.dev else [stamp, wanted_stamp(["requirements.txt"])]
    with open(STAMP, "w") as file:
        file.write("\n".join(stamps) + "\n")


if __name__ == "__main__":
    main()
