"""Things that are measured in pairs, and the ratio of each pair: that of two neighbours means something on any machine."""

import statistics
import time
from dataclasses import dataclass, field


@dataclass
class Sample:
    """One measurement of something: what so many records took."""

    cpu: float
    bytes: int
    records: int
    seconds: float = 0
    peak: int = 0
    lost: float = 0

    @property
    def cost(self):
        return self.cpu / self.bytes


@dataclass
class Ratio:
    """What one thing takes for a byte, in what others take together; target: at most so much; must: or the run fails."""

    name: str
    of: str
    to: list[str]
    target: float | None = None
    must: bool = False
    before: float | None = None
    pairs: list[float] = field(default_factory=list)

    @property
    def value(self):
        return round(statistics.median(self.pairs), 3)


@dataclass
class Group:
    """Things to measure, a function each that gives a sample, and the ratios that they are measured for."""

    title: str
    things: dict
    ratios: list[Ratio]
    samples: dict[str, list[Sample]] = field(default_factory=dict)

    def measure(self, pairs, ratios=None):
        """Measures so many pairs of all ratios, or of these, all in turn; who of a pair comes first changes."""
        for number in range(pairs):
            for ratio in ratios or self.ratios:
                names = [ratio.of, *ratio.to]
                taken = {name: self.take(name) for name in (names if number % 2 else reversed(names))}
                ratio.pairs.append(taken[ratio.of].cost / sum(taken[name].cost for name in ratio.to))

    def take(self, name):
        sample = self.things[name]()
        self.samples.setdefault(name, []).append(sample)
        return sample

    def median(self, name, value):
        return statistics.median(value(sample) for sample in self.samples[name])


def timed(thing):
    began = time.monotonic()
    return thing(), time.monotonic() - began
