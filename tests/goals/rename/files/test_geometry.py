import unittest
from pathlib import Path

from geometry.points import middle
from geometry.shapes import perimeter


class Geometry(unittest.TestCase):
    def test_the_name_is_gone(self):
        self.assertFalse(Path("geometry/utlis.py").exists())

    def test_a_square(self):
        self.assertEqual(perimeter([(0, 0), (0, 1), (1, 1), (1, 0)]), 4)
        self.assertEqual(middle((0, 0), (2, 4)), (1, 2))


if __name__ == "__main__":
    unittest.main()
