from fv_firstblock import FirstBlockCache

from fastvideo_core.testing import CachePolicySuite


class TestFirstBlockCache(CachePolicySuite):
    policy = FirstBlockCache(threshold=0.2)
    never = FirstBlockCache(threshold=0)
