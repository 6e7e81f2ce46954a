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


def test_classes_by_name_and_index():
    classes = ("wood", "road")
    assert class_indices(["road", 0, "1"], classes, where="x") == [1, 0, 1]
    with pytest.raises(InputError, match=r"Unknown class 2 in x.*wood"):
        class_indices([2], classes, where="x")
