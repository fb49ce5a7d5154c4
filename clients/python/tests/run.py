"""Runs the tests in Python, with nothing but the standard library."""

import os
import sys
import unittest

here = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(here))
suite = unittest.TestLoader().discover(here, top_level_dir=os.path.dirname(here))
sys.exit(not unittest.TextTestRunner(stream=sys.stderr).run(suite).wasSuccessful())
