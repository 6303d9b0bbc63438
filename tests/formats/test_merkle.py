"""The tree is that of RFC 6962, proofs prove, and nothing else does."""

from __future__ import annotations

from hashlib import sha512

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.formats.merkle import (
    MerkleTree,
    consistency_proof,
    inclusion_proof,
    merkle_root,
    verify_consistency,
    verify_inclusion,
)

leaves = st.lists(st.binary(max_size=4), max_size=40)


def root_as_defined(listed: list[bytes]) -> bytes:
    """The definition of RFC 6962 section 2.1, word for word."""
    if not listed:
        return sha512().digest()
    if len(listed) == 1:
        return sha512(b"\0" + listed[0]).digest()
    middle = 1
    while middle * 2 < len(listed):
        middle *= 2
    return sha512(b"\1" + root_as_defined(listed[:middle]) + root_as_defined(listed[middle:])).digest()


@given(leaves)
def test_the_root_is_as_defined_at_every_size(listed: list[bytes]) -> None:
    tree = MerkleTree()
    for count, leaf in enumerate(listed):
        assert tree.root() == root_as_defined(listed[:count])
        tree.append(leaf)
    assert tree.root_hex() == merkle_root(listed) == root_as_defined(listed).hex()
    assert tree.size == len(listed)


def test_every_leaf_of_every_small_tree_has_a_proof() -> None:
    for size in range(1, 20):
        listed = [b"%d" % number for number in range(size)]
        root = merkle_root(listed)
        for index in range(size):
            proof = inclusion_proof(listed, index)
            assert verify_inclusion(listed[index], index, size, proof, root)
            assert not verify_inclusion(b"x", index, size, proof, root)
            assert not verify_inclusion(listed[index], index, size, [*proof, root], root)
            if proof:
                assert not verify_inclusion(listed[index], index, size, proof[:-1], root)
                assert not verify_inclusion(listed[index], (index + 1) % size, size, proof, root)


@given(st.lists(st.binary(max_size=4), min_size=2, max_size=30), st.data())
def test_a_changed_proof_proves_nothing(listed: list[bytes], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(listed) - 1))
    proof = inclusion_proof(listed, index)
    step = data.draw(st.integers(0, len(proof) - 1))
    proof[step] = sha512(bytes.fromhex(proof[step])).hexdigest()
    assert not verify_inclusion(listed[index], index, len(listed), proof, merkle_root(listed))


def test_every_small_tree_continues_each_of_its_beginnings() -> None:
    listed = [b"%d" % number for number in range(20)]
    roots = [merkle_root(listed[:size]) for size in range(21)]
    for size in range(21):
        for old in range(size + 1):
            proof = consistency_proof(listed[:size], old)
            assert verify_consistency(old, roots[old], size, roots[size], proof), (old, size)
            if old and old != size:
                assert not verify_consistency(old, roots[old - 1], size, roots[size], proof)
                assert not verify_consistency(old, roots[old], size, roots[size - 1], proof)
                assert not verify_consistency(old, roots[old], size, roots[size], proof[:-1])
                assert not verify_consistency(old, roots[old], size, roots[size], [*proof, roots[0]])


def test_a_rewritten_beginning_is_seen() -> None:
    old, new = [b"a", b"b", b"c"], [b"a", b"X", b"c", b"d"]
    proof = consistency_proof(new, 3)
    assert not verify_consistency(3, merkle_root(old), 4, merkle_root(new), proof)


def test_impossible_questions() -> None:
    root = merkle_root([b"a", b"b"])
    assert not verify_inclusion(b"a", 0, 2, ["no digest"], root)
    assert not verify_consistency(1, merkle_root([b"a"]), 2, root, ["no digest"])
    assert not verify_consistency(1, "no digest", 2, root, inclusion_proof([b"a", b"b"], 0))
    assert not verify_inclusion(b"a", 1, 1, [], merkle_root([b"a"]))
    assert not verify_inclusion(b"a", -1, 1, [], merkle_root([b"a"]))
    assert not verify_consistency(2, merkle_root([b"a"]), 1, merkle_root([b"a"]), [])
    with pytest.raises(IndexError):
        inclusion_proof([b"a"], 1)
    with pytest.raises(ValueError, match="fewer"):
        consistency_proof([b"a"], 2)
