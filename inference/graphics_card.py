"""A network on a graphics card: half precision, replayed as one graph, and never without the processor behind it.

The processor's float32 answer is the reference. A card is believed after it answered the first study like the
processor, as long as it answers numbers; a study for which it has no memory is answered by the processor, and a card
that fails is not asked again.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from typing import Final

import torch
from torch import Tensor, nn

Answer = tuple[Tensor, Tensor]
"""(B, 2, K, J, I) logits of total fluid and of endolymph's share, and (B,) log of the ratio's standard error."""

Turn = Callable[[], AbstractContextManager[bool]]
"""To be held while a card is asked; gives whether it is ours."""

RATIO_BOUND: Final = 0.001
"""Largest difference of an ear's EH ratio from the processor's: what no change for speed may exceed. Half precision,
computed on a processor, changed the ratios of four synthetic ears by at most 0.00003, bfloat16 by 0.0007."""

NEEDED_BYTES: Final = 2**30
"""Free memory from which the network is brought onto a card. Reckoned, not measured: 5 MB of weights and 0.1 GB of
features for two ears, the rest for what convolutions are rearranged in."""

EARS: Final = 2
"""Of one pass; a recorded graph has one size."""

WARM_UPS: Final = 3
"""Passes before a graph is recorded, in which the libraries choose their algorithms and take their memory."""


def alone() -> AbstractContextManager[bool]:
    """The turn of whoever shares the card with nobody."""
    return nullcontext(True)


class GraphicsCard:
    """Answers like `network`, on `device` as far as that is possible.

    Parameters
    ----------
    network
        The reference, on the processor, without batch normalizations (`networks.folding`).
    device
        Where its copy in half precision lives, made once, with the first study.
    tell
        Gets a sentence each time the processor steps in.
    turn
        Held while the card is asked; gives False where others who share the card did not let go of it in time.
    free_bytes
        Memory that is free on the device; None asks CUDA.
    """

    def __init__(
        self,
        network: nn.Module,
        device: torch.device,
        *,
        tell: Callable[[str], None],
        turn: Turn = alone,
        free_bytes: Callable[[], int] | None = None,
    ) -> None:
        self._network = network
        self._device = device
        self._tell = tell
        self._turn = turn
        self._free_bytes = free_bytes or (lambda: torch.cuda.mem_get_info(device)[0])
        self._copy: Callable[[Tensor], Answer] | None = None
        self._believed = False
        self._given_up = False

    def __call__(self, images: Tensor) -> Answer:
        """Answer to (B, C, K, J, I) float32 images on the processor; float32, on the processor."""
        answer = None if self._given_up else self._ask_in_turn(images)
        if answer is not None and self._believed and bool(answer[0].isfinite().all() and answer[1].isfinite().all()):
            return answer
        reference: Answer = self._network(images)
        if answer is not None:
            self._compare(answer, reference)
        return reference

    def _ask_in_turn(self, images: Tensor) -> Answer | None:
        with self._turn() as mine:
            if mine:
                return self._ask(images)
        self._tell("others hold it for too long; the processor computes this study")
        return None

    def _ask(self, images: Tensor) -> Answer | None:
        """The card's answer, or None with a sentence why there is none."""
        try:
            if self._copy is None and (free := self._free_bytes()) < NEEDED_BYTES:
                self._tell(f"{free / 2**20:.0f} MiB free, {NEEDED_BYTES / 2**20:.0f} needed; the processor computes")
                return None
            return self._pairs(images)
        except torch.OutOfMemoryError:
            trouble, lasting = "it ran out of memory; the processor computes this study", False
        except RuntimeError as error:  # torch's only class for what a driver, a library or a kernel reports
            trouble, lasting = f"{error}; the processor computes from now on", True
        # Outside of `except`: the exception holds the frames that hold the memory.
        self._leave(for_good=lasting)
        self._tell(trouble)
        return None

    def _pairs(self, images: Tensor) -> Answer:
        """Two ears at a time; of an odd number the last is looked at twice."""
        wanted = len(images)
        padded = torch.cat([images, images[-1:]]) if wanted % EARS else images
        parts = [self._answer(pair) for pair in torch.split(padded, EARS)]
        return torch.cat([logits for logits, _ in parts])[:wanted], torch.cat([log_sd for _, log_sd in parts])[:wanted]

    def _answer(self, pair: Tensor) -> Answer:
        halves = pair.to(self._device, torch.float16, memory_format=torch.channels_last_3d)
        if self._copy is None:
            network = half_precision(self._network, self._device)
            self._copy = _Replayed(network, halves) if self._device.type == "cuda" else network
        logits, log_sd = self._copy(halves)
        return logits.to("cpu", torch.float32), log_sd.to("cpu", torch.float32)

    def _compare(self, answer: Answer, reference: Answer) -> None:
        """Believe the card from now on, or never ask it again."""
        difference = float((eh_ratios(answer[0]) - eh_ratios(reference[0])).abs().max())
        self._believed = difference <= RATIO_BOUND  # False also where it answered no number
        if not self._believed:
            self._leave(for_good=True)
            self._tell(
                f"its EH ratio differs by {difference:.4f} from the processor's, at most {RATIO_BOUND} is allowed; "
                "the processor computes from now on"
            )

    def _leave(self, *, for_good: bool) -> None:
        self._copy = None
        self._given_up = for_good
        if self._device.type == "cuda" and not for_good:
            torch.cuda.empty_cache()


def half_precision(network: nn.Module, device: torch.device) -> nn.Module:
    """A copy on `device` whose convolutions compute in float16; dense layers stay float32, they cost nothing."""
    copy = deepcopy(network).to(device)
    for part in copy.modules():
        if isinstance(part, nn.Conv3d | nn.ConvTranspose3d):
            part.to(torch.float16)
    return copy


def eh_ratios(logits: Tensor) -> Tensor:
    """(B,) endolymph over total fluid of each ear's whole grid; 0 without fluid."""
    total, share = torch.sigmoid(logits.float()).unbind(dim=1)
    fluid = total * (total >= 0.01)  # below, rounding of an empty voxel
    return (fluid * share).sum(dim=(1, 2, 3)) / fluid.sum(dim=(1, 2, 3)).clamp(min=1e-6)


class _Replayed:
    """A network's kernels recorded once as a CUDA graph: one launch instead of some fifty, and no memory per study."""

    def __init__(self, network: nn.Module, example: Tensor) -> None:
        self._images = example.clone()
        stream = torch.cuda.Stream(example.device)  # type: ignore[no-untyped-call]  # its stub lacks types
        stream.wait_stream(torch.cuda.current_stream(example.device))
        with torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                network(self._images)
        torch.cuda.current_stream(example.device).wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._answer: Answer = network(self._images)

    def __call__(self, images: Tensor) -> Answer:
        self._images.copy_(images)
        self._graph.replay()
        return self._answer
