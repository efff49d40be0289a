"""Paint faces with numpy.

All shapes are signed distances (negative inside) on a square canvas: x grows to the right, y downwards, both
from -1 to 1, the head near the middle. A chunk of pictures is drawn at once: arrays are ``[n, S, S]``, the
parameters of a picture ``[n, 1, 1]``.
"""

from __future__ import annotations

import numpy as np

from data_prep.sources.faces import People, Views

SUPERSAMPLING = 2
PIXELS_AT_ONCE = 1 << 17  # few enough that the arrays stay in the cache
BLACK, WHITE = np.float32([12, 10, 12]), np.float32([255, 255, 255])
GREY = np.float32([222, 222, 226])
LIPS = np.float32([176, 72, 72])


def draw_pictures(
    random: np.random.Generator, people: People, ages: np.ndarray, views: Views, size: int
) -> np.ndarray:
    """Draw one picture a row of `people`, `ages` (years, ``[n]``) and `views`: uint8 ``[n, 3, size, size]``.

    The age that shows is ``people.looks`` times the age.
    """
    apparent = np.clip(np.float32(ages) * people.looks, 0, 90)
    pictures = np.empty((len(apparent), 3, size, size), dtype=np.uint8)
    resolution = size * SUPERSAMPLING
    chunk = max(1, PIXELS_AT_ONCE // resolution**2)
    for start in range(0, len(pictures), chunk):
        rows = np.arange(start, min(start + chunk, len(pictures)))
        view = views.take(rows)
        drawn = _Portrait(people.take(rows), apparent[rows], view, resolution).rgb
        shape = (len(rows), 3, size, SUPERSAMPLING, size, SUPERSAMPLING)
        drawn = drawn.reshape(shape).mean(axis=(3, 5))
        drawn += view.noise[:, None, None, None] * random.standard_normal(drawn.shape, dtype=np.float32)
        pictures[rows] = np.clip(np.rint(drawn), 0, 255)
    return pictures


def _planes(values: np.ndarray) -> np.ndarray:
    """Give the parameter of a picture, ``[n]``, the shape that broadcasts over its pixels."""
    return np.float32(values)[:, None, None]


def _ramp(values: np.ndarray, start: float | np.ndarray, stop: float | np.ndarray) -> np.ndarray:
    """Rise linearly from 0 at `start` to 1 at `stop`."""
    return np.clip((values - start) / (stop - start), 0, 1)


def _ellipse(x: np.ndarray, y: np.ndarray, rx: np.ndarray | float, ry: np.ndarray | float) -> np.ndarray:
    """Signed distance to an ellipse around 0, exact on its short axis."""
    return (np.sqrt((x / rx) ** 2 + (y / ry) ** 2) - 1) * np.minimum(rx, ry)


class _Portrait:
    """A chunk of portraits, painted from back to front into ``rgb``, float32 ``[n, 3, S, S]``."""

    def __init__(self, people: People, apparent: np.ndarray, views: Views, resolution: int) -> None:
        self.who, self.view = people, views
        self.edge = np.float32(2 / resolution)  # a pixel: shapes fade over this width
        self.age = age = _planes(apparent)
        self.grown = grown = _ramp(age, 0, 21)  # 0 newborn, 1 adult
        self.old = _ramp(age, 28, 78)

        ticks = (np.arange(resolution, dtype=np.float32) + 0.5) * self.edge - 1
        x = (ticks[None, None, :] - _planes(views.shift_x)) / _planes(views.zoom)
        y = (ticks[None, :, None] - _planes(views.shift_y)) / _planes(views.zoom) - np.float32(0.02)
        cos, sin = _planes(np.cos(views.roll)), _planes(np.sin(views.roll))
        self.x, self.y = cos * x + sin * y, cos * y - sin * x

        self.head_width = (0.52 - 0.06 * grown) * _planes(people.width)
        self.head_height = (0.53 + 0.13 * grown) * _planes(people.height)
        self.head = self._head_distance()
        # Features sit on a round head: turning it moves them, most in the middle of the face.
        bulge = np.maximum(1 - (self.x / self.head_width) ** 2, 0)
        self.u = self.x - 0.13 * _planes(views.yaw) * bulge
        self.v = self.y - 0.05 * _planes(views.pitch)
        self.eye_y = (0.13 - 0.15 * grown) * _planes(people.height)
        self.eye_x = (0.225 - 0.02 * grown) * _planes(people.eye_gap * people.width)
        self.mouth_y = self.eye_y + (0.26 + 0.12 * grown) * _planes(people.height)

        grey = _ramp(age, _planes(people.greys_at), _planes(people.greys_at) + 26)[:, :, 0]
        self.hair_colour = people.hair + np.float32(grey) * (GREY - people.hair)

        self.rgb = np.empty((len(apparent), 3, resolution, resolution), dtype=np.float32)
        self._backdrop()
        self._hair_behind()
        self._neck_and_ears()
        self._face()
        self._wrinkles()
        self._eyes()
        self._nose()
        self._mouth()
        self._beard()
        self._marks()
        self._hair_in_front()
        self._glasses()
        self._light()

    def lay(self, distance: np.ndarray, colour: np.ndarray, opacity: np.ndarray | float = 1) -> None:
        """Fill the inside of a shape with `colour`, ``[n, 3]`` or ``[3]``."""
        self.blend(np.clip(0.5 - distance / self.edge, 0, 1) * opacity, colour)

    def blend(self, weight: np.ndarray, colour: np.ndarray) -> None:
        """Mix `colour` into the picture, by `weight` from 0 to 1."""
        colour = np.broadcast_to(np.float32(colour), (len(self.rgb), 3))
        for channel in range(3):
            plane = self.rgb[:, channel]
            plane += weight * (_planes(colour[:, channel]) - plane)

    def _head_distance(self) -> np.ndarray:
        """A skull above, a jaw below: children round, adults by their jaw, the old with jowls."""
        jaw = 0.34 * (1 - _planes(self.who.jaw)) * self.grown - 0.05 * self.old
        below = np.maximum(self.y / self.head_height, 0)
        return _ellipse(self.x / (1 - jaw * below * below), self.y, self.head_width, self.head_height)

    def _backdrop(self) -> None:
        for channel in range(3):
            self.rgb[:, channel] = _planes(self.view.backdrop[:, channel]) * (1 - 0.12 * self.y)

    def _hair_behind(self) -> None:
        volume, length, _, _, curl, bun = (_planes(column) for column in self.who.style.T)
        thick = _ramp(self.age, 0, 5)  # babies have little hair
        volume = volume * (0.3 + 0.7 * thick)
        length = np.minimum(length * (0.4 + 0.6 * _ramp(self.age, 1, 9)), 0.95)
        self.crown = self.head - volume + curl * np.sin(13 * np.arctan2(self.y, self.x))
        cap = np.maximum(self.crown, self.y - np.maximum(length, 0))
        fall = np.maximum(np.abs(self.x) - self.head_width - 0.6 * volume, self.y - length)
        fall = np.maximum(fall, -self.y) + curl * np.sin(22 * self.y)
        self.lay(np.minimum(cap, fall), 0.72 * self.hair_colour)
        knot = _ellipse(self.x, self.y + self.head_height + 0.06, 0.05 + 0.12 * thick, 0.05 + 0.1 * thick)
        self.lay(knot, 0.8 * self.hair_colour, bun)

    def _neck_and_ears(self) -> None:
        shade = 0.8 * self.who.skin
        neck = np.maximum(np.abs(self.x) - self.head_width * (0.38 + 0.16 * self.grown), -self.y)
        self.lay(neck, shade)
        shoulders = 0.5 + 0.42 * self.grown
        self.lay(_ellipse(self.x, self.y - 1.12, shoulders, 0.3), self.view.clothes)
        reach = self.head_width * 0.99
        for side in (-1, 1):
            ear_y = self.y - self.eye_y - 0.06
            ear_size = _planes(self.who.ears) * (1 + 0.25 * self.old)
            ear = _ellipse(self.x - side * reach, ear_y, 0.07 * ear_size, 0.115 * ear_size)
            self.lay(ear, 0.9 * self.who.skin)

    def _face(self) -> None:
        self.lay(self.head, self.who.skin)
        rim = np.exp(-((self.head / 0.07) ** 2)) * (self.head < 0)
        self.blend(0.3 * rim, 0.62 * self.who.skin)
        blush = np.exp(-(((np.abs(self.u) - 0.27) / 0.1) ** 2) - ((self.v - self.eye_y - 0.2) / 0.08) ** 2)
        self.blend(blush * (0.12 + 0.33 * (1 - self.grown)), np.float32([232, 110, 104]))

    def _wrinkles(self) -> None:
        shade = 0.55 * self.who.skin
        wave = 0.014 * np.cos(9 * self.u)
        brow_y = self.eye_y - 0.17
        for row, since in ((0.09, 30), (0.165, 44), (0.24, 56)):
            line = np.abs(self.v - brow_y + row + wave) - 0.011
            line = np.maximum(line, np.abs(self.u) - 0.26 + 0.3 * row)
            self.lay(line, shade, 0.8 * _ramp(self.age, since, since + 16))
        side = np.abs(self.u)
        fold_y = self.v - (self.eye_y + self.mouth_y) / 2 - 0.04
        fold = np.abs(side - 0.13 - 0.45 * np.maximum(fold_y, -0.1)) - 0.014
        self.lay(np.maximum(fold, np.abs(fold_y - 0.06) - 0.13), shade, 0.85 * _ramp(self.age, 30, 75))
        bag = np.abs(_ellipse(side - self.eye_x, self.v - self.eye_y - 0.055, 0.105, 0.065)) - 0.012
        self.lay(np.maximum(bag, self.eye_y + 0.07 - self.v), shade, 0.8 * _ramp(self.age, 38, 70))
        for slope in (-0.6, 0.0, 0.6):
            foot_x = side - self.eye_x - 0.15
            foot = np.abs(self.v - self.eye_y - slope * (foot_x + 0.04)) - 0.009
            self.lay(np.maximum(foot, np.abs(foot_x) - 0.045), shade, 0.9 * _ramp(self.age, 34, 60))
        hollow = np.exp(-(((side - 0.3) / 0.07) ** 2) - ((self.v - self.mouth_y + 0.03) / 0.14) ** 2)
        self.blend(0.45 * hollow * _ramp(self.age, 50, 80), shade)

    def _eyes(self) -> None:
        who, view = self.who, self.view
        size = (0.112 - 0.034 * self.grown - 0.012 * self.old) * _planes(who.eye_size)
        droop = 0.3 * self.old
        for side in (-1, 1):
            x = self.u - side * self.eye_x
            y = self.v - self.eye_y + (_planes(who.eye_tilt) - droop) * side * x * 0.6
            opening = size * (0.72 - 0.16 * self.grown) * _planes(view.eyelids)
            white = _ellipse(x, y, size * 1.15, opening)
            self.lay(white - 0.018, 0.6 * who.skin)
            self.lay(white, np.float32([250, 248, 244]))
            iris_x = x - _planes(view.gaze) * size * 0.5
            for radius, colour in ((0.62, who.iris), (0.32, BLACK)):
                self.lay(np.maximum(_ellipse(iris_x, y, size * radius, size * radius), white), colour)
            self.lay(_ellipse(iris_x + 0.02, y + 0.025, 0.016, 0.016), WHITE, 0.9)
            lid = np.maximum(np.abs(white) - 0.016, y + 0.2 * opening)
            self.lay(lid, 0.3 * who.hair + 12)
            brow_x = x / (size * 1.45)
            arch = _planes(who.brow_arch) * 0.05 * (1 - brow_x * brow_x) - droop * 0.07 * side * x / size
            weight = _planes(who.brow_weight) * (0.010 + 0.022 * self.grown)
            brow = np.abs(y + size * 0.95 + 0.055 + arch) - weight * (1.15 - 0.35 * side * brow_x)
            brow = np.maximum(brow, (np.abs(brow_x) - 1) * size)
            self.lay(brow, 0.75 * self.hair_colour, 0.5 + 0.45 * self.grown)

    def _nose(self) -> None:
        who = self.who
        length = (0.13 + 0.11 * self.grown + 0.02 * self.old) * _planes(who.nose_length)
        width = (0.045 + 0.03 * self.grown + 0.01 * self.old) * _planes(who.nose_width)
        x = self.u - 0.03 * _planes(self.view.yaw)
        tip = self.v - self.eye_y - length
        bridge = np.abs(x - 0.45 * width * np.sign(_planes(self.view.light_x) + 1e-6)) - 0.012
        bridge = np.maximum(bridge, np.abs(tip + length / 2) - length / 2)
        self.lay(bridge, 0.78 * who.skin, 0.65 * self.grown)
        self.lay(_ellipse(x, tip, width, 0.05), 0.86 * who.skin, 0.9)
        self.lay(_ellipse(x, tip + 0.016, width * 0.6, 0.032), np.minimum(1.1 * who.skin, 255), 0.8)
        self.lay(_ellipse(np.abs(x) - width * 0.55, tip - 0.026, 0.018, 0.013), 0.4 * who.skin)

    def _mouth(self) -> None:
        who, view = self.who, self.view
        width = (0.125 + 0.065 * self.grown) * _planes(who.mouth_width) * (1 + 0.15 * _planes(view.smile))
        bend = 0.075 * _planes(view.smile)
        x = self.u / width
        y = self.v - self.mouth_y + bend * (x * x - 0.5)
        taper = np.maximum(1 - x * x, 0)
        thickness = 0.038 * _planes(who.lips) * (1 - 0.45 * self.old) + 0.008
        opening = 0.075 * _planes(view.mouth_open)
        ends = (np.abs(x) - 1) * width
        self.lay(np.maximum(np.abs(y) - (thickness + opening) * taper, ends), 0.45 * who.skin + 0.55 * LIPS)
        self.lay(np.maximum(np.abs(y) - opening * taper - 0.006, ends), np.float32([70, 24, 28]))
        teeth = np.maximum(np.abs(y + 0.2 * opening) - 0.62 * opening * taper + 0.004, ends)
        self.lay(teeth, np.float32([246, 242, 232]), _planes(view.mouth_open > 0.15))

    def _beard(self) -> None:
        who = self.who
        adult = _ramp(self.age, 17, 24)
        cheek_line = self.v - self.mouth_y + 0.16 - 1.8 * self.u**2
        mouth = _ellipse(self.u, self.v - self.mouth_y, 0.17 * _planes(who.mouth_width), 0.075)
        beard = np.maximum(np.maximum(self.head - 0.03, -cheek_line), -mouth)
        self.lay(beard, 0.85 * self.hair_colour, np.minimum(1.2 * _planes(who.beard), 1) * adult)
        lip = np.abs(self.v - self.mouth_y + 0.085 - 0.9 * self.u**2) - 0.028
        lip = np.maximum(lip, np.abs(self.u) - 0.17)
        self.lay(lip, 0.85 * self.hair_colour, _planes(who.moustache) * adult)

    def _marks(self) -> None:
        who = self.who
        mole_x, mole_y, radius = (_planes(column) for column in who.mole.T)
        self.lay(np.hypot(self.u - mole_x, self.v - mole_y) - radius, 0.3 * who.skin, radius > 0)
        dots = np.sin(47 * self.u + 3) * np.sin(53 * self.v + 1) + np.sin(29 * self.u - 31 * self.v)
        across = np.exp(-((self.u / 0.3) ** 2) - ((self.v - self.eye_y - 0.15) / 0.09) ** 2)
        self.blend(_planes(who.freckles) * across * _ramp(dots, 0.7, 1.1), 0.6 * who.skin)
        spots = np.sin(19 * self.u + 9 * who.mole[:, :1, None]) * np.sin(17 * self.v + 2)
        spots = _ramp(spots, 0.7, 0.9) * (self.head < -0.04)
        self.blend(0.5 * spots * _ramp(self.age, 58, 82), 0.6 * who.skin)

    def _hair_in_front(self) -> None:
        _, length, drop, slant, curl, _ = (_planes(column) for column in self.who.style.T)
        infant = 1 - _ramp(self.age, 0, 5)
        recede = _planes(self.who.recedes) * _ramp(self.age, 30, 72)
        across = self.x / self.head_width
        line = -self.head_height * (0.66 + 0.25 * infant + 0.5 * recede - drop)
        line = line + (0.3 * slant * across + curl * np.sin(16 * self.x)) * (1 - recede)
        temples = 0.55 + 0.45 * _ramp(length, -0.2, 0.3)
        line = line + np.abs(across) ** 5 * temples * (1 - 0.6 * infant)
        front = np.maximum(self.crown + 0.015, self.y - line)
        hair = np.clip(0.5 - front / self.edge, 0, 1) * (1 - 0.35 * infant)
        self.blend(hair, 0.84 * self.hair_colour)
        shine = np.exp(-(((self.crown + 0.13) / 0.06) ** 2))
        strands = 0.5 + 0.5 * np.sin(46 * self.x + 7 * np.sin(3 * self.y))
        self.blend(hair * (0.35 * shine + 0.22 * strands), np.minimum(1.2 * self.hair_colour + 14, 255))

    def _glasses(self) -> None:
        who = self.who
        worn = _planes(who.glasses > 0) * (self.age > _planes(who.glasses_from))
        wide = _planes(who.glasses == 2)
        x, y = np.abs(self.u) - self.eye_x, self.v - self.eye_y - 0.015
        lens = _ellipse(x, y, 0.15 + 0.02 * wide, 0.14 - 0.03 * wide)
        self.lay(lens, WHITE, 0.12 * worn)
        self.lay(np.abs(lens) - 0.018, who.frame, worn)
        self.lay(np.maximum(np.abs(y + 0.03) - 0.016, np.abs(self.u) - self.eye_x + 0.14), who.frame, worn)

    def _light(self) -> None:
        view = self.view
        light = _planes(view.exposure) + _planes(view.light_x) * self.x + _planes(view.light_y) * self.y
        for channel in range(3):
            self.rgb[:, channel] *= light * _planes(view.tint[:, channel])
