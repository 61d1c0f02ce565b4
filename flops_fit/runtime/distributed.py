"""The processes (ranks) of a launch that train each trial together, and their communication.

`torchrun` and `accelerate launch` start one script several times: the world size is the number of
processes, the rank the number of one of them. Only rank 0 claims trials, writes to the stores and
prints; the others train what it announces. Messages between the ranks' Python code use gloo on the
host, so that they need not wait for a device; gradients use the device's own backend. In a single
process every function here is a plain call.
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
# The world that `join` has joined, and its gloo group for messages.
_meeting: tuple[Any, Any] = (None, None)


def launched() -> tuple[int, int]:
    """This process's rank and the world size of its launch; (0, 1) for a single process."""
    # The user's script may have initialised torch.distributed itself.
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    size = int(os.environ.get("WORLD_SIZE", "1"))
    return (int(os.environ.get("RANK", "0")) if size > 1 else 0), size


def count() -> int:
    """Number of ranks that have joined; 1 for a single process."""
    return dist.get_world_size() if _joined() else 1


def rank() -> int:
    """This process's rank among those that have joined; 0 for a single process."""
    return dist.get_rank() if _joined() else 0


def _joined() -> bool:
    return _meeting[0] is not None and dist.is_initialized()


def launch_faults() -> list[str]:
    """Errors in the environment that would keep this process from joining its launch."""
    problems = []
    size = launched()[1]
    missing = [key for key in _ADDRESS if key not in os.environ]
    if size > 1 and missing and not dist.is_initialized():
        problems.append(
            f"WORLD_SIZE={size} means that several processes train together, but "
            f"{', '.join(missing)} is not set: start the script with torchrun or accelerate "
            "launch, or unset WORLD_SIZE"
        )
    try:
        timeout()
    except ValueError as error:
        problems.append(str(error))
    return problems


def join() -> None:
    """Join the other ranks of the launch, once per world.

    Raises:
        LostRankError: They do not join within the timeout.
    """
    global _meeting
    if launched()[1] == 1 or (dist.is_initialized() and _meeting[0] is dist.group.WORLD):
        return
    with _reaching():
        if not dist.is_initialized():
            dist.init_process_group(timeout=timeout())
            atexit.register(_leave)
        messages = dist.new_group(backend="gloo", timeout=timeout())
    _meeting = dist.group.WORLD, messages


def _leave() -> None:
    """End the threads of gloo, which abort the interpreter if they are alive at its exit."""
    global _meeting
    _meeting = None, None
    if dist.is_initialized():
        dist.destroy_process_group()


def timeout() -> datetime.timedelta:
    """How long to wait for a rank or a store that does not answer.

    Raises:
        ValueError: `FLOPS_FIT_TIMEOUT` is not a positive number of seconds.
    """
    text = os.environ.get(TIMEOUT, str(TIMEOUT_S))
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < 1e9:
        raise ValueError(f"{TIMEOUT}: expected seconds above 0, got {text!r}")
    return datetime.timedelta(seconds=seconds)


def let_main_speak() -> None:
    """On ranks other than 0, silence the warnings and log messages that rank 0 gives too."""
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
    payload = [cloudpickle.dumps(value) if rank() == 0 else b""]
    with _reaching():
        dist.broadcast_object_list(payload, src=0, group=_meeting[1])
    return value if rank() == 0 else pickle.loads(payload[0])  # from our own rank 0


def from_main(call: Callable[[], _T]) -> _T:
    """Call a function on rank 0; return its result, or raise its error, on every rank.

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
        except LostRankError:  # the others cannot be told
            raise
        except BaseException as found:
            error = found
    value, sent_error = broadcast((value, None if error is None else portable(error)))
    if sent_error is not None:
        raise error or sent_error
    return value


def gather(value: _T) -> list[_T]:
    """The values of all ranks, in order of rank, on every rank.

    Raises:
        LostRankError: A rank is gone, or silent beyond the timeout.
    """
    values: list[Any] = [value] * count()
    if count() > 1:
        with _reaching():
            dist.all_gather_object(values, value, group=_meeting[1])
    return values


def most(*values: int) -> list[int]:
    """The largest of each value over the ranks, on every rank.

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
    """The error that this rank raises after some ranks have failed.

    Args:
        error: This rank's own error; None if it has not failed.
        out_of_memory: Whether that error is lack of memory, which a smaller micro-batch may cure.

    Returns:
        This rank's own error, or one with the text of the others' errors. It is an out-of-memory
        error on all ranks if every failed rank ran out of memory, and on none otherwise, so that
        all ranks react alike.
    """
    text = "" if error is None else f"{type(error).__name__}: {error}"
    reports = list(enumerate(gather((text, out_of_memory))))
    failed = [(k, text, memory) for k, (text, memory) in reports if text]
    all_out_of_memory = all(memory for _, _, memory in failed)
    if error is not None and out_of_memory == all_out_of_memory:
        return error
    message = "; ".join(f"rank {k}: {text}" for k, text, _ in failed)
    return torch.OutOfMemoryError(message) if all_out_of_memory else RankError(message)


@contextmanager
def together() -> Iterator[None]:
    """In this context ranks must not communicate; if one raises, all raise at its end.

    Raises:
        RankError: On the ranks that did not fail themselves.
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
    """Overwrite tensors with rank 0's values.

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

    All memory is allocated here, where running out of it can still be handled.

    Returns:
        A function that does the communication, leaves the summed gradients on the parameters, and
        returns the summed loss. A parameter that has no gradient on any rank keeps none. The
        function raises `LostRankError` if a rank is gone, or silent beyond the timeout.
    """
    wanted = [p for p in parameters if p.requires_grad]
    absent = [k for k, p in enumerate(wanted) if p.grad is None]
    # The loss, and for each parameter the number of ranks on which it has a gradient.
    head = torch.ones(1 + len(wanted), device=loss.device)
    head[0] = loss
    for k in absent:  # all ranks must send tensors of the same sizes
        head[1 + k] = 0.0
        wanted[k].grad = torch.zeros_like(wanted[k])
    # Tensors of one type are sent as one flat tensor.
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
    """The error itself if it can be pickled, else a `RankError` with its text."""
    try:
        pickle.loads(pickle.dumps(error))  # exceptions with several arguments often fail to load
    except Exception:
        return RankError(f"rank {rank()}: {type(error).__name__}: {error}")
    return error


@contextmanager
def _reaching() -> Iterator[None]:
    """Turn errors of communication into `LostRankError`."""
    try:
        yield
    except RuntimeError as error:  # gloo's own, and the base of torch.distributed's
        own_rank, size = launched()
        raise LostRankError(
            f"rank {own_rank} of {size} has lost contact with the others: one died, or was silent "
            f"for {timeout().total_seconds():g} s ({TIMEOUT}). Finished trials and checkpoints are "
            f"kept; start all ranks again to resume ({error})"
        ) from error
