"""Batches of rows: each row is a text of its own from position 0, as instruction and agent tuning want it.

Use:         Rows([(ids, targets), ...], batch_rows=32, seed=1).batch(step)
"""

import random

import torch

from model import IGNORE
from trainer import Batch


def pad_batch(rows: list[tuple[list[int], list[int]]]) -> Batch:
    """Rows of (ids, targets) of different lengths -> (B, T) tensors, padded on the right to the longest.

    A padded place has id 0 and target -1; attention is causal, so it changes nothing to its left.
    """
    longest = max(len(ids) for ids, _ in rows)
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    targets = torch.full((len(rows), longest), IGNORE)
    for i, (row, wanted) in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
        targets[i, : len(row)] = torch.tensor(wanted)
    return ids, targets


class Rows:
    """Batches of rows, each row a text of its own from position 0. Rows of like length go together, so little is padded.

    Which rows make batch n is a function of the seed and n alone: every epoch shuffles anew, sorts neighbourhoods by
    length, cuts them into batches and shuffles those.
    """

    NEIGHBOURHOOD = 50                                         # batches that are sorted by length together

    def __init__(self, rows: list[tuple[list[int], list[int]]], batch_rows: int, seed: int):
        if len(rows) < batch_rows:
            raise ValueError(f"{len(rows)} rows are too few for batches of {batch_rows}")
        self.rows, self.batch_rows, self.seed = rows, batch_rows, seed
        self.per_epoch = len(rows) // batch_rows
        self._epoch, self._batches = -1, []

    def batch(self, step: int) -> Batch:
        """ids and targets (B, T) of one step, padded on the right."""
        epoch, place = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            self._epoch, self._batches = epoch, self._cut(epoch)
        return pad_batch([self.rows[i] for i in self._batches[place]])

    def _cut(self, epoch: int) -> list[list[int]]:
        rng = random.Random(f"{self.seed}/{epoch}")
        order = list(range(len(self.rows)))
        rng.shuffle(order)
        order = order[: self.per_epoch * self.batch_rows]
        batches, span = [], self.batch_rows * self.NEIGHBOURHOOD
        for start in range(0, len(order), span):
            near = sorted(order[start : start + span], key=lambda i: len(self.rows[i][0]))
            batches += [near[i : i + self.batch_rows] for i in range(0, len(near), self.batch_rows)]
        rng.shuffle(batches)
        return batches
