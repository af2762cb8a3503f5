"""How many parameters the parts have that checkpoints share, counted by building them from their configurations.

`benchmarks/configurations.py` has these; a test counts them anew.
"""

from __future__ import annotations

UMT5_XXL = 5_680_910_336
T5_XXL = 4_762_310_656
T5_11B = 4_864_791_552
WAN_VAE = 126_892_531
CLIP_H = 630_766_080
