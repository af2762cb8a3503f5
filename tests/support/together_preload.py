"""What the processes of `together` need, imported once, before they are made: it takes seconds."""

import diffusers.pipelines.cogvideo.pipeline_cogvideox
import diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video
import diffusers.pipelines.ltx.pipeline_ltx
import diffusers.pipelines.mochi.pipeline_mochi
import diffusers.pipelines.wan.pipeline_wan
import transformers.models.clip.modeling_clip
import transformers.models.llama.modeling_llama
import transformers.models.t5.modeling_t5
import transformers.models.umt5.modeling_umt5  # noqa: F401

import tests.support.together_cases  # noqa: F401
