"""No garbage collection while the tests are imported, from the first import on: all of that stays.

`pytest_collection_finish` in conftest.py switches it on again.
"""

import gc

gc.disable()
