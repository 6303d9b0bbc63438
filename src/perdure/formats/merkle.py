"""A Merkle tree over lines: RFC 6962 section 2.1 with SHA-512 in the place of SHA-256.

The digest of a leaf is SHA-512(0x00 ‖ leaf), of a node SHA-512(0x01 ‖ left ‖ right), of the empty tree SHA-512 of
nothing. A list of n leaves splits at the largest power of two below n. SHA-512 is the default content digest, so that
one algorithm carries both a file and its place in the archive. The verifiers follow RFC 9162 sections 2.1.3 and 2.1.4.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha512

ALGORITHM = "rfc6962-sha512"


def leaf_digest(leaf: bytes) -> bytes:
    """The digest of one leaf."""
    return sha512(b"\0" + leaf).digest()


def node_digest(left: bytes, right: bytes) -> bytes:
    """The digest of the node above two subtrees."""
    return sha512(b"\1" + left + right).digest()


class MerkleTree:
    """The root over leaves given one by one, in memory that grows with the logarithm of their number."""

    def __init__(self) -> None:
        self._complete: list[bytes] = []  # roots of complete subtrees, the largest first: one per 1-bit of `size`
        self.size = 0

    def append(self, leaf: bytes) -> None:
        """Add the next leaf."""
        self.extend((leaf,))

    def extend(self, leaves: Iterable[bytes]) -> None:
        """Add the next leaves."""
        complete, size = self._complete, self.size
        for leaf in leaves:
            digest, size = sha512(b"\0" + leaf).digest(), size + 1
            left = size
            while not left & 1:  # as many nodes are complete as the size has zeros at its end
                digest, left = sha512(b"\1" + complete.pop() + digest).digest(), left >> 1
            complete.append(digest)
        self.size = size

    def root(self) -> bytes:
        """The root over all leaves so far; more may follow."""
        return _fold(self._complete)

    def root_hex(self) -> str:
        """The root in lower-case hexadecimal."""
        return self.root().hex()


def merkle_root(leaves: Iterable[bytes]) -> str:
    """The root over all leaves, in hexadecimal."""
    tree = MerkleTree()
    for leaf in leaves:
        tree.append(leaf)
    return tree.root_hex()


def inclusion_proof(leaves: Iterable[bytes], index: int) -> list[str]:
    """The audit path of the leaf at `index`, nearest sibling first; raises IndexError when there is no such leaf.

    Reads the leaves once and keeps their digests: 64 bytes and some per leaf.
    """
    digests = [leaf_digest(leaf) for leaf in leaves]
    if not 0 <= index < len(digests):
        raise IndexError(f"there is no leaf {index}")
    return [digest.hex() for digest in _inclusion_path(digests, index)]


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[str], root: str) -> bool:
    """Whether the leaf stands at `index` of the tree with this size and root; a malformed proof proves nothing."""
    path = _decode(proof)
    if path is None or not 0 <= index < size:
        return False
    position, last, digest = index, size - 1, leaf_digest(leaf)
    for sibling in path:
        if last == 0:
            return False
        if position & 1 or position == last:
            digest = node_digest(sibling, digest)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            digest = node_digest(digest, sibling)
        position, last = position >> 1, last >> 1
    return last == 0 and digest.hex() == root.lower()


def consistency_proof(leaves: Iterable[bytes], old_size: int) -> list[str]:
    """The proof that the tree of the first `old_size` leaves was only added to; raises ValueError when it is longer."""
    digests = [leaf_digest(leaf) for leaf in leaves]
    if not 0 <= old_size <= len(digests):
        raise ValueError(f"there are {len(digests)} leaves, fewer than {old_size}")
    return [digest.hex() for digest in _consistency_path(digests, old_size, is_old_tree=True)] if old_size else []


def verify_consistency(old_size: int, old_root: str, size: int, root: str, proof: Sequence[str]) -> bool:
    """Whether the tree with `root` continues the one with `old_root`; the empty tree is continued by all."""
    if old_size == 0:
        return not proof and old_root.lower() == sha512().hexdigest() and size >= 0
    if old_size == size:
        return not proof and old_root.lower() == root.lower()
    if not 0 < old_size < size:
        return False
    # A complete old tree is a node of the new one, and its root is left out of the proof.
    path = _decode([old_root, *proof] if old_size & (old_size - 1) == 0 else proof)
    if not path:
        return False
    return _walk_consistency(old_size, size, path) == (old_root.lower(), root.lower())


def _walk_consistency(old_size: int, size: int, path: Sequence[bytes]) -> tuple[str, str] | None:
    """The two roots that a consistency path leads to, or None when it is too long or too short."""
    position, last = old_size - 1, size - 1
    while position & 1:
        position, last = position >> 1, last >> 1
    old = new = path[0]
    for sibling in path[1:]:
        if last == 0:
            return None
        if position & 1 or position == last:
            old, new = node_digest(sibling, old), node_digest(sibling, new)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            new = node_digest(new, sibling)
        position, last = position >> 1, last >> 1
    return (old.hex(), new.hex()) if last == 0 else None


def _decode(proof: Sequence[str]) -> list[bytes] | None:
    try:
        return [bytes.fromhex(step) for step in proof]
    except ValueError:
        return None


def _trailing_zeros(number: int) -> int:
    return (number & -number).bit_length() - 1


def _fold(complete: Sequence[bytes]) -> bytes:
    """The root over complete subtrees, given the largest first."""
    if not complete:
        return sha512().digest()
    digest = complete[-1]
    for left in reversed(complete[:-1]):
        digest = node_digest(left, digest)
    return digest


def _root_of(digests: Sequence[bytes]) -> bytes:
    """The root over the digests of leaves."""
    complete: list[bytes] = []
    for count, digest in enumerate(digests, start=1):
        for _ in range(_trailing_zeros(count)):
            digest = node_digest(complete.pop(), digest)
        complete.append(digest)
    return _fold(complete)


def _split(count: int) -> int:
    """The largest power of two below `count`."""
    return 1 << (count - 1).bit_length() - 1


def _inclusion_path(digests: Sequence[bytes], index: int) -> list[bytes]:
    if len(digests) == 1:
        return []
    middle = _split(len(digests))
    if index < middle:
        return [*_inclusion_path(digests[:middle], index), _root_of(digests[middle:])]
    return [*_inclusion_path(digests[middle:], index - middle), _root_of(digests[:middle])]


def _consistency_path(digests: Sequence[bytes], old_size: int, *, is_old_tree: bool) -> list[bytes]:
    if old_size == len(digests):
        return [] if is_old_tree else [_root_of(digests)]
    middle = _split(len(digests))
    if old_size <= middle:
        return [*_consistency_path(digests[:middle], old_size, is_old_tree=is_old_tree), _root_of(digests[middle:])]
    return [*_consistency_path(digests[middle:], old_size - middle, is_old_tree=False), _root_of(digests[:middle])]
