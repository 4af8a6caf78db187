import unittest

from clock import spoken


class Clock(unittest.TestCase):
    def test_a_day_and_a_bit(self):
        self.assertEqual(spoken(86400 + 2 * 3600 + 3 * 60 + 4), "1 day, 2:03:04")


if __name__ == "__main__":
    unittest.main()
