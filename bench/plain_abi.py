"""Makes a module of Higress's SDK one that a plain proxy-wasm host takes: Envoy knows no interface 0.2.100, and what the
modules measured here import is all in 0.2.1. Renames that export and touches nothing else."""

HIGRESS, PLAIN = b'proxy_abi_version_0_2_100', b'proxy_abi_version_0_2_1'
EXPORTS = 7


def plain(module):
    """The module's bytes with the export renamed; ValueError when it has none."""
    place, found = 8, False
    pieces = [module[:place]]
    while place < len(module):
        size, start = number(module, place + 1)
        body = module[start:start + size]
        if module[place] == EXPORTS:
            named = bytes([len(HIGRESS)]) + HIGRESS
            found = named in body
            body = body.replace(named, bytes([len(PLAIN)]) + PLAIN)
        pieces += [module[place:place + 1], encoded(len(body)), body]
        place = start + size
    if not found:
        raise ValueError(f'the module does not export {HIGRESS.decode()}')
    return b''.join(pieces)


def number(data, place):
    """A LEB128 number, and where it ends."""
    value = shift = 0
    while True:
        byte = data[place]
        place += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, place


def encoded(value):
    digits = []
    while value > 127:
        digits.append(value & 127 | 128)
        value >>= 7
    return bytes(digits + [value])
