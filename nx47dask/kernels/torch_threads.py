"""Number of threads that torch uses on a CPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["torch_threads"]


@contextmanager
def torch_threads(number: int) -> Iterator[None]:
    """Set the number of torch's threads inside a ``with`` block, and restore it afterwards.

    Blocks run in parallel; on a busy machine, torch's own threads wait for one another and are 10 times slower.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
