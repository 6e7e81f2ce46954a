"""Contrastive losses: their formulas, what takes no part, and two processes that equal one."""

import copy
import math
import pickle
import tempfile
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from fusionlab.errors import InputError
from fusionlab.losses import (
    Embedded,
    InfoNCE,
    SigmoidContrastive,
    all_pairs,
    mean_over_pairs,
    stacked,
)

EXPERTS = ("image", "caption", "radar")
LOSSES = (InfoNCE, SigmoidContrastive)
PAIR = [("image", "caption")]


def embedded(n=6, m=2, seed=0, *, place=None, available=None) -> Embedded:
    generator = torch.Generator().manual_seed(seed)
    values = F.normalize(torch.randn(n, m, 5, generator=generator), dim=2)
    there = torch.ones(n, m, dtype=torch.bool) if available is None else torch.tensor(available)
    return Embedded(values * there[..., None], there, place)


def test_info_nce_is_symmetric_cross_entropy():
    """Written as in the pseudocode of CLIP (figure 3)."""
    given = embedded()
    loss = InfoNCE(EXPERTS[:2], PAIR)
    image, text = given.embeddings.unbind(dim=1)
    logits = image @ text.T / 0.07
    labels = torch.arange(6)
    expected = (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2
    torch.testing.assert_close(loss(given), expected)


def test_the_sigmoid_loss_is_the_published_one():
    """Written as in the pseudocode of SigLIP (algorithm 1)."""
    given = embedded()
    loss = SigmoidContrastive(EXPERTS[:2], PAIR)
    image, text = given.embeddings.unbind(dim=1)
    logits = image @ text.T * 10 - 10
    labels = 2 * torch.eye(6) - torch.ones(6)
    torch.testing.assert_close(loss(given), -F.logsigmoid(labels * logits).sum() / 6)


def test_where_scales_begin_and_end():
    assert InfoNCE(EXPERTS, all_pairs(EXPERTS)).log_scale.tolist() == pytest.approx(
        [math.log(1 / 0.07)] * 3
    )
    loss = SigmoidContrastive(EXPERTS, all_pairs(EXPERTS))
    assert loss.log_scale.tolist() == pytest.approx([math.log(10)] * 3)
    assert loss.bias.tolist() == [-10.0] * 3
    loss.log_scale.data = torch.tensor([-0.3, 2.0, 7.0])
    loss.clamp()
    assert loss.log_scale.tolist() == pytest.approx([0, 2, math.log(100)])
    assert loss.log_scale.requires_grad


@pytest.mark.parametrize("kind", LOSSES)
def test_a_sample_that_lacks_one_expert_takes_no_part(kind):
    there = [[True, True], [True, False], [True, True], [False, True], [False, False], [True, True]]
    given = embedded(available=there)
    loss = kind(EXPERTS[:2], PAIR)
    kept = [0, 2, 5]
    smaller = Embedded(given.embeddings[kept], given.available[kept])
    torch.testing.assert_close(loss(given), loss(smaller))
    junk = torch.where(given.available[..., None], given.embeddings, 0.0).requires_grad_()
    loss(Embedded(junk, given.available)).backward()
    assert (junk.grad[[1, 3, 4]] == 0).all()
    assert (junk.grad[kept] != 0).any(dim=2).all()


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize("there", [[False, True], [False, False]])
def test_nothing_to_compare_is_a_loss_of_zero(kind, there):
    values = torch.zeros(3, 2, 5, requires_grad=True)
    loss = kind(EXPERTS[:2], PAIR)
    found = loss(Embedded(values, torch.tensor([there] * 3)))
    found.backward()
    assert found == 0
    assert (values.grad == 0).all()
    assert all((p.grad == 0).all() for p in loss.parameters())


@pytest.mark.parametrize("kind", LOSSES)
def test_the_same_place_is_no_negative_example(kind):
    given = embedded(n=3)
    twice = Embedded(
        torch.cat([given.embeddings, given.embeddings[:1]]),
        torch.ones(4, 2, dtype=torch.bool), torch.tensor([7, 8, 9, 7]),
    )  # fmt: skip
    loss = kind(EXPERTS[:2], PAIR)
    if kind is SigmoidContrastive:
        loss.bias.data.fill_(-1)  # where negative examples cost something
    image, text = twice.embeddings.unbind(dim=1)
    total = 0.0
    scale = loss.log_scale[0].exp()
    for i in range(4):
        rest = [j for j in range(4) if j == i or {i, j} != {0, 3}]
        right = rest.index(i)
        if kind is InfoNCE:
            for a, b in ((image, text), (text, image)):
                total += F.cross_entropy(scale * a[i] @ b[rest].T, torch.tensor(right)) / 8
        else:
            signs = torch.tensor([1.0 if j == i else -1.0 for j in rest])
            total -= F.logsigmoid(signs * (scale * image[i] @ text[rest].T - 1)).sum() / 4
    torch.testing.assert_close(loss(twice), total)
    assert not torch.allclose(loss(twice), loss(twice._replace(place=None)))


def test_the_mean_is_over_pairs_that_have_samples():
    there = [[True, True, False], [True, True, False], [True, True, False]]
    given = embedded(n=3, m=3, available=there)
    loss = InfoNCE(EXPERTS, all_pairs(EXPERTS))
    losses, samples = loss.per_pair(given)
    assert samples.tolist() == [3, 0, 0]
    assert losses[1:].tolist() == [0, 0]
    torch.testing.assert_close(loss(given), losses[0])
    torch.testing.assert_close(mean_over_pairs(losses, torch.tensor([3, 1, 0])), losses[0] / 2)


@pytest.mark.parametrize("kind", LOSSES)
def test_in_parts_as_at_once(kind):
    there = torch.rand(11, 3, generator=torch.Generator().manual_seed(1)) < 0.7
    place = torch.tensor([0, 1, 2, 3, 1, 5, 6, 0, 8, 9, 1])
    given = embedded(n=11, m=3, place=place, available=there.tolist())
    loss = kind(EXPERTS, all_pairs(EXPERTS))
    losses, samples = loss.per_pair(given)
    parts, counted = loss.over_all(given, rows=4)
    torch.testing.assert_close(parts, losses)
    assert torch.equal(samples, counted)


@pytest.mark.parametrize("kind", LOSSES)
def test_learning_brings_samples_together(kind):
    """Free embeddings go to where each is nearest its partner."""
    torch.manual_seed(0)
    free = torch.randn(8, 2, 4, requires_grad=True)
    loss = kind(EXPERTS[:2], PAIR)
    optimizer = torch.optim.Adam([free, *loss.parameters()], lr=0.05)
    there = torch.ones(8, 2, dtype=torch.bool)
    for _ in range(150):
        optimizer.zero_grad()
        loss(Embedded(F.normalize(free, dim=2), there)).backward()
        optimizer.step()
        loss.clamp()
    image, text = F.normalize(free, dim=2).unbind(dim=1)
    assert (image @ text.T).argmax(dim=1).tolist() == list(range(8))
    assert loss.log_scale.item() > math.log(10)


@pytest.mark.parametrize("kind", LOSSES)
def test_half_precision_does_not_reach_the_loss(kind):
    given = embedded()
    loss = kind(EXPERTS[:2], PAIR)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = loss(given)
    assert found.dtype == torch.float32
    assert torch.equal(found, loss(given))


@pytest.mark.parametrize("kind", LOSSES)
def test_copied_and_pickled(kind):
    loss = kind(EXPERTS, all_pairs(EXPERTS))
    given = embedded(m=3)
    for other in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        assert torch.equal(other(given), loss(given))


@pytest.mark.parametrize(
    ("pairs", "message"),
    [([], "name some"), ([("image", "image")], "two of the experts"),
     ([("image", "lidar")], r"two of the experts \['image'.*'lidar'"),
     ([("image", "radar"), ("radar", "image")], "named once")],
)  # fmt: skip
def test_pairs_that_are_none(pairs, message):
    with pytest.raises(InputError, match=message):
        InfoNCE(EXPERTS, pairs)


def test_a_temperature_out_of_bounds():
    with pytest.raises(InputError, match=r"SigmoidContrastive temperature lies in \[0.01, 1\]"):
        SigmoidContrastive(EXPERTS, all_pairs(EXPERTS), temperature=2)


# ---- two processes ---------------------------------------------------------------------------


class Encoders(nn.Module):
    """Three encoders and the loss over them, as a task has them."""

    def __init__(self, kind) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoders = nn.ModuleDict(
            {name: nn.Sequential(nn.Linear(6, 7), nn.Tanh(), nn.Linear(7, 5)) for name in EXPERTS}
        )
        self.loss = kind(EXPERTS, all_pairs(EXPERTS))
        self.loss.log_scale.data += torch.tensor([0.1, -0.2, 0.3])

    def forward(self, values, available, place):
        found = {n: F.normalize(e(values[n]), dim=1) for n, e in self.encoders.items()}
        found = {n: torch.where(available[n][:, None], x, 0) for n, x in found.items()}
        return self.loss(stacked(EXPERTS, found, available, place))


def samples(n):
    """Availability that is uneven between the halves: the second has no radar at all."""
    generator = torch.Generator().manual_seed(3)
    values = {name: torch.randn(n, 6, generator=generator) for name in EXPERTS}
    available = {name: torch.rand(n, generator=generator) < 0.7 for name in EXPERTS}
    available["radar"][n // 2 :] = False
    place = torch.arange(n)
    place[[1, n - 2]] = 0  # one place that is in both halves, and has images and captions there
    for name in ("image", "caption"):
        available[name][[0, 1, n - 2]] = True
    return values, available, place


def part(batch, rank, world):
    values, available, place = batch
    rows = slice(rank * len(place) // world, (rank + 1) * len(place) // world)
    return (
        {n: x[rows] for n, x in values.items()}, {n: x[rows] for n, x in available.items()},
        place[rows],
    )  # fmt: skip


def work(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    for kind in LOSSES:
        model = Encoders(kind)
        wrapped = DistributedDataParallel(model)
        loss = wrapped(*part(samples(12), rank, 2))
        loss.backward()
        gradients = {name: p.grad for name, p in model.named_parameters()}
        torch.save({"loss": loss.detach(), **gradients}, f"{folder}/{kind.__name__}_{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def two_processes() -> Path:
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(work, args=(folder,), nprocs=2)
        yield Path(folder)


@pytest.mark.slow
@pytest.mark.parametrize("kind", LOSSES)
def test_two_processes_equal_one_of_twice_the_batch(kind, two_processes):
    model = Encoders(kind)
    loss = model(*samples(12))
    loss.backward()
    parts = [torch.load(two_processes / f"{kind.__name__}_{rank}.pt") for rank in range(2)]
    mean = (parts[0].pop("loss") + parts[1].pop("loss")) / 2
    torch.testing.assert_close(mean, loss.detach(), atol=1e-6, rtol=0)
    for name, parameter in model.named_parameters():
        assert parameter.grad.abs().sum() > 0, name
        for found in parts:
            torch.testing.assert_close(found[name], parameter.grad, atol=1e-5, rtol=0)
    # Each process's own negatives only would give something else.
    alone = [Encoders(kind)(*part(samples(12), rank, 2)) for rank in range(2)]
    assert abs(float((alone[0] + alone[1]).detach() / 2 - loss.detach())) > 0.05
