from __future__ import annotations

import itertools
import re

import numpy as np
import pytest

from classroomkd.report.style import THEMES, arm_colours, css_variables, page_ink

# Machado, Oliveira and Fernandes (2009), severity 1, on linear RGB.
VISION = {
    "normal": np.eye(3),
    "deutan": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "protan": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "tritan": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)


def linear(colour: str) -> np.ndarray:
    c = np.array([int(colour[k : k + 2], 16) for k in (1, 3, 5)]) / 255
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    xyz = XYZ @ np.clip(rgb, 0, 1) / np.array([0.95047, 1, 1.08883])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def contrast(a: str, b: str) -> float:
    low, high = sorted(float(linear(c) @ XYZ[1]) for c in (a, b))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", THEMES)
def test_hues_are_told_apart_by_everyone(theme: str) -> None:
    ink = THEMES[theme]
    for matrix in VISION.values():
        for a, b in itertools.combinations(ink.hues, 2):
            assert np.linalg.norm(lab(matrix @ linear(a)) - lab(matrix @ linear(b))) >= 14, (a, b)
    for colour in (*ink.hues, ink.accent, ink.alone, ink.average, ink.gain, ink.loss):
        assert contrast(colour, ink.surface) >= 3, colour
    for text in (ink.ink, ink.muted, ink.gain, ink.loss, ink.accent):
        assert min(contrast(text, ink.surface), contrast(text, ink.page), contrast(text, ink.sunken)) >= 4.5, text


@pytest.mark.parametrize("theme", THEMES)
def test_numbers_on_the_ramp_are_readable(theme: str) -> None:
    ink = THEMES[theme]
    for step, colour in enumerate(ink.ramp):
        assert contrast(colour, ink.ramp_high if step >= len(ink.ramp) // 2 else ink.ramp_low) >= 4.4, step
    lightness = [lab(linear(colour))[0] for colour in ink.ramp]
    assert all((a > b) == (theme == "light") for a, b in itertools.pairwise(lightness))


def test_every_variable_of_the_page_exists_in_both_themes() -> None:
    used = set(re.findall(r"var\((--[\w-]+)\)", str(page_ink())))
    for theme in THEMES:
        assert used == set(re.findall(r"(--[\w-]+):", css_variables(theme)))


def test_arm_colours() -> None:
    ink = THEMES["light"]
    colours = arm_colours(["none", "average", "kd", "classroomkd", "none"], ink, main=3)
    assert colours[:2] == [ink.alone, ink.average]
    assert colours[3] == ink.accent
    assert len(set(colours)) == 5
    assert not {ink.gain, ink.loss} & set(colours)
