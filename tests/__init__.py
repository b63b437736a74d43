"""The tests.  What they stand on is in `tests.support`; script/test runs them."""
