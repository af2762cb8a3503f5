"""What must be so before torch and numpy are imported: conftest.py imports this first.

No garbage collection while the tests are imported, as all of that stays; `pytest_collection_finish` in conftest.py
switches it on again. And what they read from the environment when they are imported.
"""

import gc
import os

gc.disable()
# Workers run side by side, and a pool of processes for each only starts slowly.
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
# It compiles and loads a program for each vector instruction set that the processor lists, to see that it has it.
os.environ.setdefault("TORCHINDUCTOR_VEC_ISA_OK", "1")
# Numpy's threads wait in a loop for work; and more threads in each process that tests start only get in the way.
os.environ.setdefault("OMP_NUM_THREADS", "1")
