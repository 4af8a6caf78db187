import unittest

from table import numbers


class Table(unittest.TestCase):
    def test_the_squares(self):
        self.assertEqual(numbers("squares.tbl"), [n * n for n in range(256)])


if __name__ == "__main__":
    unittest.main()
