import unittest

import registry


class Registry_a(unittest.TestCase):
    def tearDown(self):
        registry.clear()

    def test_only_what_was_registered_here_is_called(self):
        registry.register("start", lambda: "a")
        self.assertEqual(registry.fire("start"), ["a"])


if __name__ == "__main__":
    unittest.main()
