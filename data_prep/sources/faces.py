"""Who is in a picture, how old they look and how it was taken: drawn independently of each other."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TypeVar

import numpy as np

SKIN = np.float32(
    [[255, 224, 200], [243, 203, 172], [226, 178, 140], [190, 138, 100], [146, 98, 68], [96, 63, 46]]
)
HAIR = np.float32(
    [[28, 24, 26], [44, 32, 28], [62, 40, 28], [104, 66, 38], [138, 74, 40], [206, 160, 92], [196, 92, 42]]
)
IRIS = np.float32([[70, 44, 26], [110, 74, 36], [70, 110, 70], [70, 118, 160], [92, 100, 112]])
CLOTHES = np.float32([[58, 84, 140], [150, 58, 66], [66, 120, 92], [222, 206, 178], [70, 70, 84], [196, 142, 60]])
FRAMES = np.float32([[24, 24, 28], [112, 62, 34], [150, 32, 44]])
# One row a style: volume, length (y where it ends), hairline (drop of the fringe), slant, curl, bun.
STYLES = np.float32(
    [
        [0.05, -0.15, 0.04, 0.00, 0.000, 0],  # cropped
        [0.08, -0.05, 0.10, 0.38, 0.004, 0],  # side parting
        [0.08, 0.05, 0.22, 0.03, 0.004, 0],  # fringe
        [0.18, 0.10, 0.08, 0.00, 0.030, 0],  # curls
        [0.10, 0.72, 0.06, 0.12, 0.004, 0],  # long
        [0.14, 0.62, 0.12, -0.3, 0.025, 0],  # long waves
        [0.05, -0.05, 0.02, 0.00, 0.000, 1],  # bun
        [0.09, 0.42, 0.20, 0.00, 0.004, 0],  # bob
    ]
)

Table = TypeVar("Table", bound="_Columns")


class _Columns:
    """Columns of equal length."""

    def take(self: Table, rows: np.ndarray) -> Table:
        """Return the given rows of every column, in their order; a row may come several times."""
        return type(self)(*(getattr(self, field.name)[rows] for field in fields(self)))


@dataclass(frozen=True)
class People(_Columns):
    """What stays with a person through life: one entry a person, ``[n]``, colours ``[n, 3]``."""

    skin: np.ndarray
    hair: np.ndarray
    iris: np.ndarray
    frame: np.ndarray
    width: np.ndarray
    height: np.ndarray
    jaw: np.ndarray  # 0 pointed chin, 1 square
    eye_size: np.ndarray
    eye_gap: np.ndarray
    eye_tilt: np.ndarray
    brow_weight: np.ndarray
    brow_arch: np.ndarray
    nose_length: np.ndarray
    nose_width: np.ndarray
    mouth_width: np.ndarray
    lips: np.ndarray
    ears: np.ndarray
    style: np.ndarray  # [n, 6], a row of STYLES, varied a little
    recedes: np.ndarray  # 1 where the hairline goes up with age
    greys_at: np.ndarray  # years
    glasses: np.ndarray  # 0 none, 1 round, 2 wide
    glasses_from: np.ndarray  # years
    beard: np.ndarray  # 0 none to 1 full
    moustache: np.ndarray
    freckles: np.ndarray
    mole: np.ndarray  # [n, 3]: x, y, radius (0 for none)
    looks: np.ndarray  # apparent age / age: above 1, the person looks older than they are


@dataclass(frozen=True)
class Views(_Columns):
    """How a picture was taken: one entry a picture, ``[n]``, colours ``[n, 3]``."""

    shift_x: np.ndarray
    shift_y: np.ndarray
    zoom: np.ndarray
    roll: np.ndarray  # radians
    yaw: np.ndarray
    pitch: np.ndarray
    smile: np.ndarray
    mouth_open: np.ndarray
    eyelids: np.ndarray
    gaze: np.ndarray
    light_x: np.ndarray
    light_y: np.ndarray
    exposure: np.ndarray
    tint: np.ndarray
    backdrop: np.ndarray
    clothes: np.ndarray
    noise: np.ndarray  # standard deviation, of 255


def draw_people(random: np.random.Generator, n: int, looks_spread: float) -> People:
    """Draw `n` people; `looks_spread` is the standard deviation of log(apparent age / age)."""

    def around(mean: float, spread: float) -> np.ndarray:
        return np.float32(mean + spread * random.uniform(-1, 1, n))

    def rarely(share: float, values: np.ndarray) -> np.ndarray:
        return np.where(random.random(n) < share, values, 0).astype(np.float32)

    def between_tones(palette: np.ndarray) -> np.ndarray:
        tone = random.uniform(0, len(palette) - 1, n)
        low = np.minimum(tone.astype(int), len(palette) - 2)
        return palette[low] + np.float32(tone - low)[:, None] * (palette[low + 1] - palette[low])

    style = STYLES[random.integers(len(STYLES), size=n)]
    style[:, :5] *= np.float32(random.uniform(0.75, 1.25, (n, 5)))
    long_hair = style[:, 1] > 0.3
    mole_side = random.choice(np.float32([-1, 1]), n)
    mole = np.stack([mole_side * around(0.22, 0.1), around(0.15, 0.2), rarely(0.35, around(0.03, 0.008))], 1)
    return People(
        skin=between_tones(SKIN),
        hair=HAIR[random.integers(len(HAIR), size=n)] * around(1, 0.12)[:, None],
        iris=IRIS[random.integers(len(IRIS), size=n)],
        frame=FRAMES[random.integers(len(FRAMES), size=n)],
        width=around(1, 0.11),
        height=around(1, 0.08),
        jaw=around(0.5, 0.5),
        eye_size=around(1, 0.18),
        eye_gap=around(1, 0.12),
        eye_tilt=around(0, 0.25),
        brow_weight=around(1, 0.5),
        brow_arch=around(0.4, 0.8),
        nose_length=around(1, 0.25),
        nose_width=around(1, 0.3),
        mouth_width=around(1, 0.2),
        lips=around(1, 0.45),
        ears=around(1, 0.3),
        style=style,
        recedes=np.where(long_hair, 0, rarely(0.5, around(0.8, 0.2))).astype(np.float32),
        greys_at=around(46, 9),
        glasses=rarely(0.3, random.integers(1, 3, n)),
        glasses_from=around(25, 20),
        beard=np.where(long_hair, 0, rarely(0.35, around(0.6, 0.4))).astype(np.float32),
        moustache=np.where(long_hair, 0, rarely(0.3, around(0.8, 0.2))).astype(np.float32),
        freckles=rarely(0.2, around(0.6, 0.3)),
        mole=mole,
        looks=np.exp(np.float32(random.normal(0, looks_spread, n))),
    )


def draw_views(random: np.random.Generator, n: int) -> Views:
    """Draw pose, expression, light, surroundings and noise of `n` pictures."""

    def normal(mean: float, spread: float) -> np.ndarray:
        return np.float32(mean + spread * np.clip(random.normal(size=n), -2.5, 2.5))

    return Views(
        shift_x=normal(0, 0.04),
        shift_y=normal(0, 0.04),
        zoom=normal(1.2, 0.06),
        roll=normal(0, 0.09),
        yaw=normal(0, 0.5),
        pitch=normal(0, 0.5),
        smile=normal(0.5, 0.45),
        mouth_open=np.clip(normal(0.1, 0.5), 0, 1),
        eyelids=np.clip(normal(1, 0.15), 0.5, 1.2),
        gaze=normal(0, 0.3),
        light_x=normal(0, 0.16),
        light_y=normal(-0.08, 0.06),
        exposure=normal(0.97, 0.09),
        tint=np.float32(1 + 0.035 * np.clip(random.normal(size=(n, 3)), -2, 2)),
        backdrop=np.float32(random.uniform(60, 205, (n, 1)) + random.uniform(-30, 30, (n, 3))),
        clothes=CLOTHES[random.integers(len(CLOTHES), size=n)],
        noise=np.float32(random.uniform(2, 8, n)),
    )
