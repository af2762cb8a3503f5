"""Video transformers of diffusers that no family describes, with the reason."""

from __future__ import annotations

LEFT_OUT: dict[str, str] = {
    "ConsisIDTransformer3DModel": "features of a face are added between its blocks",
    "Cosmos3OmniTransformer": "its blocks begin with the text, which attends causally in the same processor",
    "Kandinsky6SRTransformer3DModel": "each layer makes a sparse mask of its own, for flex attention alone",
    "Kandinsky6Transformer3DModel": "its blocks take video, audio and a text for each, and return both streams",
    "LatteTransformer3DModel": "its two lists of blocks, spatial and temporal, run in turns",
    "MiniMaxH3Transformer3DModel": "text, audio and video lie mixed in one sequence, and it has no plain pipeline",
    "MotifVideoTransformer3DModel": "its last blocks start from the patches anew, with the video in the text's place",
    "SanaVideoTransformer3DModel": "its self attention is linear, and a convolution in each block needs the grid",
    "SanaWMLTX2RefinerTransformer3DModel": "its attention keeps keys and values of earlier chunks in a cache",
    "SanaWMTransformer3DModel": "most of its self attention is linear, with a state that runs along the frames",
}
"""The reason by the name of the class."""
