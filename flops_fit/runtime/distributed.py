"""The processes that train each trial together, and what they tell each other.

`torchrun` and `accelerate launch` start one script several times. A process's rank says which of
them it is, the world size how many there are. Rank 0 leads: it alone claims trials, writes to the
stores and prints; the others train what it announces. Words go from host to host (gloo), so that
none waits for a device; gradients go over the device's own backend. In a single process every
function here is a plain call.
"""

from __future__ import annotations

import atexit
import datetime
import logging
import math
import os
import pickle
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import cloudpickle
import torch
import torch.distributed as dist

from flops_fit.errors import FlopsFitWarning, LostRankError, RankError

TIMEOUT = "FLOPS_FIT_TIMEOUT"
TIMEOUT_S = 600.0
_ADDRESS = ("RANK", "MASTER_ADDR", "MASTER_PORT")
_T = TypeVar("_T")
_meeting: tuple[Any, Any] = (None, None)  # the world that was joined, and its group for words


def launched() -> tuple[int, int]:
    """This process's rank and the world size, as it was launched; (0, 1) for a single process."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    size = int(os.environ.get("WORLD_SIZE", "1"))
    return (int(os.environ.get("RANK", "0")) if size > 1 else 0), size


def count() -> int:
    """Ranks that have met; 1 for a process by itself."""
    return dist.get_world_size() if _met() else 1


def rank() -> int:
    """This process among the ranks that have met; 0 for a process by itself."""
    return dist.get_rank() if _met() else 0


def _met() -> bool:
    return _meeting[0] is not None and dist.is_initialized()


def launch_faults() -> list[str]:
    """What keeps this process from joining the others of its launch."""
    problems = []
    size = launched()[1]
    missing = [key for key in _ADDRESS if key not in os.environ]
    if size > 1 and missing and not dist.is_initialized():
        problems.append(
            f"WORLD_SIZE={size} says that several processes train together, but "
            f"{', '.join(missing)} is not set: start the script by torchrun or accelerate launch, "
            "or unset WORLD_SIZE"
        )
    try:
        timeout()
    except ValueError as error:
        problems.append(str(error))
    return problems


def join() -> None:
    """Meet the other ranks.

    Raises:
        LostRankError: They do not come within the timeout.
    """
    global _meeting
    if launched()[1] == 1 or (dist.is_initialized() and _meeting[0] is dist.group.WORLD):
        return
    with _reaching():
        if not dist.is_initialized():
            dist.init_process_group(timeout=timeout())
            atexit.register(_part)
        words = dist.new_group(backend="gloo", timeout=timeout())
    _meeting = dist.group.WORLD, words


def _part() -> None:
    """End the threads of gloo, which abort an interpreter that ends before them."""
    global _meeting
    _meeting = None, None
    if dist.is_initialized():
        dist.destroy_process_group()


def timeout() -> datetime.timedelta:
    """How long one waits for another rank, or for a store, that is silent."""
    text = os.environ.get(TIMEOUT, str(TIMEOUT_S))
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < 1e9:
        raise ValueError(f"{TIMEOUT}: expected seconds above 0, got {text!r}")
    return datetime.timedelta(seconds=seconds)


def let_main_speak() -> None:
    """On other ranks than 0: say no more what rank 0 says too."""
    if launched()[0]:
        logging.getLogger("flops_fit").setLevel(logging.ERROR)
        warnings.simplefilter("ignore", FlopsFitWarning)


def broadcast(value: _T) -> _T:
    """Rank 0's value, on every rank.

    Raises:
        LostRankError: A rank is gone, or silent beyond the timeout.
    """
    if count() == 1:
        return value
    held = [cloudpickle.dumps(value) if rank() == 0 else b""]
    with _reaching():
        dist.broadcast_object_list(held, src=0, group=_meeting[1])
    return value if rank() == 0 else pickle.loads(held[0])  # from our own rank 0


def from_main(call: Callable[[], _T]) -> _T:
    """What `call` returns on rank 0, on every rank; what it raises there is raised on all.

    Raises:
        LostRankError: A rank is gone, or silent beyond the timeout.
    """
    if count() == 1:
        return call()
    value: Any = None
    error: BaseException | None = None
    if rank() == 0:
        try:
            value = call()
        except LostRankError:
            raise
        except BaseException as found:
            error = found
    value, told = broadcast((value, None if error is None else portable(error)))
    if told is not None:
        raise error or told
    return value


def gather(value: _T) -> list[_T]:
    """Every rank's value, in their order, on every rank.

    Raises:
        LostRankError: A rank is gone, or silent beyond the timeout.
    """
    values: list[Any] = [value] * count()
    if count() > 1:
        with _reaching():
            dist.all_gather_object(values, value, group=_meeting[1])
    return values


def most(*values: int) -> list[int]:
    """The largest of each value over the ranks, on every rank: how all agree on what comes next.

    Raises:
        LostRankError: A rank is gone, or silent beyond the timeout.
    """
    if count() == 1:
        return list(values)
    largest = torch.tensor(values, device="cpu")
    with _reaching():
        dist.all_reduce(largest, dist.ReduceOp.MAX, group=_meeting[1])
    return largest.tolist()


def joint_error(error: Exception | None, out_of_memory: bool = False) -> Exception:
    """What a rank raises once some have failed: its own error, or what the others say of theirs.

    Where all that failed ran out of memory, every rank gets such an error; else none does.
    """
    text = "" if error is None else f"{type(error).__name__}: {error}"
    told = gather((text, out_of_memory))
    if error is not None and out_of_memory == all(short for said, short in told if said):
        return error
    shown = "; ".join(f"rank {k}: {said}" for k, (said, _) in enumerate(told) if said)
    short = all(short for said, short in told if said)
    return torch.OutOfMemoryError(shown) if short else RankError(shown)


@contextmanager
def together() -> Iterator[None]:
    """Within, no rank talks to another; if one raises, all do.

    Raises:
        RankError: On the ranks where nothing went wrong.
        LostRankError: A rank is gone, or silent beyond the timeout.
    """
    error = None
    try:
        yield
    except Exception as found:
        error = found
    (failed,) = most(error is not None)
    if failed:
        raise joint_error(error)


def copy_from_main(tensors: Iterable[torch.Tensor]) -> None:
    """Give tensors rank 0's values.

    Raises:
        LostRankError: A rank is gone, or silent beyond the timeout.
    """
    if count() == 1:
        return
    with torch.no_grad(), _reaching():
        for tensor in tensors:
            whole = tensor.detach().contiguous()
            dist.broadcast(whole, src=0)
            tensor.copy_(whole)


def gradient_sum(
    loss: torch.Tensor, parameters: Sequence[torch.nn.Parameter]
) -> Callable[[], torch.Tensor]:
    """Prepare to sum the loss and the gradients over the ranks.

    All memory is taken here. The call that is returned sends, leaves the sums on the parameters,
    and gives that of the loss. A parameter without a gradient on any rank stays without.

    Raises:
        LostRankError: By that call, if a rank is gone, or silent beyond the timeout.
    """
    wanted = [p for p in parameters if p.requires_grad]
    absent = [k for k, p in enumerate(wanted) if p.grad is None]
    head = torch.ones(1 + len(wanted), device=loss.device)
    head[0] = loss
    for k in absent:
        head[1 + k] = 0.0
        wanted[k].grad = torch.zeros_like(wanted[k])
    groups: dict[torch.dtype, list[torch.Tensor]] = {}
    for tensor in (head, *(p.grad for p in wanted if p.grad is not None)):
        groups.setdefault(tensor.dtype, []).append(tensor)
    packed = [(torch.cat([t.reshape(-1) for t in same]), same) for same in groups.values()]

    def send() -> torch.Tensor:
        for flat, same in packed:
            with _reaching():
                dist.all_reduce(flat)
            pieces = flat.split([t.numel() for t in same])
            torch._foreach_copy_(
                same, [piece.view(t.shape) for piece, t in zip(pieces, same, strict=True)]
            )
        if absent:  # only then does the host wait for the device
            present = head.tolist()
            for k in absent:
                if not present[1 + k]:
                    wanted[k].grad = None
        return head[0]

    return send


def portable(error: BaseException) -> BaseException:
    """An error as it can be sent: itself, or its text where it does not survive the journey."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RankError(f"rank {rank()}: {type(error).__name__}: {error}")
    return error


@contextmanager
def _reaching() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # gloo's own, and the base of torch.distributed's
        own, size = launched()
        raise LostRankError(
            f"rank {own} of {size} reaches the others no more: one died, or was silent for "
            f"{timeout().total_seconds():g} s ({TIMEOUT}). What was kept is kept; start them all "
            f"again to go on ({error})"
        ) from error
