"""The whole chain: train what is not trained yet, start the model server and the web app, print the address.

Run:         make demo                (or: .venv/bin/python scripts/demo.py --help)

Ctrl-C stops both servers; during training it saves the state, and the next run goes on from there.
"""

import argparse
import contextlib
import errno
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# GNU's OpenMP lets threads that wait for each other spin almost for ever. Beside another busy program that makes training
# several times slower; a short spin, then sleep, costs nothing alone.
ENVIRONMENT = {"GOMP_SPINCOUNT": "10000", **os.environ}
# Each stage: what it does, its folder, its scripts, the file that says it is done.
STAGES = [
    ("Stage 1 of 3: pretraining, the model reads the corpus", "00_train", ["prepare.py", "train.py"], "out/base.pt"),
    ("Stage 2 of 3: instruction tuning, it learns that a question wants an answer", "00b_sft", ["train.py"], "out/sft.pt"),
    ("Stage 3 of 3: agent tuning, it learns to think, to use tools and to copy what it has never seen", "00c_agent_sft",
     ["build_data.py", "train.py"], "out/agent.pt"),
]


def fail(message: str) -> None:
    """Stop with a message that says what to do."""
    raise SystemExit(f"demo: {message}")


def check_port(port: int, what: str, option: str) -> None:
    """Refuse a port that somebody else uses, before any work is done."""
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind(("127.0.0.1", port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            fail(f"port {port}, for the {what}, is taken. Is another demo running? Stop it, or choose another port: "
                 f"make demo {option}=...")


def train() -> None:
    """Run every stage whose checkpoint is missing, or older than the one it starts from."""
    newest = 0.0
    for title, folder, scripts, result in STAGES:
        path = ROOT / folder / result
        if path.exists() and path.stat().st_mtime >= newest:
            newest = path.stat().st_mtime
            continue
        print(f"\n{title}", flush=True)
        for script in scripts:
            arguments = ["--resume"] if script == "train.py" else []
            status = subprocess.call([sys.executable, script, *arguments], cwd=ROOT / folder, env=ENVIRONMENT)
            if status in (130, -signal.SIGINT):
                fail("stopped; the state is saved, and  make demo  goes on from there")
            if status:
                fail(f"{folder}/{script} ended with status {status}, see above")
        newest = path.stat().st_mtime


def wait_for(url: str, process: subprocess.Popen, what: str) -> None:
    """Wait until a server answers."""
    for _ in range(600):
        if process.poll() is not None:
            fail(f"the {what} ended with status {process.returncode}, see above")
        with contextlib.suppress(urllib.error.URLError, OSError):
            with urllib.request.urlopen(url, timeout=2):
                return
        time.sleep(0.1)
    fail(f"the {what} does not answer at {url}")


def stop(processes: list[subprocess.Popen]) -> None:
    """Ask the servers to end, and end them if they do not."""
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
    for process in processes:
        try:
            process.wait(8)
        except subprocess.TimeoutExpired:
            process.kill()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model-port", type=int, default=9000, help="port of the model server (default: %(default)s)")
    parser.add_argument("--web-port", type=int, default=8000, help="port of the web app (default: %(default)s)")
    parser.add_argument("--train-only", action="store_true", help="train and stop")
    args = parser.parse_args()
    started = time.perf_counter()
    if not args.train_only:
        check_port(args.model_port, "model server", "MODEL_PORT")
        check_port(args.web_port, "web app", "WEB_PORT")
    try:
        train()
    except KeyboardInterrupt:
        fail("stopped; the state is saved, and  make demo  goes on from there")
    if args.train_only:
        return
    model_url = f"http://127.0.0.1:{args.model_port}"
    environment = {**ENVIRONMENT, "MODEL_PATH": str(ROOT / STAGES[-1][1] / STAGES[-1][3]),
                   "MODEL_URL": model_url, "AGENT_MODE": "1"}
    # The servers get a session of their own, so that Ctrl-C reaches this script alone and it stops them in order.
    commands = [("model server", [sys.executable, "03_model/server.py", "--port", str(args.model_port)], f"{model_url}/health"),
                ("web app", [sys.executable, "-m", "uvicorn", "01_app.backend.main:app", "--port", str(args.web_port),
                             "--log-level", "warning"], f"http://127.0.0.1:{args.web_port}/health")]
    processes: list[subprocess.Popen] = []
    signal.signal(signal.SIGINT, signal.default_int_handler)   # also where the shell that started us ignores it
    signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
    try:
        for _, command, _ in commands:
            processes.append(subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True))
        for (what, _, url), process in zip(commands, processes, strict=True):
            wait_for(url, process, what)
        print(f"\nReady after {time.perf_counter() - started:.0f} s:  http://localhost:{args.web_port}\n"
              f'Try:  What is 1234 plus 5678?\nCtrl-C stops it.', flush=True)
        while all(process.poll() is None for process in processes):
            time.sleep(0.5)
        fail("a server ended by itself, see above")
    except KeyboardInterrupt:
        print("\nstopping", flush=True)
    finally:
        stop(processes)


if __name__ == "__main__":
    main()
