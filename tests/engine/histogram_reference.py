"""Histograms by the book (lakehouse §4.2), in plain Python: what the kernels are compared with, to the last bit."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

LARGEST = 1.7976931348623157e308


@dataclass
class Histogram:
    start: float
    end: float
    bins: list[int]
    min: float = LARGEST
    max: float = -LARGEST
    sum: float = 0.0
    sum_sq: float = 0.0
    count: int = field(default=0)

    def add(self, value: float) -> None:
        self.bins[self.bin_of(value)] += 1
        self.min = value if value < self.min else self.min
        self.max = value if value > self.max else self.max
        self.sum += value
        self.sum_sq += value * value
        self.count += 1

    def bin_of(self, value: float) -> int:
        last = len(self.bins) - 1
        if math.isnan(value):
            return 0
        width = (self.end - self.start) / len(self.bins)
        if width == 0:
            return last if value > self.start else 0
        position = (value - self.start) / width
        if math.isnan(position):
            return 0
        if math.isinf(position):
            return last if position > 0 else 0
        return min(max(math.floor(position), 0), last)

    def quantile(self, ratio: float) -> float:
        width = (self.end - self.start) / len(self.bins)
        target = self.count * ratio
        total = 0
        for index, held in enumerate(self.bins):
            total += held
            if total >= target and held > 0:
                part = (target - (total - held)) / held
                return (1 - part) * (self.start + index * width) + part * (self.start + (index + 1) * width)
        return self.end

    def variance(self) -> float:
        if self.count < 2:
            return math.nan
        mean = self.sum / self.count
        return (self.sum_sq / self.count - mean * mean) * self.count / (self.count - 1)

    def row(self) -> dict[str, object]:
        names = ("start", "end", "min", "max", "sum", "sum_sq", "count", "bins")
        return {name: getattr(self, name) for name in names}


def histogram(start: float, end: float, bins: int, values: list[float | None]) -> Histogram:
    made = Histogram(start, end, [0] * bins)
    for value in values:
        if value is not None:
            made.add(value)
    return made


def total(histograms: list[Histogram]) -> Histogram:
    first = histograms[0]
    made = Histogram(first.start, first.end, [0] * len(first.bins))
    for each in histograms:
        made.bins = [mine + other for mine, other in zip(made.bins, each.bins, strict=True)]
        made.min = min(made.min, each.min)
        made.max = max(made.max, each.max)
        made.sum += each.sum
        made.sum_sq += each.sum_sq
        made.count += each.count
    return made
