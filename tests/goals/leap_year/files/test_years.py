import unittest

from years import is_leap


class Years(unittest.TestCase):
    def test_leap_years(self):
        for year in (1996, 2000, 2024):
            self.assertTrue(is_leap(year), year)

    def test_common_years(self):
        for year in (1900, 2023, 2100):
            self.assertFalse(is_leap(year), year)


if __name__ == "__main__":
    unittest.main()
