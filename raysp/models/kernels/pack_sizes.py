"""Sizes of packs, rows end to end in place of a padded batch; importable without torch."""

PRODUCT_ROWS = 256
"""Rows of a product in half precision on a CPU, of inputs of a multiple of them: packs. The place of a row among 256
never mattered (docs/decisions/013-half-precision.md)."""

ALIGNED_SAMPLES = 64
"""Samples at whose multiples rows begin where each goes by itself through a front end: kernels may sum in another order
at another alignment of memory."""
LEAST_FRAMES = 8
FRAMES_A_ROW = 16
"""Frames of a pack on a device for each row that it may have, up to `PRODUCT_ROWS` rows."""


def slot_frames(num_inputs: int, stride: int) -> int:
    """Return the frames that a row takes in a pack: `num_inputs` over the stride, rounded up."""
    return -(-num_inputs // stride)


def whole_parts(num_frames: int) -> int:
    """Round up to frames of which products on a CPU are whole (`PRODUCT_ROWS`), at least those of one."""
    return max(1, -(-num_frames // PRODUCT_ROWS)) * PRODUCT_ROWS


def most_rows(num_frames: int) -> int:
    """Return the most rows of a pack of `num_frames` frames on a device, which is the size of all its tables."""
    return max(1, min(PRODUCT_ROWS, num_frames // FRAMES_A_ROW))


def places_of_rows(num_rows: int, num_frames: int) -> int:
    """Return the rows that attention has places for in a pack of so many rows: a quarter, a half or all of the most."""
    most = most_rows(num_frames)
    return next((places for places in (most // 4, most // 2) if num_rows <= places), max(num_rows, most))


def usual_frames(num_frames: int) -> int:
    """Round up to a number of frames that recurs: oneDNN caches a program for each number."""
    step = max(LEAST_FRAMES, 1 << max(0, num_frames.bit_length() - 3))
    return -(-num_frames // step) * step
