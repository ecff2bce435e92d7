"""Problems chosen by hand: what goes wrong first. Each line is a case; dtype, layouts and backend are the test's."""

from __future__ import annotations

import dataclasses

from tests.support.cases import Case

#: name -> line
CONVOLUTIONS = {
    # Tiny: one of everything, and no more than one thread's work.
    "one": "conv2d",
    "one_pixel_many_channels": "conv2d n=2 c=17 k=9",
    "kernel_is_the_image": "conv2d n=2 c=3 h=5 w=4 k=4 r=5 s=4 bias=1",
    "one_output_row": "conv2d n=2 c=3 h=3 w=11 k=4 r=3 s=3",
    "one_output_column": "conv2d n=2 c=3 h=11 w=3 k=4 r=3 s=3 bias=1",
    "empty_batch": "conv2d n=0 c=3 h=5 w=5 k=4 r=3 s=3 bias=1",
    # Odd and asymmetric: height and width must never be swapped.
    "wide_kernel": "conv2d n=2 c=5 h=7 w=9 k=6 r=1 s=7 padding=0x3",
    "tall_kernel": "conv2d n=2 c=5 h=9 w=7 k=6 r=7 s=1 padding=3x0 bias=1",
    "even_kernel": "conv2d n=2 c=4 h=6 w=7 k=4 r=2 s=4 padding=1x2",
    "even_kernel_same": "conv2d n=2 c=4 h=6 w=7 k=4 r=2 s=4 padding=same bias=1",
    "odd_stride": "conv2d n=2 c=4 h=11 w=13 k=4 r=3 s=3 stride=3x2 padding=1x1",
    "stride_beyond_kernel": "conv2d n=2 c=3 h=11 w=10 k=4 r=2 s=1 stride=3x4 bias=1",
    "unread_last_row": "conv2d n=2 c=3 h=8 w=9 k=4 r=3 s=3 stride=2x3",
    "padding_beyond_kernel": "conv2d n=1 c=3 h=4 w=5 k=4 r=3 s=2 padding=5x4 bias=1",
    "odd_dilation": "conv2d n=2 c=3 h=11 w=12 k=4 r=3 s=3 dilation=3x2 padding=2x1",
    "all_at_once": "conv2d n=2 c=6 h=13 w=11 k=9 r=3 s=2 stride=2x3 padding=2x1 dilation=2x3 groups=3 bias=1",
    # Grouped.
    "depthwise": "conv2d n=2 c=9 h=7 w=8 k=9 r=3 s=3 padding=1x1 groups=9 bias=1",
    "depthwise_multiplier": "conv2d n=2 c=5 h=7 w=8 k=15 r=3 s=3 padding=1x1 groups=5",
    "depthwise_stride_7x7": "conv2d n=1 c=4 h=12 w=12 k=4 r=7 s=7 padding=3x3 stride=2x2 groups=4",
    "grouped": "conv2d n=2 c=8 h=6 w=6 k=12 r=3 s=3 padding=1x1 groups=4 bias=1",
    # As networks have them, smaller.
    "resnet_stem": "conv2d n=1 c=3 h=16 w=16 k=8 r=7 s=7 stride=2x2 padding=3x3",
    "resnet_3x3": "conv2d n=2 c=16 h=7 w=7 k=16 r=3 s=3 padding=1x1",
    "resnet_downsample": "conv2d n=2 c=16 h=8 w=8 k=32 stride=2x2",
    "resnet_1x1": "conv2d n=2 c=32 h=7 w=7 k=16",
    "first_layer_of_digits": "conv2d n=4 c=1 h=8 w=8 k=16 r=3 s=3 padding=1x1 bias=1 activation=relu",
    "more_outputs_than_a_block": "conv2d n=1 c=2 h=33 w=35 k=3 r=3 s=3 padding=1x1",
    "many_filters": "conv2d n=1 c=3 h=4 w=4 k=70 r=3 s=3 padding=1x1 bias=1",
    "residual_and_relu": "conv2d n=2 c=8 h=6 w=6 k=8 r=3 s=3 padding=1x1 bias=1 residual=contiguous activation=relu",
}

TRANSPOSED = {
    "t_one": "conv_transpose2d",
    "t_upsample_2x2": "conv_transpose2d n=2 c=8 h=5 w=6 k=4 r=2 s=2 stride=2x2 bias=1",
    "t_upsample_3x3": "conv_transpose2d n=2 c=8 h=5 w=6 k=4 r=3 s=3 stride=2x2 padding=1x1 output_padding=1x1",
    "t_upsample_4x4": "conv_transpose2d n=2 c=6 h=5 w=6 k=4 r=4 s=4 stride=2x2 padding=1x1 bias=1",
    "t_stride_beyond_kernel": "conv_transpose2d n=2 c=3 h=4 w=3 k=4 r=2 s=1 stride=3x4 output_padding=2x1 bias=1",
    "t_padding_beyond_kernel": "conv_transpose2d n=2 c=3 h=6 w=7 k=4 r=2 s=3 padding=2x3",
    "t_dilated": "conv_transpose2d n=2 c=3 h=5 w=4 k=4 r=3 s=3 stride=2x1 dilation=2x3 output_padding=1x2 bias=1",
    "t_grouped": "conv_transpose2d n=2 c=8 h=4 w=5 k=12 r=3 s=3 stride=2x2 padding=1x1 groups=4 bias=1",
    "t_depthwise": "conv_transpose2d n=2 c=6 h=4 w=5 k=6 r=4 s=4 stride=2x2 padding=1x1 groups=6",
    "t_empty_batch": "conv_transpose2d n=0 c=3 h=5 w=5 k=4 r=3 s=3",
    "t_asymmetric": "conv_transpose2d n=1 c=5 h=3 w=7 k=7 r=1 s=5 stride=1x3 padding=0x2 output_padding=0x2",
    "t_one_tap": "conv_transpose2d n=2 c=6 h=5 w=4 k=9 output_padding=1x2 dilation=3x3 groups=3 bias=1",
    "t_activation": "conv_transpose2d n=2 c=4 h=4 w=4 k=4 r=3 s=3 stride=2x2 bias=1 activation=leaky_relu",
}

POOLS = {
    "p_one": "max_pool2d",
    "p_2x2": "max_pool2d n=2 c=5 h=8 w=10 r=2 s=2 stride=2x2",
    "p_resnet": "max_pool2d n=2 c=8 h=13 w=12 r=3 s=3 stride=2x2 padding=1x1",
    "p_ceil": "max_pool2d n=2 c=3 h=8 w=9 r=3 s=2 stride=3x2 padding=1x0 ceil_mode=1",
    "p_ceil_drops_last_window": "max_pool2d n=1 c=2 h=5 w=6 r=2 s=2 stride=3x4 padding=1x1 ceil_mode=1",
    "p_dilated": "max_pool2d n=2 c=3 h=11 w=12 r=3 s=2 stride=1x2 padding=1x1 dilation=2x3",
    "p_overlap": "max_pool2d n=2 c=3 h=9 w=9 r=5 s=3 padding=2x1",
    "p_gaps": "max_pool2d n=2 c=3 h=11 w=10 r=2 s=1 stride=4x3",
    "p_ties": "max_pool2d n=2 c=4 h=9 w=8 r=3 s=3 stride=2x2 padding=1x1 data=ties",
    "p_special": "max_pool2d n=2 c=4 h=9 w=8 r=2 s=2 stride=2x2 data=special",
    "p_int32_offsets": "max_pool2d n=1 c=2 h=20 w=19 r=17 s=16 stride=2x2 padding=3x2",
    "p_byte_offsets_full": "max_pool2d n=1 c=2 h=18 w=18 r=16 s=16",
    "p_global": "max_pool2d n=2 c=17 h=6 w=5 r=6 s=5",
    "p_empty_batch": "max_pool2d n=0 c=3 h=5 w=5 r=2 s=2",
}

CURATED = {name: Case.parse(line) for name, line in (CONVOLUTIONS | TRANSPOSED | POOLS).items()}


def with_options(case: Case, **options: object) -> Case:
    """The case in another dtype, layout, backend, ...; data that the case itself asks for is kept."""
    if case.data != "normal":
        options.pop("data", None)
    return dataclasses.replace(case, **options)
