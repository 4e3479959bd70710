"""The program in a TorchScript file, judged before it runs: tensor operators only, nothing that reaches outside.

Torch runs parts of such a file while it loads it: ``__setstate__`` and the default values of parameters. So the text of
the program is read first, through torch's own reader of the archive. Every name behind a dot that is an operator of
torch must be on the list, and what could hide a name from that (odd ``getattr``, comments, classes made in C++) is not.
What torch compiled from the text is then compared with the same list.

The text is not parsed, because a parser that differs from torch's in one rule could be led past an operator: names are
found wherever they stand.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nx47dask.errors import ModelError

__all__ = ["OPERATORS", "STATEMENTS", "strange_operator", "strange_word"]

_OPERATORS = """
abs abs_ absolute acos acosh adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d
adaptive_max_pool2d adaptive_max_pool3d add add_ addbmm addcdiv addcdiv_ addcmul addcmul_ addmm addmv alias all
allclose alpha_dropout amax amin aminmax __and__ angle any append arange argmax argmin argsort asin asinh atan atan2
atanh avg_pool1d avg_pool2d avg_pool3d baddbmm batch_norm bilinear bitwise_and bitwise_left_shift bitwise_not
bitwise_or bitwise_right_shift bitwise_xor bmm Bool broadcast_tensors broadcast_to bucketize cat cdist ceil ceil_
celu celu_ channel_shuffle chunk clamp clamp_ clamp_max clamp_max_ clamp_min clamp_min_ clear clip clone
column_stack complex concat concatenate constant_pad_nd __contains__ contiguous conv1d conv2d conv3d conv_tbc
conv_transpose1d conv_transpose2d conv_transpose3d _convolution convolution _convolution_mode copy copy_ copysign
cos cosh cosine_similarity count count_nonzero cpu cross cuda cummax cummin cumprod cumsum deg2rad degrees
__derive_index detach detach_ device diag diag_embed diagonal diff dim dist div div_ divide divide_ dot dropout
dropout_ dsplit dstack einsum elu elu_ embedding endswith eq eq_ equal erf erfc exp exp_ exp2 expand expand_as expm1
extend eye fabs feature_alpha_dropout feature_dropout feature_dropout_ fill fill_ flatten flip fliplr flipud Float
FloatImplicit floor floor_ floor_divide floordiv fmax fmin fmod format frac full full_like gather ge gelu gelu_ get
__getitem__ glu grad greater greater_equal grid_sampler grid_sampler_2d grid_sampler_3d group_norm gt hardshrink
hardsigmoid hardsigmoid_ hardswish hardswish_ hardtanh hardtanh_ heaviside hsplit hstack hypot __iand__ imag index
index_add index_copy index_fill index_put index_put_ index_select inner insert instance_norm Int __interpolate
IntImplicit inverse __ior__ __is__ is_autocast_enabled is_complex is_contiguous is_floating_point is_grad_enabled
is_nonzero is_same_size isclose isfinite isinf isnan __isnot__ item items __ixor__ join keys kthvalue layer_norm le
leaky_relu leaky_relu_ len lerp less less_equal linalg_norm linalg_vector_norm linear linspace list log log_ log10
log1p log2 log_sigmoid log_softmax logaddexp logical_and logical_not logical_or logical_xor logit logspace logsumexp
lower __lshift__ lstrip lt masked_fill masked_fill_ masked_scatter masked_select matmul max max_pool1d max_pool2d
max_pool2d_with_indices max_pool3d max_pool3d_with_indices max_unpool2d max_unpool3d maximum mean median meshgrid
min minimum mish mish_ mm mode moveaxis movedim mul mul_ multiply multiply_ mv nan_to_num nanmean nansum narrow
native_batch_norm native_group_norm native_layer_norm _native_multi_head_attention ne neg neg_ negative new_full
new_ones new_zeros nonzero norm __not__ not_equal numel numpy_T one_hot ones ones_like __or__ outer pad pad_sequence
permute pixel_shuffle pixel_unshuffle polar pop positive pow pow_ prelu prod quantile rad2deg range __range_length
real reciprocal reflection_pad1d reflection_pad2d reflection_pad3d relu relu_ relu6 relu6_ remainder remove repeat
repeat_interleave replace replication_pad1d replication_pad2d replication_pad3d requires_grad_ reshape reshape_as
_reshape_from_tensor reverse roll rot90 round round_ __round_to_zero_floordiv rrelu __rshift__ rsqrt rstrip rsub
scalar_tensor ScalarImplicit scaled_dot_product_attention scatter scatter_ scatter_add scatter_add_ select
select_scatter selu selu_ set _set_item setdefault sgn _shape_as_tensor sigmoid sigmoid_ sign signbit silu silu_ sin
sinh size slice slice_scatter _softmax softmax softplus softshrink sort sorted split split_with_sizes splitlines
sqrt sqrt_ square squeeze squeeze_ stack startswith std std_mean stft str stride strip sub sub_ subtract subtract_
sum swapaxes swapdims t take take_along_dim tan tanh tanh_ tensor tensor_split tensordot threshold threshold_ tile
to topk _transformer_encoder_layer_fwd transpose transpose_ tril triu true_divide trunc type_as unbind unflatten
unfold unique_consecutive unsqueeze unsqueeze_ update upper __upsample upsample_bicubic2d _upsample_bicubic2d_aa
upsample_bilinear2d _upsample_bilinear2d_aa _upsample_lanczos2d_aa upsample_linear1d upsample_nearest1d
upsample_nearest2d upsample_nearest3d _upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d
upsample_trilinear3d values var var_mean view view_as view_as_complex view_as_real vsplit vstack warn _weight_norm
where __xor__ zero_ zeros zeros_like
"""
OPERATORS = frozenset(_OPERATORS.split())
"""Operators (``aten::``) that compute from tensors, numbers, texts and lists, and write nothing but memory.

Files, random numbers, streams, threads, unchecked indices and unset memory are left out."""

_STATEMENTS = """
abs annotate Constant data device DictConstruct DictIndex dtype GetAttr grad If is_cuda is_nested isinstance
itemsize layout ListConstruct ListUnpack Loop max min name ndim NumToTensor RaiseException requires_grad SetAttr
shape StringIndex TupleConstruct TupleIndex TupleSlice TupleUnpack type unchecked_cast unchecked_unwrap_optional
Uninitialized
"""
STATEMENTS = frozenset(_STATEMENTS.split())
"""Operators of the language itself (``prim::``): branches, loops, lists, attributes; no printing or threads."""

_BEHIND_A_DOT = re.compile(r"\.\W*([A-Za-z_]\w*)", re.ASCII)
_GETATTR = re.compile(r'\bgetattr\(([A-Za-z_][\w. ]*), "(\w+)"\)', re.ASCII)
_STRANGE_WORD = re.compile(r"\b(?:getattr|__setstate__|__getstate__|fork)\b|\btorch\W+classes\b|#", re.ASCII)
# Bare ``ops``, from which operators of every library are reached; ``self.ops`` and ``ops : T`` are an attribute.
_STRANGE_LIBRARY = re.compile(r"(?<![\w.])ops\b(?!\.(?:aten|prim)\.\w|\s*:)[\W]*\w*", re.ASCII)
_ZIP = b"PK\x03\x04"


def strange_word(path: Path) -> str | None:
    """Return the first word in the archive that is not of a pure tensor program; nothing of the file runs.

    Raises
    ------
    ModelError
        The file is not an archive of today that torch can open, or it has two entries of one name.
    """
    import torch

    schemas = torch._C._jit_get_all_schemas()
    unlisted = {schema.name.rpartition("::")[2] for schema in schemas} - OPERATORS - STATEMENTS
    for name, content in _records(path):
        text = content.decode("latin-1")
        if name.startswith("code/"):
            word = _strange_in_code(text, unlisted)
        else:  # a pickle may write the parts of a name on two lines
            word = "torch.classes" if re.search(r"torch\W+classes\b", text, re.ASCII) else None
        if word is not None:
            return word
    return None


def strange_operator(network: Any) -> str | None:
    """Return the first node of a loaded program that is not a pure tensor operator, all calls unfolded."""
    for method in network._c._method_names():
        for node in _nodes(network._c._get_method(method).inlined_graph):
            namespace, _, name = node.kind().partition("::")
            if name not in {"aten": OPERATORS, "prim": STATEMENTS}.get(namespace, ()):
                return str(node.kind())
    return None


def _strange_in_code(text: str, unlisted: set[str]) -> str | None:
    # Torch writes an attribute whose name is a number as getattr(a, "0"): made a.0, its name is judged as any other.
    changes = 1
    while changes:
        text, changes = _GETATTR.subn(r"\1.\2 ", text)
    for found in (_STRANGE_WORD.search(text), _STRANGE_LIBRARY.search(text)):
        if found:
            return " ".join(found[0].split())
    return next((found[1] for found in _BEHIND_A_DOT.finditer(text) if found[1] in unlisted), None)


def _nodes(block: Any) -> Iterator[Any]:
    for node in block.nodes():
        yield node
        for inner in node.blocks():
            yield from _nodes(inner)


def _records(path: Path) -> Iterator[tuple[str, bytes]]:
    """The program and the pickles of an archive, as torch itself finds them."""
    import torch

    with path.open("rb") as file:
        if file.read(len(_ZIP)) != _ZIP:  # torch knows a second kind of file, which it would read instead
            raise ModelError(f"{path}: not a TorchScript file", hint="save it again with torch.jit.save")
    try:
        reader = torch._C.PyTorchFileReader(str(path))
        names: list[str] = reader.get_all_records()
        twice = [name for name, count in Counter(name.casefold() for name in names).items() if count > 1]
        if twice:
            raise ModelError(f"{path}: its entry {twice[0]} is there twice", hint="save it again with torch.jit.save")
        if "model.json" in names:  # of before torch 1.2, with its program under any name
            raise ModelError(f"{path}: an archive of an old kind", hint="save it again with a torch of today")
        for name in names:
            folded = name.casefold()
            if (folded.startswith("code/") and not folded.endswith(".debug_pkl")) or folded.endswith(".pkl"):
                yield folded, reader.get_record(name)
    except RuntimeError as error:
        raise ModelError(f"{path}: torch {torch.__version__} cannot read it ({error})") from error
