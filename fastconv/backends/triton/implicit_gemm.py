"""The tile loop that fprop and dgrad share: gather input pixels, multiply by the filter's taps, finish and store.

    output[row, n] = sum over taps (i, j) and channels c of
        input[pixel(row) + tap shift, c] * filter[tap, c, n]

A row is an output pixel. fprop is one such problem; dgrad is one for each stride phase. What differs is host arithmetic: where
the input pixel of a row lies, how far a tap shifts it, and which filter element a tap is.

A loop nest is pipelined in its innermost loop, so the longer of the two loops, taps or channel blocks, is made the inner one.
Taps and channels are never flattened into one counter, and `taps` is no constant: a loop whose length the assembler knows is
unrolled whole, into spills. Every masked load has `other=0`, and halo offsets are clamped into the
image: a masked load that was moved ahead of its use must not form an address before the tensor.
"""

import triton.language as tl

from fastconv.backends.triton.numerics import activate, multiply_accumulate, narrow, raised, turned, widen
from fastconv.backends.triton.padding import comes_from_the_image, padded_index, with_constant
from fastconv.backends.triton.runtime import device_function


@device_function
def load_tile(
    pointer, row_offsets, column_offsets, row_mask, column_mask,
    ROWS_MASKED: tl.constexpr, COLUMNS_MASKED: tl.constexpr, ROWS_MINOR: tl.constexpr,
):  # fmt: skip
    """[ROWS, COLUMNS] from pointer + row offset + column offset.

    The compiler gives neighbouring threads neighbouring elements of the last dimension where it can prove nothing better, so
    where rows lie closer together in memory the tile is loaded transposed.
    """
    if ROWS_MINOR:
        pointers = pointer + (column_offsets[:, None] + row_offsets[None, :])
        if ROWS_MASKED and COLUMNS_MASKED:
            tile = tl.load(pointers, mask=column_mask[:, None] & row_mask[None, :], other=0.0)
        elif ROWS_MASKED:
            tile = tl.load(pointers, mask=row_mask[None, :], other=0.0)
        elif COLUMNS_MASKED:
            tile = tl.load(pointers, mask=column_mask[:, None], other=0.0)
        else:
            tile = tl.load(pointers)
        result = tl.trans(tile)
    else:
        pointers = pointer + (row_offsets[:, None] + column_offsets[None, :])
        if ROWS_MASKED and COLUMNS_MASKED:
            result = tl.load(pointers, mask=row_mask[:, None] & column_mask[None, :], other=0.0)
        elif ROWS_MASKED:
            result = tl.load(pointers, mask=row_mask[:, None], other=0.0)
        elif COLUMNS_MASKED:
            result = tl.load(pointers, mask=column_mask[None, :], other=0.0)
        else:
            result = tl.load(pointers)
    return result


@device_function
def shifted_tile(
    pointer, row_h, row_w, row_offsets, row_valid, column_h, column_w, column_offsets, column_valid,
    height, width, stride_h, stride_w, PADDING: tl.constexpr, PADDING_VALUE: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """[ROWS, COLUMNS] where the pixel of an element is the sum of its row's and its column's; zero where one is not valid."""
    h = row_h[:, None] + column_h[None, :]
    w = row_w[:, None] + column_w[None, :]
    valid = row_valid[:, None] & column_valid[None, :]
    inside = comes_from_the_image(valid, h, height, w, width, PADDING)
    h = widen(padded_index(h, height, PADDING), WIDE)
    w = widen(padded_index(w, width, PADDING), WIDE)
    offsets = row_offsets[:, None] + column_offsets[None, :] + (h * stride_h + w * stride_w)
    tile = tl.load(pointer + offsets, mask=inside, other=0.0)
    return with_constant(tile, valid & ~inside, PADDING, PADDING_VALUE)


@device_function
def store_tile(pointer, tile, row_offsets, column_offsets, row_mask, column_mask, ROWS_MINOR: tl.constexpr):
    """[ROWS, COLUMNS] to pointer + row offset + column offset, by rows or by columns as they lie in memory."""
    if ROWS_MINOR:
        pointers = pointer + (column_offsets[:, None] + row_offsets[None, :])
        tl.store(pointers, tl.trans(tile), mask=column_mask[:, None] & row_mask[None, :])
    else:
        pointers = pointer + (row_offsets[:, None] + column_offsets[None, :])
        tl.store(pointers, tile, mask=row_mask[:, None] & column_mask[None, :])


@device_function
def _step(
    accumulator, input_pointer, filter_pointer, image_offsets, row_h, row_w, row_valid, height, width,
    input_stride_h, input_stride_w, input_stride_c, shift_h, shift_w, channel, channels,
    tap_offset, filter_stride_c, out_offsets, out_valid,
    BLOCK_K: tl.constexpr, PADDING: tl.constexpr, PADDING_VALUE: tl.constexpr, ROWS_MASKED: tl.constexpr,
    EVEN_K: tl.constexpr, EVEN_N: tl.constexpr, INPUT_ROWS_MINOR: tl.constexpr, FILTER_ROWS_MINOR: tl.constexpr,
    PRECISION: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """One tap, one block of channels."""
    h = row_h + shift_h
    w = row_w + shift_w
    valid = row_valid
    if PADDING != "none":
        valid = comes_from_the_image(row_valid, h, height, w, width, PADDING)
        h = padded_index(h, height, PADDING)
        w = padded_index(w, width, PADDING)
    pixel_offsets = image_offsets + (widen(h, WIDE) * input_stride_h + widen(w, WIDE) * input_stride_w)
    k = channel + tl.arange(0, BLOCK_K)
    k_valid = k < channels
    k = widen(k, WIDE)
    left = load_tile(
        input_pointer,
        pixel_offsets,
        k * input_stride_c,
        valid,
        k_valid,
        PADDING == "zeros" or PADDING == "constant" or ROWS_MASKED,
        not EVEN_K,
        INPUT_ROWS_MINOR,
    )
    if PADDING == "constant":
        left = with_constant(left, (row_valid & ~valid)[:, None] & k_valid[None, :], PADDING, PADDING_VALUE)
    right = load_tile(
        filter_pointer + tap_offset, k * filter_stride_c, out_offsets, k_valid, out_valid,
        not EVEN_K, not EVEN_N, FILTER_ROWS_MINOR,
    )  # fmt: skip
    if INPUT_ROWS_MINOR:
        left = turned(left, PRECISION)
    if not FILTER_ROWS_MINOR:
        right = turned(right, PRECISION)
    return multiply_accumulate(left, right, accumulator, PRECISION, BLOCK_K)


@device_function
def accumulate(
    accumulator,  # [M, N]
    input_pointer, image_offsets, row_h, row_w, row_valid, height, width,
    input_stride_h, input_stride_w, input_stride_c, shift_step_h, shift_step_w,
    filter_pointer, filter_step_h, filter_step_w, filter_stride_c, out_offsets, out_valid,
    taps, taps_h, taps_w, channels,
    BLOCK_K: tl.constexpr, PADDING: tl.constexpr, PADDING_VALUE: tl.constexpr, ROWS_MASKED: tl.constexpr,
    EVEN_K: tl.constexpr, EVEN_N: tl.constexpr, INPUT_ROWS_MINOR: tl.constexpr, FILTER_ROWS_MINOR: tl.constexpr,
    TAPS_INNER: tl.constexpr, PRECISION: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """accumulator plus the sum over all taps and channels."""
    if TAPS_INNER:
        for channel in range(0, channels, BLOCK_K):
            for tap in range(taps):
                i = tap // taps_w
                j = tap - i * taps_w
                accumulator = _step(
                    accumulator, input_pointer, filter_pointer, image_offsets, row_h, row_w, row_valid, height, width,
                    input_stride_h, input_stride_w, input_stride_c, i * shift_step_h, j * shift_step_w, channel, channels,
                    widen(i, WIDE) * filter_step_h + widen(j, WIDE) * filter_step_w, filter_stride_c, out_offsets, out_valid,
                    BLOCK_K, PADDING, PADDING_VALUE, ROWS_MASKED, EVEN_K, EVEN_N, INPUT_ROWS_MINOR, FILTER_ROWS_MINOR,
                    PRECISION, WIDE,
                )  # fmt: skip
    else:
        for i in range(taps_h):
            for j in range(taps_w):
                for channel in range(0, channels, BLOCK_K):
                    accumulator = _step(
                        accumulator, input_pointer, filter_pointer, image_offsets, row_h, row_w, row_valid, height, width,
                        input_stride_h, input_stride_w, input_stride_c, i * shift_step_h, j * shift_step_w, channel, channels,
                        widen(i, WIDE) * filter_step_h + widen(j, WIDE) * filter_step_w, filter_stride_c, out_offsets,
                        out_valid, BLOCK_K, PADDING, PADDING_VALUE, ROWS_MASKED, EVEN_K, EVEN_N, INPUT_ROWS_MINOR,
                        FILTER_ROWS_MINOR, PRECISION, WIDE,
                    )  # fmt: skip
    return accumulator


@device_function
def _finish_tile(
    accumulator, output_pointer, bias_pointer, residual_pointer, row_offsets, column, column_stride, residual_row_offsets,
    residual_column_stride, row_valid, first_column, columns, ROWS_MINOR: tl.constexpr, ACTIVATION: tl.constexpr,
    WIDE: tl.constexpr,
):  # fmt: skip
    column_valid = column < columns
    column = widen(first_column + column, WIDE)
    if bias_pointer is not None:
        bias = tl.load(bias_pointer + column, mask=column_valid, other=0.0)
        accumulator += raised(bias, accumulator.dtype)[None, :]
    if residual_pointer is not None:
        residual = load_tile(
            residual_pointer, residual_row_offsets, column * residual_column_stride, row_valid, column_valid,
            True, True, ROWS_MINOR,
        )  # fmt: skip
        accumulator += raised(residual, accumulator.dtype)
    tile = narrow(activate(accumulator, ACTIVATION), output_pointer.dtype.element_ty)
    store_tile(output_pointer, tile, row_offsets, column * column_stride, row_valid, column_valid, ROWS_MINOR)


@device_function
def finish(
    accumulator, output_pointer, bias_pointer, residual_pointer, row_offsets, column_stride, residual_row_offsets,
    residual_column_stride, row_valid, tile, first_column, columns,
    BLOCK_N: tl.constexpr, HALVES: tl.constexpr, ROWS_MINOR: tl.constexpr, ACTIVATION: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Add bias and residual, apply the activation, round once, store the tile's columns [tile * BLOCK_N, ...) of a group.

    HALVES does it half a tile at a time: with the whole accumulator alive, a whole tile of temporaries does not fit beside it.
    """
    if HALVES:
        HALF: tl.constexpr = BLOCK_N // 2
        first, second = tl.split(tl.permute(tl.reshape(accumulator, [accumulator.shape[0], 2, HALF]), [0, 2, 1]))
        column = tile * BLOCK_N + tl.arange(0, HALF)
        _finish_tile(
            first, output_pointer, bias_pointer, residual_pointer, row_offsets, column, column_stride,
            residual_row_offsets, residual_column_stride, row_valid, first_column, columns, ROWS_MINOR, ACTIVATION, WIDE,
        )  # fmt: skip
        _finish_tile(
            second, output_pointer, bias_pointer, residual_pointer, row_offsets, column + HALF, column_stride,
            residual_row_offsets, residual_column_stride, row_valid, first_column, columns, ROWS_MINOR, ACTIVATION, WIDE,
        )  # fmt: skip
    else:
        _finish_tile(
            accumulator, output_pointer, bias_pointer, residual_pointer, row_offsets,
            tile * BLOCK_N + tl.arange(0, BLOCK_N), column_stride, residual_row_offsets, residual_column_stride, row_valid,
            first_column, columns, ROWS_MINOR, ACTIVATION, WIDE,
        )  # fmt: skip
