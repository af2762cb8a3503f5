"""Which keys FlashAttention 4 sees in a block that holds padding; imported only where flash-attn-4 is installed.

CuTe compiles the function from its source and looks at its annotations, so they stay values: no `from __future__` here.
"""

import cutlass
from cutlass import cute
from flash_attn.cute import utils


@cute.jit  # type: ignore[untyped-decorator]  # cutlass has no types
def is_token(  # type: ignore[no-untyped-def]  # as it is called, the last two have none
    batch: cute.TensorSSA,
    head: cute.TensorSSA,
    query: cute.TensorSSA,
    key: cute.TensorSSA,
    seqlen_info,
    aux_tensors,
) -> cute.TensorSSA:
    """Whether the key is a token: `aux_tensors` holds one int32 per key, 0 for padding."""
    real = aux_tensors[0]
    return utils.scalar_to_ssa(real[key[0]], cutlass.Int32) > utils.scalar_to_ssa(0, cutlass.Int32)
