import unittest

from planets import PLANETS, moons


class Planets(unittest.TestCase):
    def test_inner_planets(self):
        self.assertEqual(set(PLANETS), {"Mercury", "Venus", "Earth", "Mars"})
        self.assertEqual([moons(name) for name in PLANETS], [0, 0, 1, 2])


if __name__ == "__main__":
    unittest.main()
