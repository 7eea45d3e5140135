"""A module for a plain host differs from the one of Higress's SDK in one name."""
import unittest

import plain_abi


def section(number, body):
    return bytes([number]) + plain_abi.encoded(len(body)) + body


class Plain(unittest.TestCase):
    def test_the_export_is_renamed_and_lengths_are_kept_right(self):
        head, code = b'\0asm\1\0\0\0', section(10, b'x' * 300)

        def exports(name):
            return section(7, b'\1' + bytes([len(name)]) + name + b'\0\0')
        made = plain_abi.plain(head + exports(plain_abi.HIGRESS) + code)
        self.assertEqual(made, head + exports(plain_abi.PLAIN) + code)

    def test_another_module_is_refused(self):
        with self.assertRaises(ValueError):
            plain_abi.plain(b'\0asm\1\0\0\0' + section(7, b'\1\6memory\2\0'))


if __name__ == '__main__':
    unittest.main()
