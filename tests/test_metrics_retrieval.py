"""Recall and rank of what is found again: by hand, with ties, over places and processes."""

import itertools

import pytest
import torch
from torch.nn import functional as F

from fusionlab.metrics import RetrievalMetrics
from fusionlab.metrics.retrieval import _hit, _places

EXPERTS = ("image", "caption")
PAIRS = [EXPERTS]


def metrics(*batches, experts=EXPERTS, pairs=PAIRS):
    metric = RetrievalMetrics(experts, pairs)
    for batch in batches:
        metric.update(*batch)
    return metric


def found(embeddings, available=None, place=None, counted=None) -> dict[str, float]:
    there = torch.ones(embeddings.shape[:2], dtype=torch.bool) if available is None else available
    scores = metrics((embeddings, there, place, counted)).compute()
    return {name: float(value) for name, value in scores.items()}


def random_pairs(n=40, noise=0.6, seed=0, width=6):
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(n, width, generator=generator)
    text = image + noise * torch.randn(n, width, generator=generator)
    return F.normalize(torch.stack([image, text], dim=1), dim=2)


def ranks(queries, keys, right):
    """One by one, of matches that are never equally good."""
    found = []
    for i, query in enumerate(queries):
        order = (keys @ query).argsort(descending=True).tolist()
        found.append(1 + min(order.index(j) for j in range(len(keys)) if right[i][j]))
    return torch.tensor(found, dtype=torch.float)


@pytest.mark.parametrize("places", [None, 12])
def test_scores_are_those_of_a_sorted_list(places):
    embeddings = random_pairs()
    place = None if places is None else torch.arange(40) % places
    right = torch.eye(40).bool() if place is None else place[:, None] == place
    scores = found(embeddings, place=place)
    image, text = embeddings.unbind(dim=1)
    means = []
    for name, queries, keys in (
        ("image_to_caption", image, text), ("caption_to_image", text, image),
    ):  # fmt: skip
        expected = ranks(queries, keys, right)
        for k in (1, 5, 10):
            recall = (expected <= k).float().mean().item()
            assert scores[f"recall_at_{k}/{name}"] == pytest.approx(recall)
            means.append(recall)
        assert scores[f"median_rank/{name}"] == expected.quantile(0.5)
        assert scores[f"candidates/{name}"] == 40
    assert scores["mean_recall"] == pytest.approx(sum(means) / 6)
    assert 0.1 < scores["recall_at_1"] < scores["recall_at_5"] < 1


def test_perfect_and_hopeless():
    embeddings = random_pairs(noise=0)
    scores = found(embeddings)
    assert (scores["mean_recall"], scores["median_rank"]) == (1, 1)
    opposite = torch.stack([embeddings[:, 0], -embeddings[:, 0]], dim=1)
    assert found(opposite)["median_rank"] == 40
    assert found(opposite)["recall_at_10"] == 0


def test_a_collapsed_network_is_no_better_than_chance():
    same = F.normalize(torch.ones(50, 2, 4), dim=2)
    scores = found(same)
    assert scores["recall_at_1/image_to_caption"] == pytest.approx(1 / 50)
    assert scores["recall_at_10"] == pytest.approx(10 / 50)
    assert scores["median_rank"] == pytest.approx(25.5)


def test_matches_that_rounding_alone_tells_apart_are_tied():
    right = torch.eye(1, 3).bool()
    cosines = torch.tensor([[0.5, 0.5 + 3e-7, 0.5 + 1e-4]])
    assert [int(found) for found in _places(cosines, right)] == [1, 1, 1]


def test_ties_count_by_the_orders_in_which_a_right_one_comes_early():
    """Two right ones and three wrong ones are equally good, behind one that is better."""
    image = torch.tensor([[1.0, 0.0]]).expand(6, 2)
    half = torch.tensor([0.5, 3**0.5 / 2])
    text = torch.stack([half, half, half, half, half, torch.tensor([1.0, 0.0])])
    place = torch.tensor([0, 0, 1, 2, 3, 4])
    metric = metrics((torch.stack([image, text], 1), torch.ones(6, 2, dtype=torch.bool), place))
    orders = list(itertools.permutations("rrwww"))
    first = [1 + min(order.index("r"), 9) + 1 for order in orders]  # behind the better one
    for k in (1, 5, 10):
        expected = sum(rank <= k for rank in first) / len(first)
        # The first row is that of a sample with two right ones, as the second.
        embeddings = torch.stack([image, text], dim=1)
        right = place[:, None] == place
        better, wrong, tied = _places(embeddings[:, 0] @ embeddings[:, 1].T, right)
        assert (better[0], wrong[0], tied[0]) == (1, 3, 2)
        assert _hit(k, better, wrong, tied)[0] == pytest.approx(expected)
    expected = sum(first) / len(first)
    assert float(1 + better[0] + wrong[0] / (tied[0] + 1)) == pytest.approx(expected)
    assert metric.compute()["recall_at_1/image_to_caption"] == pytest.approx(1 / 6)


def test_batches_and_their_order_do_not_matter():
    embeddings = random_pairs()
    there = torch.rand(40, 2, generator=torch.Generator().manual_seed(1)) < 0.8
    place = torch.arange(40) // 2
    whole = metrics((embeddings, there, place)).compute()
    order = torch.randperm(40)
    parts = [(embeddings[i], there[i], place[i]) for i in order.split(7)]
    for name, value in metrics(*parts).compute().items():
        torch.testing.assert_close(value, whole[name], msg=name)


def test_what_is_missing_or_counted_elsewhere_is_not_looked_for():
    embeddings = random_pairs()
    there = torch.ones(40, 2, dtype=torch.bool)
    there[3, 0] = there[7, 1] = False
    counted = torch.arange(40) != 11
    kept = [i for i in range(40) if i not in (3, 7, 11)]
    scores = found(embeddings, there, counted=counted)
    assert scores == found(embeddings[kept])
    assert scores["candidates/image_to_caption"] == 37


def test_a_pair_without_samples_has_no_scores():
    embeddings = torch.cat([random_pairs(), torch.zeros(40, 1, 6)], dim=1)
    there = torch.ones(40, 3, dtype=torch.bool)
    there[:, 2] = False
    experts = (*EXPERTS, "radar")
    metric = metrics((embeddings, there), experts=experts, pairs=[EXPERTS, ("image", "radar")])
    scores = metric.compute()
    assert scores["recall_at_1/image_to_radar"].isnan()
    alone = found(embeddings[:, :2])
    assert float(scores["mean_recall"]) == pytest.approx(alone["mean_recall"])


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_nothing_seen_and_a_new_evaluation():
    metric = metrics()
    assert metric.compute() == {}
    metric = metrics((random_pairs(), torch.ones(40, 2, dtype=torch.bool)))
    metric.compute()
    assert metric.found[0].shape == (40, 2, 6)
    metric.reset()
    assert metric.found is None
    assert metric.embeddings == []


def test_large_sets_are_compared_in_parts(monkeypatch):
    monkeypatch.setattr("fusionlab.metrics.retrieval._ROWS", 7)
    embeddings = random_pairs()
    parts = found(embeddings)
    monkeypatch.undo()
    assert parts == found(embeddings)
