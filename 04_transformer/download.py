"""Public files that are not bundled: a local copy that a setting names, else the cache, else a host or its mirror.

Use:         fetch("tinyshakespeare.txt", local="/data")   -> the path of a file whose sha256 is right

A download goes on where it was broken off, is checked against its sha256 and appears under its name only when whole.

What it leaves out: parallel parts; hosts that need a login.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

HUB = "https://huggingface.co"
HUB_MIRROR = "https://hf-mirror.com"                           # for regions that cannot reach the hub
GPT2 = "openai-community/gpt2/resolve/main"
DECIDE = 3.0                                                   # seconds until a host that does not answer is given up


@dataclass(frozen=True)
class Source:
    """Where a file comes from: its addresses in the order to try, its sha256, the setting that names a local folder."""

    urls: tuple[str, ...]
    sha256: str
    setting: str


SOURCES = {
    "tinyshakespeare.txt": Source(
        ("https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",),
        "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed", "TINYSHAKESPEARE_DIR"),
    "gpt2/encoder.json": Source(
        ("https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/encoder.json",
         f"{HUB}/{GPT2}/vocab.json", f"{HUB_MIRROR}/{GPT2}/vocab.json"),
        "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783", "GPT2_VOCAB_DIR"),
    "gpt2/vocab.bpe": Source(
        ("https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/vocab.bpe",
         f"{HUB}/{GPT2}/merges.txt", f"{HUB_MIRROR}/{GPT2}/merges.txt"),
        "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5", "GPT2_VOCAB_DIR"),
    "gpt2/model.safetensors": Source(
        (f"{HUB}/{GPT2}/model.safetensors", f"{HUB_MIRROR}/{GPT2}/model.safetensors"),
        "248dfc3911869ec493c76e65bf2fcf7f615828b0254c12b473182f0f81d3a707", "GPT2_WEIGHTS_DIR"),
}


def cache_dir() -> Path:
    """Where downloads are kept: the setting QUERY_TO_FLOP_CACHE, else ~/.cache/query-to-flop."""
    return Path(os.environ.get("QUERY_TO_FLOP_CACHE") or Path.home() / ".cache" / "query-to-flop")


def sha256_of(path: Path) -> str:
    """The file's sha256 in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch(name: str, local: str | Path | None = None) -> Path:
    """The path of a file named in SOURCES.

    local: a folder that holds the file under its own name; used without any check of the cache or the network.
    Without it the source's setting (an environment variable) is asked. Raises FileNotFoundError when a local folder
    lacks the file, ConnectionError when no host gave it, each saying where it was looked for and which setting helps.
    """
    source = SOURCES[name]
    local = local or os.environ.get(source.setting)
    if local:
        path = Path(local) / Path(name).name
        if not path.is_file():
            raise FileNotFoundError(f"{source.setting} names {local}, but {path} does not exist")
        return path
    path = cache_dir() / name
    if path.is_file():
        return path
    problems = []
    for url in source.urls:
        try:
            return _download(url, path, source.sha256)
        except (OSError, ValueError) as error:
            if path.is_file():                                 # another process fetched it meanwhile
                return path
            problems.append(f"  {url}: {error}")
    advice = f"With a copy on this machine, set {source.setting} to the folder that holds {Path(name).name}."
    raise ConnectionError("\n".join([f"{name} could not be downloaded:", *problems, advice]))


def _download(url: str, path: Path, sha256: str) -> Path:
    """One file from one address, resumed if it was begun. Raises OSError or ValueError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    while True:
        resumed = _receive(url, partial)
        found = sha256_of(partial)
        if found == sha256:
            os.replace(partial, path)
            return path
        partial.unlink()
        if not resumed:                                        # else its beginning was bad (another host's?): again
            raise ValueError(f"sha256 {found} where {sha256} was expected; the download is thrown away")


def _receive(url: str, partial: Path) -> bool:
    """Get what is missing of a partial file; whether there was a beginning to go on from. Raises OSError."""
    import httpx
    from tqdm import tqdm
    have = partial.stat().st_size if partial.exists() else 0
    # Not compressed: a place in the file and a place in what is sent must be the same.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    timeout = httpx.Timeout(30.0, connect=DECIDE)
    try:
        with httpx.stream("GET", url, headers=headers, timeout=timeout, follow_redirects=True) as response:
            if response.status_code == 416 and have:           # nothing left to send
                return True
            if response.status_code not in (200, 206):
                raise OSError(f"the host answered {response.status_code}")
            appending = response.status_code == 206
            if appending and not response.headers.get("content-range", "").startswith(f"bytes {have}-"):
                raise OSError(f"the host sent another part of the file than bytes {have} and up")
            left = int(response.headers.get("content-length", 0))
            with open(partial, "ab" if appending else "wb") as file, \
                    tqdm(total=left or None, unit="B", unit_scale=True, desc=partial.stem) as bar:
                for chunk in response.iter_bytes():            # as it comes: all that arrived before a break is kept
                    file.write(chunk)
                    bar.update(len(chunk))
            return appending and have > 0
    except httpx.HTTPError as error:
        raise OSError(f"{type(error).__name__}: {error}") from error
