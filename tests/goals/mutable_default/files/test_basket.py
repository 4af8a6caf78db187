import unittest

from basket import add


class Basket(unittest.TestCase):
    def test_each_basket_is_new(self):
        self.assertEqual(add("apple"), ["apple"])
        self.assertEqual(add("pear"), ["pear"])

    def test_a_given_basket_is_used(self):
        mine = ["apple"]
        self.assertIs(add("pear", mine), mine)
        self.assertEqual(mine, ["apple", "pear"])


if __name__ == "__main__":
    unittest.main()
