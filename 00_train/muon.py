"""Muon: momentum whose update is made orthogonal, for the hidden matrices; AdamW takes the rest.

Use:         optimizers(model, lr=4e-3, muon_lr=0.02)      the pair that the trainer steps together

A weight matrix's gradient is dominated by a few directions. Muon replaces the momentum matrix M = U S V^T by about U V^T,
so that every direction moves equally far. The orthogonalisation is a Newton-Schulz iteration: matrix products only.
On the small models here it reaches in minutes on a CPU what AdamW alone does not.

Source: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"; the coefficients are from there.
torch.optim.Muon does the same in bfloat16, which is slow on a CPU; this one keeps the weights' own type.
"""

from collections import defaultdict

import torch
from torch import Tensor, nn


def orthogonalize(m: Tensor, steps: int = 5) -> Tensor:
    """(N, R, C) -> (N, R, C): each matrix with its singular values moved close to 1 (between about 0.7 and 1.2)."""
    a, b, c = 3.4445, -4.7750, 2.0315                          # a quintic a s + b s^3 + c s^5 that pulls s towards 1
    tall = m.size(1) > m.size(2)
    x = m.mT if tall else m
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)          # all singular values at most 1
    for _ in range(steps):
        gram = x @ x.mT                                        # (N, R, R)
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Muon over a list of 2-D weights. Matrices of one shape are orthogonalised together, in one batched product.

    A weight of shape (3C, C) is taken as the three square matrices of queries, keys and values.
    """

    def __init__(self, params, lr: float = 0.02, momentum: float = 0.95):
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure=None):
        """One update of every weight that has a gradient."""
        for group in self.param_groups:
            by_shape: dict[tuple, list[tuple[Tensor, Tensor]]] = defaultdict(list)
            for p in group["params"]:
                if p.grad is None:
                    continue
                momentum = self.state[p].setdefault("momentum", torch.zeros_like(p))
                momentum.lerp_(p.grad, 1 - group["momentum"])
                update = p.grad.lerp(momentum, group["momentum"])                      # Nesterov: look one step ahead
                parts = 3 if p.size(0) == 3 * p.size(1) else 1
                by_shape[p.size(0) // parts, p.size(1)] += zip(p.chunk(parts), update.chunk(parts), strict=True)
            for (rows, columns), pairs in by_shape.items():
                updates = orthogonalize(torch.stack([update for _, update in pairs]))  # (N, R, C)
                scale = max(1.0, rows / columns) ** 0.5
                torch._foreach_add_([p for p, _ in pairs], list(updates), alpha=-group["lr"] * scale)


def optimizers(model: nn.Module, lr: float, muon_lr: float | None) -> list[torch.optim.Optimizer]:
    """The optimizers of a model: Muon for the matrices inside the blocks and AdamW for embeddings, gains and biases;
    AdamW for everything when muon_lr is None.

    lr and muon_lr are the peak learning rates; each group keeps its own under "peak" for the schedule.
    """
    hidden = [p for name, p in model.named_parameters() if p.dim() == 2 and "blocks" in name]
    if muon_lr is None:
        decay = [p for p in model.parameters() if p.dim() == 2]
        groups = [{"params": decay, "weight_decay": 0.1},
                  {"params": [p for p in model.parameters() if p.dim() != 2], "weight_decay": 0.0}]
        found = [torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.95), fused=True)]
    else:
        matrices = {id(p) for p in hidden}
        rest = [p for p in model.parameters() if id(p) not in matrices]
        found = [torch.optim.AdamW(rest, lr=lr, betas=(0.9, 0.95), weight_decay=0.0, fused=True),
                 Muon(hidden, lr=muon_lr)]
    for optimizer in found:
        for group in optimizer.param_groups:
            group["peak"] = group["lr"]
    return found
