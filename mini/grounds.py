"""Grounds in batches: patterns in a named colour, and materials with a 1/f spectrum.

Every function takes numbers in [0, 1) and the seeds of its noise, and gives the same picture on
every device up to rounding; each picture has its own random phases.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from asyncdiff_cli.engine.rewards.world.vocabulary import COLOURS, GROUNDS

TAU = 2 * math.pi


def hash_noise(seeds: Tensor, channels: int, size: int) -> Tensor:
    """White noise in [0, 1), [B, channels, size, size], by an integer hash of seed and place.

    The hash is lowbias32 (Wellons, 2018) in 64-bit integers, so that every device agrees.
    """
    mask = 0xFFFFFFFF
    place = torch.arange(channels * size * size, device=seeds.device)
    x = (place[None] * 0x9E3779B1 + seeds[:, None] * 0x85EBCA6B) & mask
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & mask
    x = ((x ^ (x >> 15)) * 0x846CA68B) & mask
    x = x ^ (x >> 16)
    return (x.float() / 2**32).clamp(max=1 - 2**-24).view(-1, channels, size, size)


@dataclass(frozen=True)
class Plot:
    """What grounds are drawn from: ``numbers`` [n, k], ``seeds`` [n], ``colour`` [n, 3]."""

    numbers: Tensor
    seeds: Tensor
    colour: Tensor
    size: int

    def between(self, index: int, low: float, high: float) -> Tensor:
        """The ``index``-th number as [n, 1, 1] in [low, high)."""
        return (low + (high - low) * self.numbers[:, index]).view(-1, 1, 1)

    @cached_property
    def x(self) -> Tensor:
        """[1, 1, size], pixel centres as shares of the side."""
        line = (torch.arange(self.size, device=self.seeds.device) + 0.5) / self.size
        return line.view(1, 1, -1)

    @property
    def y(self) -> Tensor:
        return self.x.mT

    def turned(self, angle: Tensor) -> tuple[Tensor, Tensor]:
        """Coordinates [n, size, size] along and across the direction ``angle``."""
        cos, sin = angle.cos(), angle.sin()
        return self.x * cos + self.y * sin, self.y * cos - self.x * sin

    @cached_property
    def white(self) -> Tensor:
        """[n, 3, size, size], zero mean and unit variance."""
        return (hash_noise(self.seeds, 3, self.size) - 0.5) * math.sqrt(12)

    def noise(self, channel: int, slope: float, stretch: Tensor | float = 1.0) -> Tensor:
        """[n, size, size] of amplitude 1 / f^slope and unit variance.

        Args:
            channel: of the white noise; the same twice gives the same phases.
            stretch: above 1 for structures that are so much longer down than across.
        """
        down = torch.fft.fftfreq(self.size, device=self.seeds.device)[:, None] * self.size
        across = torch.fft.rfftfreq(self.size, device=self.seeds.device)[None] * self.size
        f = (across.square() + (down * stretch).square()).clamp_min(1).pow(-slope / 2)
        f = f * ((across > 0) | (down != 0))
        field = torch.fft.irfft2(torch.fft.rfft2(self.white[:, channel]) * f, s=(self.size,) * 2)
        return field / field.std((-2, -1), keepdim=True)


def ramp(value: Tensor, *stops: tuple[int, int, int]) -> Tensor:
    """Colours [n, 3, h, w] for values, which run through the sRGB ``stops`` from 0 to 1."""
    colours = torch.tensor(stops, device=value.device) / 255
    scaled = value.clamp(0, 1) * (len(stops) - 1)
    low = scaled.floor().long().clamp(max=len(stops) - 2)
    return torch.lerp(colours[low], colours[low + 1], (scaled - low)[..., None]).movedim(-1, 1)


def mix(first: Tensor, second: Tensor, share: Tensor) -> Tensor:
    """[n, 3, h, w] between two colours [n, 3]."""
    first, second = first[:, :, None, None], second[:, :, None, None]
    return torch.lerp(first, second, share[:, None])


def partner(plot: Plot) -> Tensor:
    """A lighter or a darker shade of the colour, whichever is farther away."""
    light = torch.lerp(plot.colour, torch.ones_like(plot.colour), 0.5)
    dark = plot.colour * 0.62
    bright = plot.colour.mean(1, keepdim=True) > 0.62
    return torch.where(bright, dark, light)


def edge(distance: Tensor, size: int) -> Tensor:
    """0 to 1 within about a pixel around ``distance`` 0, in shares of the side."""
    return (distance * size + 0.5).clamp(0, 1)


def plain(plot: Plot) -> Tensor:
    return plot.colour[:, :, None, None].expand(-1, -1, plot.size, plot.size)


def gradient(plot: Plot) -> Tensor:
    along, _ = plot.turned(plot.between(0, 0, TAU))
    middle = along - along.mean((-2, -1), keepdim=True)
    return mix(plot.colour * 0.55, torch.lerp(plot.colour, torch.ones_like(plot.colour), 0.6),
               (0.5 + 0.75 * middle).clamp(0, 1))  # fmt: skip


def stripes(plot: Plot) -> Tensor:
    along, _ = plot.turned(plot.between(0, 0, TAU))
    period = plot.between(1, 0.09, 0.22)
    phase = along / period + plot.between(2, 0, 1)
    inside = 0.25 - (phase - phase.floor() - 0.5).abs()
    return mix(plot.colour, partner(plot), edge(inside * period, plot.size))


def dots(plot: Plot) -> Tensor:
    period = plot.between(1, 0.11, 0.2)
    along, across = plot.turned(plot.between(0, 0, TAU))
    u, v = along / period + plot.between(2, 0, 1), across / period + plot.between(3, 0, 1)
    distance = torch.hypot(u - u.floor() - 0.5, v - v.floor() - 0.5)
    radius = plot.between(4, 0.2, 0.32)
    return mix(plot.colour, partner(plot), edge((radius - distance) * period, plot.size))


def checks(plot: Plot) -> Tensor:
    period = plot.between(1, 0.16, 0.34)
    along, across = plot.turned(plot.between(0, 0, TAU / 4) - TAU / 8)
    u, v = along / period + plot.between(2, 0, 1), across / period + plot.between(3, 0, 1)
    waves = (torch.sin(TAU * u) * torch.sin(TAU * v)).clamp(-0.2, 0.2) / 0.2
    return mix(plot.colour, partner(plot), 0.5 + 0.5 * (waves * 3).clamp(-1, 1))


def grass(plot: Plot) -> Tensor:
    blades = plot.noise(0, 0.9, plot.between(0, 4, 8)) * 0.17
    value = plot.between(1, 0.4, 0.56) + blades + 0.09 * plot.noise(1, 1.8)
    return ramp(value, (18, 58, 20), (44, 110, 36), (96, 164, 52), (176, 208, 92))


def sand(plot: Plot) -> Tensor:
    _, across = plot.turned(plot.between(0, -0.5, 0.5))
    warp = plot.noise(1, 2.2)
    ripples = torch.sin(TAU * (across * plot.between(1, 5, 10) + 0.35 * warp))
    value = 0.55 + 0.11 * ripples + 0.08 * plot.noise(0, 0.2) + 0.06 * warp
    return ramp(value, (150, 112, 66), (206, 168, 112), (240, 218, 168))


def wood(plot: Plot) -> Tensor:
    _, across = plot.turned(plot.between(0, -0.12, 0.12))
    warp = plot.noise(1, 2.4, 0.4)
    rings = torch.sin(TAU * (across * plot.between(1, 6, 11) + 0.9 * warp))
    fibres = plot.noise(0, 0.8, 0.14)
    planks = (across * 4 + plot.between(2, 0, 1)).remainder(1)
    seam = 1 - ((planks - 0.5).abs() > 0.475).float() * 0.35
    value = 0.5 + 0.14 * rings + 0.12 * fibres
    return ramp(value, (84, 48, 24), (142, 88, 46), (196, 140, 84)) * seam[:, None]


def brick(plot: Plot) -> Tensor:
    row_height = plot.between(0, 0.1, 0.15)
    v = plot.y / row_height + plot.between(1, 0, 1)
    u = plot.x / (2.2 * row_height) + 0.5 * (v.floor() % 2) + plot.between(2, 0, 1)
    near = torch.minimum(
        (0.5 - (u - u.floor() - 0.5).abs()) * 2.2, 0.5 - (v - v.floor() - 0.5).abs()
    )
    inside = edge((near - 0.07) * row_height, plot.size)
    tone = torch.sin(u.floor() * 12.9898 + v.floor() * 78.233 + 40 * plot.between(3, 0, 1)) * 437.5
    value = 0.3 + 0.4 * (tone - tone.floor()) + 0.1 * plot.noise(0, 0.6)
    mortar = ramp(0.5 + 0.12 * plot.noise(1, 0.4), (150, 142, 132), (206, 200, 190))
    bricks = ramp(value, (112, 40, 28), (168, 70, 48), (206, 112, 82))
    return torch.lerp(mortar, bricks, inside[:, None])


def water(plot: Plot) -> Tensor:
    warp, other = plot.noise(0, 1.9, 0.45), plot.noise(1, 1.6, 0.45)
    caustics = 1 - (torch.sin(1.6 * warp + TAU * plot.between(0, 0, 1)).abs()).sqrt()
    value = 0.38 + 0.12 * other + 0.62 * caustics.clamp(0, 1) * plot.between(1, 0.6, 1)
    return ramp(value, (14, 66, 116), (36, 120, 176), (92, 184, 216), (222, 246, 250))


def marble(plot: Plot) -> Tensor:
    along, _ = plot.turned(plot.between(0, 0, TAU))
    veins = torch.sin(TAU * along * plot.between(1, 1, 2.5) + 2.2 * plot.noise(0, 2.1)).abs()
    value = veins.clamp_min(1e-3).pow(plot.between(2, 0.3, 0.55)) + 0.06 * plot.noise(1, 1.1)
    return ramp(value, (88, 92, 102), (196, 198, 204), (238, 238, 240))


def cloud(plot: Plot) -> Tensor:
    puffs = (plot.noise(0, 1.75) * 0.55 + plot.between(0, -0.25, 0.25)).sigmoid()
    value = (1.7 * puffs - 0.35) + 0.12 * (0.5 - plot.y)
    return ramp(value, (74, 136, 206), (128, 178, 228), (214, 228, 242), (250, 250, 252))


def starry_night(plot: Plot) -> Tensor:
    haze = 0.28 + 0.2 * plot.noise(1, 1.8) * plot.between(0, 0.5, 1) + 0.15 * (1 - plot.y)
    sky = ramp(haze, (6, 8, 30), (22, 26, 78), (72, 56, 134))
    seen = (hash_noise(plot.seeds + 7, 1, plot.size) - plot.between(1, 0.986, 0.993)[:, None]) * 90
    stars = seen.clamp(0, 1)
    glow = torch.nn.functional.avg_pool2d(stars, 3, 1, 1) * 2.2
    return (sky + torch.maximum(stars, glow)).clamp(0, 1)


DRAW: dict[str, Callable[[Plot], Tensor]] = {
    "plain": plain,
    "gradient": gradient,
    "stripes": stripes,
    "dots": dots,
    "checks": checks,
    "grass": grass,
    "sand": sand,
    "wood": wood,
    "brick": brick,
    "water": water,
    "marble": marble,
    "cloud": cloud,
    "starry night": starry_night,
}


def draw(kind: Tensor, colour: Tensor, numbers: Tensor, seeds: Tensor, size: int) -> Tensor:
    """Grounds [B, 3, size, size] in [0, 1]; ``kind`` and ``colour`` [B] as in `scenes.Batch`."""
    palette = torch.tensor(list(COLOURS.values()), device=kind.device) / 255
    jitter = (numbers[:, -3:] - 0.5) * 0.08
    colours = (palette[colour.clamp_min(0)] + jitter).clamp(0, 1)
    canvas = torch.empty(len(kind), 3, size, size, device=kind.device)
    for index, name in enumerate(GROUNDS):
        chosen = (kind == index).nonzero()[:, 0]
        if len(chosen):
            plot = Plot(numbers[chosen], seeds[chosen], colours[chosen], size)
            canvas[chosen] = DRAW[name](plot).clamp(0, 1)
    return canvas * shading(numbers, size)


def shading(numbers: Tensor, size: int) -> Tensor:
    """A little light that falls off to one side, [B, 1, size, size] around 1."""
    plot = Plot(numbers, numbers[:, 0], numbers, size)
    along, _ = plot.turned(plot.between(-4, 0, TAU))
    middle = along - along.mean((-2, -1), keepdim=True)
    return (1 + plot.between(-5, 0.02, 0.16) * middle)[:, None]
