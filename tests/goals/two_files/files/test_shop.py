import unittest

from shop.prices import total
from shop.receipt import receipt


class Shop(unittest.TestCase):
    def test_total_takes_percent(self):
        self.assertEqual(total([1000, 500], 10), 1350)

    def test_receipt(self):
        self.assertEqual(receipt([1000, 500], 10), "Total: 13.50")
        self.assertEqual(receipt([1000, 5]), "Total: 10.05")


if __name__ == "__main__":
    unittest.main()
