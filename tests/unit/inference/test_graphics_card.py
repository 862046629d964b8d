"""The network on a graphics card: the same numbers, and the processor behind it whatever happens.

Without a card these tests run the very same copy, in the same half precision, on the processor; trouble comes out of
the copy as torch reports it. What only a card can show (its memory, recorded graphs) is the last test's, which is
skipped where there is none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from inference.cases import InputSet
from inference.graphics_card import NEEDED_BYTES, RATIO_BOUND, GraphicsCard, eh_ratios
from inference.model_store import SHIPPED, load_model
from inference.networks import build_network
from inference.networks.folding import folded
from inference.networks.pair import PairNetwork
from inference.training.crops import draw_crop
from inference.training.scans import REALISTIC, scan
from inference.training.sources import as_fractions, centered

PROCESSOR = torch.device("cpu")

needs_half_precision = pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_fp16_supported(), reason="this processor cannot compute in half precision"
)


@pytest.fixture(scope="module")
def ears() -> Tensor:
    """(4, 4, K, J, I) scans of synthetic ears that no training drew."""
    parts = as_fractions(np.stack([centered(draw_crop(seed).parts) for seed in range(5_100_000, 5_100_004)]))
    return scan(parts, np.random.default_rng(2), within=REALISTIC, only=InputSet.PPI_PEI).images


@pytest.fixture(scope="module")
def reference() -> nn.Module:
    return folded(load_model(SHIPPED).network)


@dataclass
class Site:
    """A card on this machine's processor, what it said, and how often its copy was asked."""

    network: nn.Module
    trouble: Callable[[int], Exception | None] = lambda _asked: None
    answers: Callable[[tuple[Tensor, Tensor]], tuple[Tensor, Tensor]] = lambda answer: answer
    free: int = 4 * NEEDED_BYTES
    asked: int = 0
    told: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        # Functions, not methods: copying a network copies the objects of methods that hook it.
        self.network.register_forward_pre_hook(lambda _network, images: self._before(images))
        self.network.register_forward_hook(lambda _network, images, answer: self._after(images, answer))
        self.card = GraphicsCard(self.network, PROCESSOR, tell=self.told.append, free_bytes=lambda: self.free)

    def _before(self, images: tuple[Tensor]) -> None:
        if images[0].dtype is torch.float16:  # the copy, not the reference
            self.asked += 1
            if (trouble := self.trouble(self.asked)) is not None:
                raise trouble

    def _after(self, images: tuple[Tensor], answer: tuple[Tensor, Tensor]) -> object:
        return self.answers(answer) if images[0].dtype is torch.float16 else None

    def ask(self, images: Tensor) -> tuple[Tensor, Tensor]:
        with torch.inference_mode():
            return self.card(images)


def site(**chosen: object) -> Site:
    """With a small network of its own, so that hooks of one test never meet another."""
    torch.manual_seed(1)
    return Site(network=folded(build_network("ear_unet", channels=(16, 16))), **chosen)


def plain(images: Tensor, network: nn.Module) -> tuple[Tensor, Tensor]:
    with torch.inference_mode():
        return network(images)


def same(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_network_without_its_normalizations_says_the_same(ears: Tensor, reference: nn.Module) -> None:
    assert not any(isinstance(part, nn.BatchNorm3d) for part in reference.modules())
    trained = plain(ears, load_model(SHIPPED).network)
    answer = plain(ears, reference)
    assert torch.allclose(answer[0], trained[0], atol=1e-3)
    assert torch.allclose(answer[1], trained[1], atol=1e-4)
    assert torch.allclose(eh_ratios(answer[0]), eh_ratios(trained[0]), atol=1e-6)


@needs_half_precision
def test_half_precision_moves_no_ratio_by_a_thousandth(ears: Tensor, reference: nn.Module) -> None:
    told: list[str] = []
    card = GraphicsCard(reference, PROCESSOR, tell=told.append, free_bytes=lambda: NEEDED_BYTES)
    expected = plain(ears, reference)
    with torch.inference_mode():
        first, second = card(ears), card(ears)
    assert told == []
    assert same(first, expected)  # the first study is answered by the processor, while the card is compared with it
    moved = (eh_ratios(second[0]) - eh_ratios(expected[0])).abs()
    assert 0.0 < float(moved.max()) < RATIO_BOUND / 5.0
    assert float((second[1] - expected[1]).abs().max()) < 0.01
    assert second[0].dtype is torch.float32


@needs_half_precision
def test_a_network_for_pairs_runs_in_half_precision_too(ears: Tensor) -> None:
    torch.manual_seed(4)
    told: list[str] = []
    network = PairNetwork(folded(build_network("oto_unet")), shares=True).eval()
    card = GraphicsCard(network, PROCESSOR, tell=told.append, free_bytes=lambda: NEEDED_BYTES)
    with torch.inference_mode():
        card(ears[:2])
        answer = card(ears[:2])
    assert told == []
    assert torch.allclose(eh_ratios(answer[0]), eh_ratios(plain(ears[:2], network)[0]), atol=RATIO_BOUND)


@needs_half_precision
@pytest.mark.parametrize("count", [1, 2, 3])
def test_any_number_of_ears_is_answered_in_their_order(ears: Tensor, count: int) -> None:
    here = site()
    here.ask(ears)
    one_by_one = torch.cat([here.ask(ears[n : n + 1].repeat(2, 1, 1, 1, 1))[0][:1] for n in range(count)])
    together = here.ask(ears[:count])
    assert together[0].shape == (count, 2, *ears.shape[2:])
    assert torch.allclose(together[0], one_by_one, atol=1e-2)


@needs_half_precision
def test_a_study_for_which_the_card_has_no_memory_is_computed_by_the_processor_and_the_next_one_by_the_card(
    ears: Tensor,
) -> None:
    here = site(trouble=lambda asked: torch.OutOfMemoryError("CUDA out of memory.") if asked == 2 else None)
    here.ask(ears[:2])
    assert same(here.ask(ears[:2]), plain(ears[:2], here.network))
    assert here.told == ["it ran out of memory; the processor computes this study"]
    assert not same(here.ask(ears[:2]), plain(ears[:2], here.network))
    assert here.asked == 3


@needs_half_precision
def test_a_card_without_free_memory_is_not_begun_with_until_there_is_some(ears: Tensor) -> None:
    here = site(free=NEEDED_BYTES - 1)
    assert same(here.ask(ears[:2]), plain(ears[:2], here.network))
    assert here.asked == 0
    assert "1024 needed; the processor computes" in here.told[0]
    here.free = NEEDED_BYTES
    here.ask(ears[:2])
    assert here.asked == 1


def test_a_card_that_failed_is_never_asked_again(ears: Tensor) -> None:
    here = site(trouble=lambda _asked: torch.AcceleratorError("CUDA error: an illegal memory access was encountered"))
    for _ in range(3):
        assert same(here.ask(ears[:2]), plain(ears[:2], here.network))
    assert here.asked == 1
    assert len(here.told) == 1
    assert "illegal memory access" in here.told[0]


@needs_half_precision
@pytest.mark.parametrize(
    "wrong", [lambda answer: (answer[0] + 0.05, answer[1]), lambda answer: (answer[0] * torch.nan, answer[1])]
)
def test_a_card_that_says_something_else_is_not_believed(
    ears: Tensor, wrong: Callable[[tuple[Tensor, Tensor]], tuple[Tensor, Tensor]]
) -> None:
    here = site(answers=wrong)
    for _ in range(2):
        assert same(here.ask(ears[:2]), plain(ears[:2], here.network))
    assert here.asked == 1
    assert "differs by" in here.told[0]


@needs_half_precision
def test_a_believed_card_that_answers_no_numbers_is_answered_for_and_not_asked_again(ears: Tensor) -> None:
    """Half precision ends at 65,504: bright images may go beyond where the first study did not."""
    answered: list[tuple[Tensor, Tensor]] = []

    def spoiled_from_the_second_on(answer: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        answered.append(answer)
        return answer if len(answered) == 1 else (answer[0] * torch.nan, answer[1])

    here = site(answers=spoiled_from_the_second_on)
    for _ in range(3):
        assert same(here.ask(ears[:2]), plain(ears[:2], here.network))
    assert here.asked == 2
    assert len(here.told) == 1
    assert "differs by nan" in here.told[0]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no graphics card here")
def test_a_real_card_answers_within_a_thousandth_and_a_thousand_studies_take_no_more_memory_than_ten(
    ears: Tensor, reference: nn.Module
) -> None:
    told: list[str] = []
    card = GraphicsCard(reference, torch.device("cuda"), tell=told.append)
    expected = eh_ratios(plain(ears[:2], reference)[0])
    with torch.inference_mode():
        for number in range(1000):
            answer = card(ears[:2])
            if number == 9:
                held = torch.cuda.memory_allocated()
    assert told == []
    assert float((eh_ratios(answer[0]) - expected).abs().max()) < RATIO_BOUND
    assert torch.cuda.memory_allocated() == held
