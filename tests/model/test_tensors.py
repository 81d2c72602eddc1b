"""Tests of the walker over nested values: what it looks into, what becomes of the rest, and that it keeps hold of nothing."""

import copy
import gc
import pickle
import weakref
from collections import OrderedDict, UserDict, defaultdict, deque, namedtuple
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_sequence
from transformers import BatchEncoding
from transformers.modeling_outputs import BaseModelOutput

from hookline.model.tensors import DEEPEST, Fields, Opaque, leaves, mirror, tensors, type_name


def shapes(value: Any) -> Any:
    """The value mirrored, each tensor as its shape."""
    return mirror(value, lambda tensor: f"shape {tuple(tensor.shape)}")


ONE = torch.zeros(1)
TWO = torch.zeros(2)


class Pair(NamedTuple):
    left: Tensor
    right: Any


@dataclass
class Output:
    logits: Tensor
    states: list[Tensor]
    note: str = "none"


@dataclass
class Node:
    value: Tensor
    parent: "Node | None" = None
    children: list["Node"] = field(default_factory=list)


# What is looked into


def test_a_tensor_is_its_leaf() -> None:
    assert shapes(TWO) == "shape (2,)"


def test_a_parameter_is_a_tensor() -> None:
    assert shapes(torch.nn.Parameter(TWO)) == "shape (2,)"


@pytest.mark.parametrize("value", [None, True, 3, 1.5, 2j, "text"])
def test_numbers_text_and_none_stay(value: Any) -> None:
    assert shapes(value) is value


def test_a_list_stays_a_list() -> None:
    assert shapes([ONE, 3, [TWO]]) == ["shape (1,)", 3, ["shape (2,)"]]


def test_a_tuple_stays_a_tuple() -> None:
    assert shapes((ONE, None, (TWO,))) == ("shape (1,)", None, ("shape (2,)",))


def test_a_torch_size_becomes_a_tuple() -> None:
    assert shapes(torch.Size([2, 3])) == (2, 3)
    assert type(shapes(torch.Size([2, 3]))) is tuple


def test_a_dict_stays_a_dict_in_its_order() -> None:
    assert list(shapes({"b": ONE, "a": {"c": TWO}}).items()) == [("b", "shape (1,)"), ("a", {"c": "shape (2,)"})]


@pytest.mark.parametrize(
    "mapping", [OrderedDict(a=ONE), defaultdict(list, a=ONE), UserDict(a=ONE), BatchEncoding({"a": ONE})]
)
def test_any_mapping_becomes_a_dict(mapping: Any) -> None:
    assert shapes(mapping) == {"a": "shape (1,)"}
    assert type(shapes(mapping)) is dict


def test_keys_that_are_numbers_text_or_none_stay() -> None:
    assert list(shapes({1: ONE, "a": ONE, None: ONE, 0.5: ONE})) == [1, "a", None, 0.5]


def test_other_keys_become_text() -> None:
    assert list(shapes({torch.float32: ONE, ("a", 1): ONE})) == ["torch.float32", "('a', 1)"]


@pytest.mark.parametrize("collection", [{ONE}, frozenset([ONE])])
def test_a_set_becomes_a_list(collection: Any) -> None:
    assert shapes(collection) == ["shape (1,)"]


def test_a_named_tuple_becomes_fields() -> None:
    mirrored = shapes(Pair(ONE, (TWO, 3)))

    assert isinstance(mirrored, Fields)
    assert mirrored.type == "Pair"
    assert mirrored == {"left": "shape (1,)", "right": ("shape (2,)", 3)}


def test_a_structseq_becomes_fields() -> None:
    mirrored = shapes(torch.max(torch.zeros(2, 3), 1))

    assert mirrored.type == "max"
    assert dict(mirrored) == {"values": "shape (2,)", "indices": "shape (2,)"}


def test_a_dataclass_becomes_fields() -> None:
    mirrored = shapes(Output(ONE, [TWO]))

    assert mirrored.type == "Output"
    assert mirrored == {"logits": "shape (1,)", "states": ["shape (2,)"], "note": "none"}


def test_a_field_that_a_dataclass_never_set_is_none() -> None:
    output = Output(ONE, [])
    del output.states

    assert shapes(output).states is None


def test_a_model_output_becomes_fields_of_what_it_holds() -> None:
    mirrored = shapes(BaseModelOutput(last_hidden_state=TWO, hidden_states=(ONE, TWO)))

    assert mirrored.type == "BaseModelOutput"
    assert mirrored == {"last_hidden_state": "shape (2,)", "hidden_states": ("shape (1,)", "shape (2,)")}


def test_a_packed_sequence_becomes_fields() -> None:
    mirrored = shapes(pack_sequence([TWO, ONE]))

    assert mirrored.type == "PackedSequence"
    assert mirrored == {
        "data": "shape (3,)",
        "batch_sizes": "shape (2,)",
        "sorted_indices": None,
        "unsorted_indices": None,
    }


def test_fields_stay_fields() -> None:
    mirrored = shapes(Fields("Pair", {"items": ONE}))

    assert (mirrored.type, dict(mirrored)) == ("Pair", {"items": "shape (1,)"})


def test_the_kind_of_leaf_can_be_chosen() -> None:
    assert mirror([1, ("a", {"b": "c"})], str.upper, kind=str) == [1, ("A", {"b": "C"})]


# What is not


@pytest.mark.parametrize(
    "value", [object(), b"bytes", range(3), torch.float32, torch.device("cpu"), deque([1]), (part for part in ())]
)
def test_anything_else_becomes_opaque(value: Any) -> None:
    assert shapes(value) == Opaque(type(value).__name__)


def test_a_class_is_opaque_even_a_dataclass() -> None:
    assert shapes(Output) == Opaque("type")


def test_opaque_reads_as_its_class() -> None:
    assert repr(Opaque("Cache")) == "<Cache>"


def test_opaque_stays_opaque() -> None:
    assert shapes([Opaque("Cache")]) == [Opaque("Cache")]


def test_no_reference_to_an_opaque_value_is_kept() -> None:
    class Cache:
        pass

    cache = Cache()
    reference = weakref.ref(cache)
    mirrored = shapes({"cache": cache, "all": [cache]})
    del cache

    assert reference() is None
    assert mirrored == {"cache": Opaque("Cache"), "all": [Opaque("Cache")]}


def test_no_reference_to_a_tensor_or_its_container_is_kept() -> None:
    gc.disable()
    try:
        output = Output(torch.zeros(3), [])
        references = [weakref.ref(output), weakref.ref(output.logits)]
        mirrored = shapes(output)
        del output

        assert [reference() for reference in references] == [None, None]
        assert mirrored.logits == "shape (3,)"
    finally:
        gc.enable()


def test_the_value_is_left_as_it_was() -> None:
    value = {"a": [ONE, (TWO,)]}

    shapes(value)

    assert value["a"][0] is ONE
    assert value["a"][1][0] is TWO


# How deep


def nested(depth: int, inside: Any) -> Any:
    for _ in range(depth):
        inside = [inside]
    return inside


def test_a_deep_value_is_looked_into() -> None:
    assert [keys for keys, _ in tensors(nested(DEEPEST - 1, ONE))] == [(0,) * (DEEPEST - 1)]


def test_a_value_too_deep_becomes_opaque() -> None:
    assert shapes(nested(DEEPEST, [ONE])) == nested(DEEPEST, Opaque("list"))


def test_a_list_that_contains_itself_is_opaque_in_itself() -> None:
    own: list[Any] = [ONE]
    own += [own, own]

    assert shapes(own) == ["shape (1,)", Opaque("list"), Opaque("list")]


def test_nodes_that_refer_to_each_other_are_visited_once_per_path() -> None:
    root = Node(ONE)
    root.children += [Node(TWO, root) for _ in range(3)]

    assert [part.parent for part in shapes(root).children] == [Opaque("Node")] * 3


def test_a_value_that_stands_in_two_places_is_looked_into_in_both() -> None:
    part = [ONE]

    assert shapes([part, part]) == [["shape (1,)"], ["shape (1,)"]]


# tensors and leaves


def test_tensors_come_with_their_keys_in_the_order_of_the_value() -> None:
    found = list(tensors({"a": (ONE, [TWO]), "b": Pair(TWO, None), 3: {ONE}}))

    assert [keys for keys, _ in found] == [("a", 0), ("a", 1, 0), ("b", "left"), (3, 0)]
    assert [tensor for _, tensor in found][1] is TWO


def test_a_tensor_alone_has_no_keys() -> None:
    assert [keys for keys, _ in tensors(ONE)] == [()]


def test_a_value_without_tensors_has_none() -> None:
    assert list(tensors({"a": [1, object(), None]})) == []


def test_leaves_finds_parts_of_a_kind() -> None:
    assert list(leaves([1, {"a": "x"}, Fields("F", {"items": ("y",)})], kind=str)) == [
        ((1, "a"), "x"),
        ((2, "items", 0), "y"),
    ]


def test_keys_lead_to_the_leaf_in_the_mirrored_value() -> None:
    mirrored = mirror([Pair(ONE, {"a": TWO})], lambda tensor: tensor)
    ((keys, _), (other_keys, _)) = leaves(mirrored, kind=Tensor)

    assert mirrored[keys[0]][keys[1]] is ONE
    assert mirrored[other_keys[0]][other_keys[1]][other_keys[2]] is TWO


def test_type_name_is_that_of_the_class_or_of_what_fields_stand_for() -> None:
    assert [type_name(value) for value in (Pair(ONE, 1), Fields("Pair", {}), 3)] == ["Pair", "Pair", "int"]


# Fields


@pytest.fixture
def pair() -> Fields:
    return Fields("Pair", {"left": 1, "right": 2})


def test_fields_read_by_name_by_attribute_and_by_position(pair: Fields) -> None:
    assert (pair["right"], pair.right, pair[1], pair[-1]) == (2, 2, 2, 2)


def test_a_part_called_like_a_method_of_dict_reads_as_the_part() -> None:
    fields = Fields("max", {"values": 1, "items": 2, "keys": 3, "get": 4})

    assert (fields.values, fields.items, fields.keys, fields.get) == (1, 2, 3, 4)


def test_what_torch_max_gave_reads_as_torch_max_gives_it() -> None:
    best = mirror(torch.max(torch.tensor([[1.0, 5.0]]), 1), Tensor.item)

    assert (best.values, best.indices) == (5.0, 1)


def test_a_part_called_type_reads_by_name() -> None:
    fields = Fields("Token", {"type": 7})

    assert (fields.type, fields["type"]) == ("Token", 7)


def test_methods_of_dict_work_where_no_part_has_their_name(pair: Fields) -> None:
    assert list(pair.items()) == [("left", 1), ("right", 2)]
    assert list(pair) == ["left", "right"]
    assert len(pair) == 2


def test_an_unknown_attribute_names_the_parts(pair: Fields) -> None:
    with pytest.raises(AttributeError, match="Pair has no part 'middle'; it has left, right"):
        _ = pair.middle


def test_an_unknown_name_is_a_key_error(pair: Fields) -> None:
    with pytest.raises(KeyError, match="middle"):
        pair["middle"]


def test_a_position_out_of_range_is_an_index_error(pair: Fields) -> None:
    with pytest.raises(IndexError):
        pair[2]


def test_fields_read_as_a_call_of_their_class() -> None:
    assert repr(Fields("Pair", {"left": 1, "values": "x"})) == "Pair(left=1, values='x')"


@pytest.mark.parametrize(
    "copied",
    [copy.copy, copy.deepcopy, lambda fields: pickle.loads(pickle.dumps(fields))],
    ids=["copy", "deepcopy", "pickle"],
)
@pytest.mark.parametrize(
    "parts", [{"left": [1], "right": 2}, {"items": 1, "values": 2, "keys": 3, "type": 4}], ids=["plain", "like dict's"]
)
def test_a_copy_of_fields_is_fields(copied: Any, parts: dict[str, Any]) -> None:
    fields = copied(Fields("Pair", parts))

    assert type(fields) is Fields
    assert (fields.type, dict(fields)) == ("Pair", parts)


def test_a_deep_copy_of_fields_copies_the_parts() -> None:
    fields = Fields("Pair", {"left": [1]})

    assert copy.deepcopy(fields).left is not fields.left


def test_a_named_tuple_class_made_on_the_spot_is_fields_too() -> None:
    assert shapes(namedtuple("Point", "x y")(1, ONE)) == {"x": 1, "y": "shape (1,)"}
