"""The GPT-2 transformer: token ids in, logits of the next token out. Every layer of the house runs this one class.

Run:         python inference.py "Hello, I am"      one forward pass, step by step

Letters:     B batch, T time (tokens), S tokens in the cache and new ones together, C width, H heads, D head width
             (C / H), V vocabulary, L layers.

What it leaves out: dropout (the models here see each text only a few times) and kernels of our own (05_gpu).
Source: Radford et al. 2019 (GPT-2); Vaswani et al. 2017, arXiv:1706.03762.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Cache = list[tuple[Tensor, Tensor]]                            # for each layer keys and values, each (B, H, S, D)
IGNORE = -1                                                    # a target that carries no loss


@dataclass(frozen=True)
class GPTConfig:
    """The shape of a model. n_embd must be a multiple of n_head."""

    vocab_size: int = 1024
    block_size: int = 256                                      # the most tokens it can see at once
    n_layer: int = 4
    n_head: int = 4
    n_embd: int = 128

    def __post_init__(self):
        for name, value in vars(self).items():
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, not {value!r}")
        if self.n_embd % self.n_head:
            raise ValueError(f"n_embd ({self.n_embd}) must be a multiple of n_head ({self.n_head})")


class Attention(nn.Module):
    """Causal multi-head self-attention: each token gathers from the tokens up to itself."""

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.n_head = config.n_head
        self.qkv = nn.Linear(config.n_embd, 3 * config.n_embd)
        self.proj = nn.Linear(config.n_embd, config.n_embd)

    def forward(self, x: Tensor, past: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """x (B, T, C) and the keys and values so far -> (B, T, C) and the keys and values with the new ones."""
        B, T, C = x.shape
        q, k, v = self.qkv(x).view(B, T, 3, self.n_head, C // self.n_head).permute(2, 0, 3, 1, 4)  # each (B, H, T, D)
        if past is not None:
            k = torch.cat((past[0], k), dim=2)                 # (B, H, S, D)
            v = torch.cat((past[1], v), dim=2)                 # (B, H, S, D)
        S = k.size(2)
        # New token t stands at position S - T + t and sees the positions up to its own. Without a past this is the
        # plain triangle; a single new token sees everything.
        mask = None if S == T or T == 1 else torch.ones(T, S, dtype=torch.bool, device=x.device).tril(S - T)  # (T, S)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=S == T and T > 1)      # (B, H, T, D)
        return self.proj(y.transpose(1, 2).reshape(B, T, C)), (k, v)


class Block(nn.Module):
    """One layer: attention, then a two-layer network on each token; both add to the residual stream."""

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.ln1 = nn.LayerNorm(config.n_embd)
        self.attn = Attention(config)
        self.ln2 = nn.LayerNorm(config.n_embd)
        self.fc = nn.Linear(config.n_embd, 4 * config.n_embd)
        self.proj = nn.Linear(4 * config.n_embd, config.n_embd)

    def forward(self, x: Tensor, past: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """x (B, T, C) -> (B, T, C), with the layer's keys and values."""
        x, kv = self.attend(x, past)
        return self.mlp(x), kv

    def attend(self, x: Tensor, past: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The first half: x plus what attention gathers, with the layer's keys and values."""
        attended, kv = self.attn(self.ln1(x), past)
        return x + attended, kv

    def mlp(self, x: Tensor) -> Tensor:
        """The second half: x plus the two-layer network, for each token (..., C) on its own."""
        return x + self.proj(F.gelu(self.fc(self.ln2(x)), approximate="tanh"))                       # (..., 4C) inside


class GPT(nn.Module):
    """GPT-2: token and position embeddings, L blocks, a last LayerNorm; the token embedding is also the output."""

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.config = config
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.wpe = nn.Embedding(config.block_size, config.n_embd)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.ln_f = nn.LayerNorm(config.n_embd)
        self.apply(self._init)
        # 2L projections add to the residual stream; scaling each keeps its variance from growing with depth.
        for name, weight in self.named_parameters():
            if name.endswith("proj.weight"):
                nn.init.normal_(weight, std=0.02 / math.sqrt(2 * config.n_layer))

    @staticmethod
    def _init(module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)

    def embed(self, ids: Tensor, start: int = 0) -> Tensor:
        """Token plus position embedding: ids (B, T), the first at position start -> (B, T, C).

        Raises ValueError when the context is longer than block_size.
        """
        if ids.dim() != 2:
            raise ValueError(f"ids must be (batch, time), not {tuple(ids.shape)}")
        end = start + ids.size(1)
        if end > self.config.block_size:
            raise ValueError(f"context overflow: {end} tokens, but the model sees at most {self.config.block_size}")
        return self.wte(ids) + self.wpe.weight[start:end]

    def hidden(self, ids: Tensor) -> Tensor:
        """ids (B, T) -> the final hidden states (B, T, C), before the output matrix."""
        x = self.embed(ids)                                                                          # (B, T, C)
        for block in self.blocks:
            x, _ = block(x)
        return self.ln_f(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states (..., C) -> logits (..., V), by the tied token embedding."""
        return F.linear(hidden, self.wte.weight)

    def forward(self, ids: Tensor, targets: Tensor | None = None):
        """ids (B, T) -> logits (B, T, V); with targets (B, T): (logits, mean cross-entropy in nats).

        Targets of -1 are ignored.
        """
        logits = self.logits(self.hidden(ids))                                                       # (B, T, V)
        if targets is None:
            return logits
        return logits, F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORE)

    def loss(self, ids: Tensor, targets: Tensor) -> Tensor:
        """The loss of forward(ids, targets) with less work: what comes after the last attention is done only for the
        tokens that have a target, since nobody else reads it."""
        kept = targets != IGNORE                                                                     # (B, T)
        x = self.embed(ids)                                                                          # (B, T, C)
        for block in self.blocks[:-1]:
            x, _ = block(x)
        last = self.blocks[-1]
        x = last.mlp(last.attend(x)[0][kept])                                                        # (N, C)
        return F.cross_entropy(self.logits(self.ln_f(x)), targets[kept])                             # logits (N, V)

    @torch.no_grad()
    def step(self, ids: Tensor, cache: Cache | None = None) -> tuple[Tensor, Cache]:
        """The forward pass with a memory: new ids (B, T), cache of what came before -> logits (B, T, V), new cache.

        Gives the logits that forward would give for the same tokens at once, but computes only the new ones. The cache
        that was passed in stays as it is. Raises ValueError when the context is longer than block_size.
        """
        x = self.embed(ids, start=cache[0][0].size(2) if cache else 0)                               # (B, T, C)
        grown: Cache = []
        for i, block in enumerate(self.blocks):
            x, kv = block(x, cache[i] if cache else None)
            grown.append(kv)
        return self.logits(self.ln_f(x)), grown

    def n_params(self) -> int:
        """Number of parameters; the tied matrix counts once."""
        return sum(p.numel() for p in self.parameters())
