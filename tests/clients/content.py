"""Contents that a seed makes, and that look like nothing a store could shrink or know already.

Invariant: the same seed and length give the same bytes, and two seeds share no block.
"""

import hashlib
import random

PIECE_BYTES = 1 << 20


def write(path, seed, size):
    """Writes the content of `seed` to `path`; its SHA-256."""
    generator, digest = random.Random(seed), hashlib.sha256()
    with open(path, "wb") as file:
        for begin in range(0, size, PIECE_BYTES):
            piece = generator.randbytes(min(PIECE_BYTES, size - begin))
            digest.update(piece)
            file.write(piece)
    return digest.hexdigest()


class Slice:
    """A part of a file as the body of one request, read piece by piece as it is sent."""

    def __init__(self, file, begin, size):
        """`size` bytes of `file` from `begin` on."""
        file.seek(begin)
        self.file, self.size, self.left = file, size, size

    def __len__(self):
        """What goes into Content-Length."""
        return self.size

    def read(self, wanted=-1):
        """The next bytes; none at the end."""
        size = self.left if wanted is None or wanted < 0 else min(wanted, self.left)
        piece = self.file.read(size)
        self.left -= len(piece)
        return piece
