"""The files that are shipped: the same lines each time."""

import random


def text_lines(count, size=217):
    """Lines of a web server's log, of so many bytes."""
    chance = random.Random(7)
    for number in range(count):
        line = (
            f"{number:010d} 10.{chance.randrange(256)}.{chance.randrange(256)}.{chance.randrange(256)} - - "
            f'[21/Nov/2026:08:00:00 +0000] "GET /api/v2/orders/{chance.randrange(65536)}/items HTTP/1.1" 200 '
            f'{chance.randrange(16384)} "https://shop.example.com/checkout" "Mozilla/5.0 (X11; Linux x86_64) '
        )
        yield line[: size - 1].ljust(size - 1, "x") + "\n"


def json_lines(count):
    """Objects of 217 bytes that one of 100,000 devices sent."""
    chance = random.Random(7)
    for number in range(count):
        line = f'{{"time":"2026-11-21T08:00:00Z","id":"device-{chance.randrange(100_000):06d}","value":{chance.randrange(10**6)},"text":"'
        yield line.ljust(214, "x") + '"}\n'


def sized_lines(count, size):
    """Numbered lines of so many bytes, which look like a log's to a compressor."""
    words = "GET /api/v2/orders/4711/items HTTP/1.1 200 https://shop.example.com/checkout Mozilla/5.0 "
    text = words * (size // len(words) + 1)
    for number in range(count):
        yield f"{number:09d} {number * 7919 % 65536:05d} {text}"[: size - 1] + "\n"


def write(path, lines):
    with open(path, "w") as out:
        out.writelines(lines)
    return path
