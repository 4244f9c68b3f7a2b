"""Python imports this by itself when its folder is on PYTHONPATH: how the harness gets into a rank
it did not start.
"""

import sys

if "trainer.loop.loop" in sys.orig_argv:
    from tests.faults import injuries

    injuries.install()
