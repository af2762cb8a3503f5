"""What the processes of `together` need, imported once, before they are made: it takes seconds."""

import transformers.models.clip.modeling_clip
import transformers.models.llama.modeling_llama
import transformers.models.t5.modeling_t5
import transformers.models.umt5.modeling_umt5  # noqa: F401

import tests.support.together_cases  # noqa: F401
from tests.support.dense_tiles import stand_in

stand_in()
