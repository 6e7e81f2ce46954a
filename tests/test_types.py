import pytest

from fusionlab.errors import InputError
from fusionlab.types import Modality, Schema, class_indices


def schema(**options) -> Schema:
    return Schema(
        {"a": Modality(("r", "g"), 0.2), "b": Modality(("x",), 10.0, temporal=True)},
        ("wood", "road", "other"),
        scores={"official": ("wood", "road")},
        **options,
    )


def test_a_schema_survives_a_checkpoint():
    before = schema(colors=("#000000", "#ffffff", "#ff0000"), gsd=0.2)
    assert Schema.from_dict(before.to_dict()) == before
    assert Schema.from_dict(before.to_dict()).modalities["b"].temporal


def test_bands_are_found_by_name_and_both_lists_are_named_when_not():
    modality = Modality(("red", "green", "nir"), 0.2, mean=(1.0, 2.0, 3.0))
    assert modality.select(["nir", "red"], where="x").mean == (3.0, 1.0)
    with pytest.raises(InputError, match=r"\['nir', 'blue'\].*\['red', 'green', 'nir'\].*'blue'"):
        modality.indices(["nir", "blue"], where="UNetFormer")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Modality(("r", "r"), 1.0), "must differ"),
        (lambda: Modality(("r", "g"), 1.0, mean=(1.0,)), "2 bands.*1 values of mean"),
        (lambda: Schema({}, ("a", "a")), "must differ"),
        (lambda: Schema({}, ("a", "b"), colors=("#000000",)), "2 classes but 1 colours"),
        (lambda: Schema({}, ("a",), scores={"s": ("b",)}), "Unknown class 'b'"),
        (lambda: schema().modality(None, where="X"), "takes one modality.*'a', 'b'"),
        (
            lambda: schema().modality("c", where="X"),
            r"modality 'c' \(X\).*'a', 'b'.*Keep 'c'.*--data\.missing \"\[c\]\"",
        ),
    ],
)
def test_contradictions_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


HEIGHTS = {"target": "regression", "variables": ("height", "cover"), "units": ("m", "")}


def test_a_schema_of_values():
    before = Schema({"a": Modality(("r",), 0.2)}, gsd=0.2, **HEIGHTS)
    assert Schema.from_dict(before.to_dict()) == before
    assert (before.outputs, before.classes, before.num_classes) == (("height", "cover"), (), 0)
    assert (before.kind, before.regresses, before.pixelwise) == ("variables", True, True)
    assert before.only("a").units == ("m", "")
    bare = before.without_outputs()
    assert (bare.outputs, bare.units, bare.target) == ((), (), "regression")
    scalar = Schema({}, target="scalar_regression", variables=("yield",))
    assert (scalar.pixelwise, scalar.regresses, scalar.units) == (False, True, ("",))
    assert "variables=('yield',)" in repr(scalar)


def test_a_schema_of_classes():
    assert (schema().outputs, schema().kind) == (schema().classes, "classes")
    assert schema().pixelwise
    assert not schema().regresses
    assert schema().without_outputs().outputs == ()
    old = {k: v for k, v in schema().to_dict().items() if k not in ("variables", "units")}
    assert Schema.from_dict(old) == schema()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variables": ("a",)}, r"'segmentation', but the data name the variables \['a'\]"),
        ({"classes": ("a",), **HEIGHTS}, r"'regression', but the data name the classes \['a'\]"),
        ({**HEIGHTS, "variables": ("a", "a")}, "Variable names must differ"),
        ({**HEIGHTS, "units": ("m",)}, "2 variables but 1 units"),
        ({"target": "depth"}, r"one of \['segmentation'.*'scalar_regression'\]"),
    ],
)
def test_contradictions_of_targets_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        Schema({}, **options)


def test_units_must_agree_where_they_are_known():
    trained = Schema({}, **HEIGHTS)
    trained.require_same_units(Schema({}, **{**HEIGHTS, "units": ()}), where="X")
    trained.require_same_units(Schema({}, ("wood",)), where="X")
    with pytest.raises(InputError, match=r"X was trained on 'height' in 'm'.* in 'cm'"):
        trained.require_same_units(Schema({}, **{**HEIGHTS, "units": ("cm", "")}), where="X")


def test_classes_by_name_and_index():
    classes = ("wood", "road")
    assert class_indices(["road", 0, "1"], classes, where="x") == [1, 0, 1]
    with pytest.raises(InputError, match=r"Unknown class 2 in x.*wood"):
        class_indices([2], classes, where="x")
    with pytest.raises(InputError, match=r"Unknown variable 'hight' in x.*mean height.*variables"):
        class_indices(["hight"], ("height",), where="x", kind="variable")
