"""What processes of tests that are forked from one need, imported once, before they are made: it takes seconds."""
# ruff: noqa: F401

import gc

import diffusers.pipelines.wan.pipeline_wan
import diffusers.pipelines.wan.pipeline_wan_i2v
import transformers.models.clip.modeling_clip
import transformers.models.llama.modeling_llama
import transformers.models.t5.modeling_t5
import transformers.models.umt5.modeling_umt5

import fastvideo_core.app.generator
import fastvideo_core.app.workers.worker
import tests.support.together_cases
import tests.support.together_more
from fastvideo_core.discovery.plugins import load_plugins
from tests.support.dense_tiles import stand_in

stand_in()
load_plugins()
gc.freeze()
