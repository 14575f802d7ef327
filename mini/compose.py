"""Scenes into pictures: batched, on any device, from the same draws."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from asyncdiff_cli.engine.rewards.world.vocabulary import HUES
from mini import grounds
from mini.art import Sprites
from mini.scenes import Batch

LEVELS = 3  # of the sprites' pyramid: full size, a half, a quarter
SHADOW_LEVEL = 2  # from which shadows are taken, for their soft edge


class Composer:
    """Renders `Batch`es of scenes with ``sprites`` at ``size`` × ``size`` on ``device``."""

    def __init__(self, sprites: Sprites, size: int, device: torch.device | str = "cpu") -> None:
        pixels = torch.from_numpy(sprites.pixels).to(device).permute(0, 3, 1, 2).float() / 255
        pixels[:, :3] *= pixels[:, 3:]  # premultiplied, so that edges do not darken
        self.size, self.device = size, torch.device(device)
        self.pyramid = [functional.avg_pool2d(pixels, 2**n) if n else pixels for n in range(LEVELS)]
        drawn = sprites.drawings
        self.hue = torch.tensor([d.hue or 0.0 for d in drawn], device=device) / 360
        self.paper = torch.tensor([d.style == "contrast" for d in drawn], device=device)
        targets = [(0.0, 1.0), *HUES.values()]
        self.targets = torch.tensor(targets, device=device) / torch.tensor([360.0, 1.0]).to(device)

    @torch.no_grad()
    def render(self, batch: Batch) -> Tensor:
        """Pictures [B, 3, size, size] in [-1, 1], rounded to the 256 levels of a stored one."""
        with torch.autocast(self.device.type, enabled=False):  # places need fp32
            return self._render(batch.to(self.device))

    def _render(self, batch: Batch) -> Tensor:
        canvas = grounds.draw(
            batch.ground, batch.ground_colour, batch.numbers, batch.noise, self.size
        )
        for slot in range(batch.drawing.shape[1]):
            rows = (batch.drawing[:, slot] >= 0).nonzero()[:, 0]
            if not len(rows):
                continue
            items = _Items(batch, slot, rows)
            shadow = self._sample(items, SHADOW_LEVEL, items.shadow)[:, 3:]
            art = self._recolour(self._art(items), items)
            below = canvas[rows] * (1 - shadow * items.darkness.view(-1, 1, 1, 1))
            canvas[rows] = art[:, :3] + below * (1 - art[:, 3:])
        return (canvas.clamp(0, 1) * 255).round() / 127.5 - 1

    def _art(self, items: _Items) -> Tensor:
        """Premultiplied RGBA [n, 4, size, size], from the level that fits each item's side."""
        full = self.pyramid[0].shape[-1]
        fit = torch.log2(full / (items.side * self.size)).add(0.25).floor().clamp(0, LEVELS - 1)
        art = torch.empty(len(fit), 4, self.size, self.size, device=self.device)
        for level in range(LEVELS):
            chosen = (fit == level).nonzero()[:, 0]
            if len(chosen):
                art[chosen] = self._sample(items[chosen], level)
        return art

    def _sample(self, items: _Items, level: int, offset: Tensor | float = 0.0) -> Tensor:
        """Sprites [n, 4, size, size] of a level, shrunk, turned, mirrored and put in place."""
        matrix = items.inverse(offset)
        shape = [len(matrix), 4, self.size, self.size]
        grid = functional.affine_grid(matrix, shape, align_corners=False)
        sprites = self.pyramid[level][items.drawing]
        return functional.grid_sample(sprites, grid, align_corners=False)

    def _recolour(self, art: Tensor, items: _Items) -> Tensor:
        """Turn the hue of those items that have a colour; bare paper loses its own."""
        natural = items.colour == 0
        changed = (~natural | self.paper[items.drawing]).nonzero()[:, 0]
        if not len(changed):
            return art
        alpha = art[changed, 3:].clamp_min(1e-4)
        drawing, natural = items.drawing[changed], natural[changed]
        hue, saturation = self.targets[items.colour[changed]].unbind(1)
        turn = torch.where(natural, 0.0, hue - self.hue[drawing])
        saturation = torch.where(natural, 0.0, saturation)
        h, s, v = to_hsv(art[changed, :3] / alpha)
        h, s = h + turn.view(-1, 1, 1), s * saturation.view(-1, 1, 1)
        pink = (items.colour[changed] == 1 + list(HUES).index("pink")).view(-1, 1, 1)
        v = torch.where(pink, v + 0.5 * (1 - v) * s, v)  # pink is light, ink stays dark
        art = art.clone()
        art[changed, :3] = to_rgb(h, s, v) * alpha
        return art


class _Items:
    """One item of each scene in ``rows``."""

    def __init__(self, batch: Batch, slot: int, rows: Tensor) -> None:
        self.drawing, self.colour = batch.drawing[rows, slot], batch.colour[rows, slot]
        self.side, self.angle = batch.side[rows, slot], batch.angle[rows, slot]
        self.centre = torch.stack((batch.x[rows, slot], batch.y[rows, slot]), 1)
        self.flip = 1 - 2 * batch.mirrored[rows, slot].float()
        self.shadow, self.darkness = batch.light[rows, :2], batch.light[rows, 2]

    def __getitem__(self, index: Tensor) -> _Items:
        chosen = object.__new__(_Items)
        chosen.__dict__ = {name: value[index] for name, value in self.__dict__.items()}
        return chosen

    def inverse(self, offset: Tensor | float) -> Tensor:
        """[n, 2, 3]: from places in the picture to places in the sprite, both in [-1, 1]."""
        cos, sin = self.angle.cos() / self.side, self.angle.sin() / self.side
        turn = torch.stack((cos * self.flip, sin * self.flip, -sin, cos), 1).view(-1, 2, 2)
        centre = 2 * (self.centre + offset) - 1
        return torch.cat((turn, -turn @ centre[:, :, None]), 2)


def to_hsv(rgb: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """[n, 3, h, w] in [0, 1] to hue, saturation and value [n, h, w], all in [0, 1]."""
    value, _ = rgb.max(1)
    chroma = value - rgb.amin(1)
    r, g, b = ((value[:, None] - rgb) / chroma.clamp_min(1e-6)[:, None]).unbind(1)
    r_best, g_best = rgb[:, 0] == value, rgb[:, 1] == value
    hue = torch.where(r_best, b - g, torch.where(g_best, 2 + r - b, 4 + g - r)) / 6
    return hue % 1, chroma / value.clamp_min(1e-6), value


def to_rgb(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """The inverse of `to_hsv`; the hue may lie outside [0, 1)."""
    shifts = torch.tensor([5.0, 3.0, 1.0], device=hue.device).view(1, 3, 1, 1)
    k = (shifts + 6 * hue[:, None]) % 6
    share = torch.minimum(k, 4 - k).clamp(0, 1)
    return value[:, None] * (1 - saturation[:, None] * share)


def to_levels(pictures: Tensor) -> Tensor:
    """Pictures in [-1, 1] as uint8, as a file stores them."""
    return ((pictures.float().clamp(-1, 1) + 1) * 127.5).round().byte()


def to_images(pictures: Tensor) -> list[Image.Image]:
    """[N, 3, H, W] in [-1, 1] as PIL images."""
    levels = to_levels(pictures).permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(picture) for picture in levels]


def sheet(pictures: Tensor, columns: int) -> Image.Image:
    """[N, 3, H, W] in [-1, 1] side by side, row by row."""
    images = [np.asarray(image) for image in to_images(pictures)]
    blank = np.zeros_like(images[0])
    images += [blank] * (-len(images) % columns)
    rows = [np.hstack(images[start : start + columns]) for start in range(0, len(images), columns)]
    return Image.fromarray(np.vstack(rows))
