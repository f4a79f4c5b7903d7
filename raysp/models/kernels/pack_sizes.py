"""Sizes of packs, rows end to end in place of a padded batch; importable without torch."""

PRODUCT_ROWS = 256
"""Rows of a product in half precision on a CPU, of inputs of a multiple of them: packs. The place of a row among 256
never mattered (docs/decisions/013-half-precision.md)."""

LEAST_FRAMES = 8


def slot_frames(num_inputs: int, stride: int) -> int:
    """Return the frames of a pack that a row of so many inputs takes: they hold all of them."""
    return -(-num_inputs // stride)


def whole_parts(num_frames: int) -> int:
    """Round up to frames of which products on a CPU are whole (`PRODUCT_ROWS`), at least those of one."""
    return max(1, -(-num_frames // PRODUCT_ROWS)) * PRODUCT_ROWS


def usual_frames(num_frames: int) -> int:
    """Round up to a number of frames that recurs: oneDNN caches a program for each number."""
    step = max(LEAST_FRAMES, 1 << max(0, num_frames.bit_length() - 3))
    return -(-num_frames // step) * step
