"""The demo: a classifier of scanned digits, trained on fastconv's kernels, and beside it the same one in plain torch.nn.

`fastconv demo` is its command. It needs scikit-learn for the digits and matplotlib for the picture, which come with
`pip install fastconv[demo]`.
"""
