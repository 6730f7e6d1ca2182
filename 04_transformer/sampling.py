"""From logits to the next token: temperature, top-k, top-p; and the plain loop that generates text.

Use:         sample(logits, temperature=0.8, top_k=50, top_p=0.95, generator=rng)   one token id
             generate(model, bpe, ids, max_tokens=50)                               text, all at once
"""

import torch
from torch import Tensor

from bpe import BPE
from model import GPT


def sample(logits: Tensor, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0,
           generator: torch.Generator | None = None) -> int:
    """One token id drawn from logits (V,).

    temperature: 0 takes the most likely token; below 1 sharpens, above 1 flattens the distribution.
    top_k:       keep the k most likely tokens; 0 keeps all.
    top_p:       keep the fewest most likely tokens whose probabilities sum to at least p (Holtzman et al. 2019).
    """
    if temperature == 0:
        return int(logits.argmax())
    logits = (logits.float() - logits.max()) / temperature     # at most 0: no temperature is too low
    ordered, ids = logits.sort(descending=True)                # (V,)
    kept = torch.ones_like(ordered, dtype=torch.bool)
    if top_k:
        kept[top_k:] = False
    if top_p < 1:
        before = ordered.softmax(-1).cumsum(-1) - ordered.softmax(-1)
        kept &= before < top_p
        kept[0] = True                                         # also with top_p = 0
    probabilities = ordered.masked_fill(~kept, -torch.inf).softmax(-1)
    return int(ids[torch.multinomial(probabilities, 1, generator=generator)])


def generate(model: GPT, bpe: BPE, ids: list[int], max_tokens: int = 100, temperature: float = 0.8, top_k: int = 0,
             top_p: float = 1.0, seed: int | None = None, stop_at_end: bool = False) -> str:
    """Continue token ids and return all of the text.

    The context slides when it is full: the oldest half is dropped and the rest computed again. Raises ValueError when
    there is nothing to continue.
    """
    if not ids:
        raise ValueError("there is no token to continue; give the text a beginning")
    device, block = model.wte.weight.device, model.config.block_size
    rng = torch.Generator().manual_seed(seed) if seed is not None else None
    ids, cache, new = list(ids), None, list(ids)[-block:]
    for _ in range(max_tokens):
        if cache and cache[0][0].size(2) + len(new) > block:
            cache, new = None, ids[-max(1, block // 2):]
        logits, cache = model.step(torch.tensor([new], device=device), cache)
        token = sample(logits[0, -1].cpu(), temperature, top_k, top_p, rng)
        if stop_at_end and token == bpe.end_of_text:
            break
        ids.append(token)
        new = [token]
    return bpe.decode(ids)
