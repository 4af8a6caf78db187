import unittest

from roman import roman


class Roman(unittest.TestCase):
    def test_adding(self):
        self.assertEqual(roman(2026), "MMXXVI")

    def test_subtracting(self):
        self.assertEqual([roman(n) for n in (4, 9, 40, 1999)], ["IV", "IX", "XL", "MCMXCIX"])


if __name__ == "__main__":
    unittest.main()
