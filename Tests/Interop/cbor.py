"""cbor2, in both directions.

read FILE         reads the values of FILE, one in hexadecimal a line, and prints each as text
write SEED COUNT  prints COUNT random values in hexadecimal, each followed by its text
"""

import random
import struct
import sys

import cbor2


def described(value):
    if value is None:
        return "n"
    if value is True:
        return "T"
    if value is False:
        return "F"
    if isinstance(value, int):
        return "i%d" % value
    if isinstance(value, float):
        return "f%d" % struct.unpack(">Q", struct.pack(">d", value))
    if isinstance(value, str):
        return "t" + value.encode().hex()
    if isinstance(value, bytes):
        return "b" + value.hex()
    if isinstance(value, cbor2.CBORTag) and value.tag == 1:
        return "d%d" % value.value
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(described(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(name.encode().hex() + ":" + described(item) for name, item in value.items()) + "}"
    raise TypeError(value)


def in_order(value):
    """`value` with the names of its maps in canonical order: the shorter first."""
    if isinstance(value, list):
        return [in_order(item) for item in value]
    if isinstance(value, dict):
        names = sorted(value, key=lambda name: (len(cbor2.dumps(name)), cbor2.dumps(name)))
        return {name: in_order(value[name]) for name in names}
    return value


def text(chance):
    return "".join(chance.choice("a\"\\\n\0é日😀") for _ in range(chance.choice([0, 1, 5, 30, 300])))


def tree(chance, depth=0):
    kind = chance.randrange(8 if depth > 4 else 10)
    if kind == 0:
        return None
    if kind == 1:
        return chance.random() < 0.5
    if kind == 2:
        return chance.choice([0, 23, 24, 255, 256, 65536, 2**32, 2**63 - 1, -1, -24, -25, -(2**63)])
    if kind == 3:
        return chance.getrandbits(chance.randint(1, 63)) * chance.choice([1, -1])
    if kind == 4:
        return chance.choice([0.0, -0.0, 1.5, 1e300, 5e-324, float("inf"), 65504.0, chance.random()])
    if kind == 5:
        return text(chance)
    if kind == 6:
        return chance.randbytes(chance.choice([0, 1, 23, 24, 300]))
    if kind == 7:
        return cbor2.CBORTag(1, chance.getrandbits(40))
    if kind == 8:
        return [tree(chance, depth + 1) for _ in range(chance.randrange(30 if depth == 0 else 5))]
    return {text(chance): tree(chance, depth + 1) for _ in range(chance.randrange(5))}


if sys.argv[1] == "read":
    for line in open(sys.argv[2], encoding="ascii"):
        print(described(cbor2.loads(bytes.fromhex(line))))
else:
    chance = random.Random(int(sys.argv[2]))
    for _ in range(int(sys.argv[3])):
        value = tree(chance)
        # Canonical writing takes the shortest float, so that halves and singles are read too, and sorts the names.
        canonical = chance.random() < 0.5
        print(cbor2.dumps(value, canonical=canonical).hex())
        print(described(in_order(value) if canonical else value))
