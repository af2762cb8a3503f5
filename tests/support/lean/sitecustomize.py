"""For Python processes that tests start: what diffusers and transformers import where it is installed, few users have.

It takes them two seconds more than torch does. `sys.modules` says of these names that there are no such packages.
"""

import atexit
import gc
import sys

for name in ("torchao", "bitsandbytes", "peft", "cache_dit", "gguf", "sklearn", "torchvision"):
    sys.modules.setdefault(name, None)  # type: ignore[arg-type]  # which importing takes for "there is none"
# As for the tests themselves. At its end Python looks through all that was imported once more, for a second.
gc.set_threshold(50_000, 20, 20)
atexit.register(gc.freeze)
