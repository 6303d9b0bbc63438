"""The tree of a document as its rows see it: changing leaves and keeping the objects above them in step. Pure.

Live writing and replaying a history go through the same function, so that both leave the same rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

from perdure.metadata.errors import BrokenHistoryError
from perdure.metadata.model import PartialObject, Value, iter_parents, parse_leaf, unescape


@dataclass(slots=True)
class Node:
    """A place in a document: a leaf has a `value`, an object has `members`; one with neither is about to go."""

    ordinal: int
    value: str | None = None
    members: int = 0
    next_ordinal: int = 0


@dataclass(frozen=True, slots=True)
class LeafChange:
    """The text of one leaf before and after; None where there was or is none."""

    pointer: str
    before: str | None
    after: str | None


Nodes: TypeAlias = dict[str, Node]


def copy_nodes(nodes: Mapping[str, Node]) -> Nodes:
    return {pointer: replace(node) for pointer, node in nodes.items()}


def assemble(nodes: Mapping[str, Node]) -> PartialObject:
    """The part of a document that these nodes hold; members that are not among them are counted as hidden."""
    root = PartialObject(hidden=nodes[""].members if "" in nodes else 0)
    objects: dict[str, PartialObject] = {"": root}
    for pointer, node in _from_the_top(nodes):
        parent, _, token = pointer.rpartition("/")
        owner = objects[parent]
        owner.hidden -= 1
        owner[unescape(token)] = _value_of(pointer, node, objects)
    return root


def list_texts(nodes: Mapping[str, Node]) -> dict[str, str]:
    """Pointer and text of the leaves among the nodes, in the document's order where every node is given."""
    places: dict[str, tuple[int, ...]] = {"": ()}
    for pointer, node in _from_the_top(nodes):
        places[pointer] = (*places[pointer.rpartition("/")[0]], node.ordinal)
    leaves = {pointer: node.value for pointer, node in nodes.items() if node.value is not None}
    return dict(sorted(leaves.items(), key=lambda item: places[item[0]]))


def apply_changes(nodes: Nodes, changes: Iterable[LeafChange]) -> None:
    """Change the leaves, make the objects that they need, and let go of objects that have no member left.

    `nodes` must hold every changed leaf that exists and everything above it. Raises BrokenHistoryError when a text
    before is not the present one.
    """
    touched: list[str] = []
    for change in changes:
        _vacate(nodes, change)
        if change.after is not None:
            _ensure(nodes, change.pointer).value = change.after
        touched.append(change.pointer)
    _prune(nodes, touched)


def _from_the_top(nodes: Mapping[str, Node]) -> list[tuple[str, Node]]:
    below = ((pointer, node) for pointer, node in nodes.items() if pointer)
    return sorted(below, key=lambda item: (item[0].count("/"), item[1].ordinal))


def _value_of(pointer: str, node: Node, objects: dict[str, PartialObject]) -> Value:
    if node.value is not None:
        return parse_leaf(node.value)
    objects[pointer] = PartialObject(hidden=node.members)
    return objects[pointer]


def _vacate(nodes: Nodes, change: LeafChange) -> None:
    node = nodes.get(change.pointer)
    present = node.value if node is not None else None
    if present != change.before:
        raise BrokenHistoryError(
            f"The value at {change.pointer!r} is not the one that was there before the change.",
            pointer=change.pointer,
        )
    if node is not None:
        node.value = None


def _ensure(nodes: Nodes, pointer: str) -> Node:
    node = nodes.get(pointer)
    if node is None:
        ordinal = 0
        if pointer:
            parent = _ensure(nodes, pointer.rpartition("/")[0])
            ordinal = parent.next_ordinal
            parent.next_ordinal += 1
            parent.members += 1
        node = nodes[pointer] = Node(ordinal)
    return node


def _prune(nodes: Nodes, touched: Iterable[str]) -> None:
    places = {parent for pointer in touched for parent in iter_parents(pointer)} | set(touched)
    for pointer in sorted(places, key=lambda place: place.count("/"), reverse=True):
        node = nodes.get(pointer)
        if node is None:
            continue
        if node.value is not None and node.members:
            raise BrokenHistoryError(f"{pointer!r} would be a value and an object at once.", pointer=pointer)
        if pointer and node.value is None and not node.members:
            del nodes[pointer]
            nodes[pointer.rpartition("/")[0]].members -= 1
