"""TabularExpert: columns by name, gaps, and categories that data list in their own way."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from embedding_experts import save_expert
from hypothesis import given, settings
from hypothesis import strategies as st
from part_samples import CLASSES, MODALITIES, SCHEMA, expert, samples

from fusionlab.errors import InputError
from fusionlab.experts import FrozenExpert, TabularExpert
from fusionlab.types import Modality, Schema

NAN = float("nan")
SITE = MODALITIES["site"]  # latitude, season (3), elevation, soil (2)
SMALL = {"width": 8, "depth": 1, "hidden": 12}


def table_schema(modality: Modality = SITE) -> Schema:
    return Schema({"site": modality}, CLASSES, target="multiclass")


def rows(*values: list[float]) -> torch.Tensor:
    return torch.tensor(values)


def test_one_token_per_column_in_the_order_of_the_bands():
    model = expert("site", bands=["soil", "latitude", "season"])
    tokens = model.tokens(samples()["site"])
    assert tokens.values.shape == (4, 3, 8)
    assert tokens.valid.all()
    alone = TabularExpert(
        table_schema(), bands=["soil", "latitude", "season"], width=8, depth=0
    ).eval()
    values = samples()["site"]
    before = alone.tokens(values).values
    for position, column in enumerate((3, 0, 1)):
        changed = values.clone()
        changed[:, column] = (changed[:, column].nan_to_num() + 1) % 2
        moved = (alone.tokens(changed).values - before).abs().sum(dim=(0, 2)) > 0
        assert moved.nonzero().flatten().tolist() == [position]


def test_residual_layers_compare_columns():
    model, values = expert("site"), samples()["site"]
    changed = values.clone()
    changed[:, 0] += 5
    moved = (model.tokens(changed).values - model.tokens(values).values).abs().sum(dim=(0, 2))
    assert (moved > 0).all()


def test_the_embedding_is_the_mean_of_the_tokens():
    model, values = expert("site"), samples()["site"]
    torch.testing.assert_close(model.features(values), model.tokens(values).values.mean(dim=1))


@given(st.lists(st.booleans(), min_size=4, max_size=4))
@settings(max_examples=16, deadline=None)
def test_gaps_are_learned_tokens_whatever_lies_around(flags):
    model = expert("site")
    row = rows([47.0, 1.0, 400.0, 1.0])
    gaps = torch.tensor([flags])
    with_gaps = torch.where(gaps, NAN, row)
    answer = model.features(with_gaps)
    assert answer.isfinite().all()
    infinite = torch.where(gaps, float("inf"), row)
    assert torch.equal(model.features(infinite), answer)
    if any(flags):
        assert not torch.allclose(answer, model.features(row))


def test_a_missing_number_is_not_the_mean():
    model = expert("site")
    assert not torch.allclose(
        model.features(rows([NAN, 1, 400, 1])), model.features(rows([47, 1, 400, 1]))
    )


def test_numbers_far_outside_are_finite():
    assert expert("site").logits(rows([1e30, 0, -1e30, 1])).isfinite().all()


@pytest.mark.parametrize("code", [3, 7, 1e9, -1, NAN])
def test_numbers_that_are_no_category_count_as_missing(code):
    model = expert("site")
    strange = model.features(rows([47, code, 400, 1]))
    assert torch.equal(strange, model.features(rows([47, NAN, 400, 1])))


def test_cell_dropout_teaches_what_stands_for_gaps():
    values = rows([47, 1, 400, 0], [45, 2, 300, 1])
    for rate, learns in ((0.5, True), (0.0, False)):
        model = expert("site", cell_dropout=rate, dropout=0.0).train()
        torch.manual_seed(0)
        torch.stack([model.features(values) for _ in range(20)]).square().sum().backward()
        unknown = model.names_of.table.weight.grad[model.names_of.unknown]
        assert (model.numbers.missing.grad.abs().sum() > 0) == learns
        assert (unknown.abs().sum() > 0) == learns
    model = expert("site", cell_dropout=0.9)
    assert torch.equal(model.features(values), model.features(values))


@pytest.mark.parametrize("std", [0.0, NAN])
def test_a_constant_column_is_taken_as_it_is(std):
    constant = replace(SITE, std=(3, 1, std, 1))
    model = TabularExpert(table_schema(constant), **SMALL).eval()
    assert model.inputs.std.flatten().tolist() == [3, 1, 1, 1]
    assert model.logits(rows([47, 1, 400, 1], [47, 1, 401, 1])).isfinite().all()


@pytest.mark.parametrize("kind", ["numbers", "categories"])
def test_columns_of_one_kind(kind):
    bands = {"numbers": ["latitude", "elevation"], "categories": ["soil", "season"]}[kind]
    model = TabularExpert(table_schema(), bands=bands, **SMALL).train()
    model.logits(samples()["site"]).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    assert (model.numbers is None) == (kind == "categories")
    assert (model.names_of is None) == (kind == "numbers")


def test_a_column_without_categories_yet():
    empty = replace(SITE, categories={"season": (), "soil": ("clay", "sand")})
    model = TabularExpert(table_schema(empty), **SMALL).eval()
    assert torch.equal(
        model.features(rows([47, 0, 400, 1])), model.features(rows([47, NAN, 400, 1]))
    )


# ---- other data ------------------------------------------------------------------------------


def test_categories_are_known_by_name():
    model = expert("site")
    given = rows([47, 0, 400, 1], [46, 1, 300, 0], [45, 2, 200, 0])
    expected = model.logits(given)
    turned = replace(
        SITE,
        bands=("soil", "elevation", "season", "latitude"),
        mean=(0, 400, 0, 47),
        std=(1, 200, 1, 3),
        categories={"season": ("summer", "winter", "spring"), "soil": ("sand", "clay")},
    )
    model.rebind(table_schema(turned))
    codes = {0: 1, 1: 2, 2: 0}
    moved = [[1 - r[3], r[2], codes[int(r[1])], r[0]] for r in given.tolist()]
    torch.testing.assert_close(model.logits(torch.tensor(moved)), expected)
    model.rebind(SCHEMA)
    assert torch.equal(model.logits(given), expected)


def test_unseen_categories_are_unknown_and_named():
    model = expert("site")
    missing = model.logits(rows([47, NAN, 400, 1]))
    winter = model.logits(rows([47, 0, 400, 1]))
    more = replace(SITE, categories={**SITE.categories, "season": ("autumn", "winter", "monsoon")})
    with pytest.warns(UserWarning, match=r"\{'season': \['autumn', 'monsoon'\]\}.*as missing"):
        model.rebind(table_schema(more))
    assert torch.equal(model.logits(rows([47, 0, 400, 1])), missing)
    assert torch.equal(model.logits(rows([47, 2, 400, 1])), missing)
    assert torch.equal(model.logits(rows([47, 1, 400, 1])), winter)


def test_names_beyond_the_training_rows_of_new_data_are_looked_up():
    model = expert("site")
    winter, clay = (model.logits(rows(row)) for row in ([47, 0, 400, 1], [47, NAN, 400, 0]))
    few = replace(
        SITE,
        categories={"season": ("autumn",), "soil": ()},
        others={
            "season": ("monsoon", SITE.categories["season"][0]),
            "soil": SITE.categories["soil"],
        },
    )
    with pytest.warns(UserWarning, match=r"\{'season': \['autumn', 'monsoon'\]\}.*as missing"):
        model.rebind(table_schema(few))
    assert torch.equal(model.logits(rows([47, 2, 400, 1])), winter)
    assert torch.equal(model.logits(rows([47, 1, 400, 0])), clay)
    assert torch.equal(model.logits(rows([47, 9, 400, 0])), clay)
    backwards = few.select(["soil", "season"], where="here")
    assert backwards.others == few.others
    assert few.select(["soil"], where="here").others == {"soil": few.others["soil"]}
    assert "others" not in table_schema(few).to_dict()["modalities"]["site"]


def test_a_column_that_is_not_there_is_called_a_column():
    with pytest.raises(InputError, match=r"wants the columns \['depth'\].*Choose columns"):
        TabularExpert(table_schema(), bands=["depth"], **SMALL)


def test_so_it_is_for_a_frozen_expert(tmp_path):
    model = expert("site")
    path = save_expert(model, tmp_path / "site.ckpt", SCHEMA)
    turned = replace(
        SITE, categories={"season": SITE.categories["season"][::-1], "soil": ("sand",)}
    )
    frozen = FrozenExpert(table_schema(turned), checkpoint=path)
    assert torch.equal(frozen.logits(rows([47, 2, 400, 0])), model.logits(rows([47, 0, 400, 1])))
    fused = FrozenExpert(
        table_schema(turned),
        expert=partial(TabularExpert, modality="site", width=8, depth=1, hidden=12),
        trained_on=frozen.trained_on,
    )
    fused.load_state_dict(frozen.state_dict())
    given = rows([47, 2, 400, 0])
    assert torch.equal(fused.eval().logits(given), frozen.logits(given))


@pytest.mark.parametrize(
    ("column", "change", "message"),
    [
        ("season", {"categories": {"soil": ("clay", "sand")}}, "held categories.*holds numbers"),
        (
            "elevation",
            {"categories": {**SITE.categories, "elevation": ("low", "high")}},
            "held numbers.*holds categories",
        ),
    ],
)
def test_a_column_of_another_type_is_refused_by_name(column, change, message):
    model, given = expert("site"), rows([47, 0, 400, 1])
    expected = model.logits(given)
    with pytest.raises(InputError, match=f"column '{column}' of 'site' {message}"):
        model.rebind(table_schema(replace(SITE, **change)))
    assert torch.equal(model.logits(given), expected)  # nothing was changed by half


def test_a_column_that_is_not_delivered_is_named():
    fewer = SITE.select(["latitude", "elevation", "soil"], where="test")
    with pytest.raises(InputError, match=r"\['season'\] are missing"):
        expert("site").rebind(table_schema(fewer))
    with pytest.raises(InputError, match=r"\['slope'\] are missing"):
        expert("site", bands=["slope"])


def test_tables_of_another_width_are_refused():
    with pytest.raises(InputError, match=r"rows \(B, 4\).*'latitude'.*got a tensor \(2, 3\)"):
        expert("site").logits(torch.zeros(2, 3))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, "width must be 1 or more"),
        ({"depth": -1}, "depth must be 0 or more"),
        ({"hidden": 0}, "hidden must be 1 or more"),
        ({"dropout": 1.0}, "dropout is a probability"),
        ({"cell_dropout": 2.0}, "cell dropout is a probability"),
        ({"std": [1, 1, 0, 1]}, "std must be positive"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(InputError, match=message):
        TabularExpert(table_schema(), **options)
