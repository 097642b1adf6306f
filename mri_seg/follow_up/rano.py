"""Categories of the T2/FLAIR part of RANO-LGG.

Source: van den Bent et al., Response assessment in neuro-oncology (a report of the RANO group): assessment of outcome
in trials of diffuse low-grade gliomas, Lancet Oncology 12 (2011). Its T2/FLAIR criteria by the product of perpendicular
diameters: disappearance, -50 % and -25 % against the baseline, +25 % against the smallest so far, new lesions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from mri_seg.follow_up.repeatability import Z, critical_difference, standard_deviation
from mri_seg.follow_up.timeline import WITHIN, Response

__all__ = ["LIMITS", "VERSION", "response_of"]

VERSION = "RANO-LGG 2011 (van den Bent et al., Lancet Oncology 12), T2/FLAIR part"

LIMITS = (
    "The category is that of the T2/FLAIR images alone. RANO-LGG also asks for contrast-enhanced T1, the clinical "
    "state and the dose of corticosteroids, and confirms a response by a second scan: none of these is known here."
)

PARTIAL, MINOR, PROGRESSION = -50.0, -25.0, 25.0
"""Changes of the product in percent."""


def response_of(
    products: Sequence[float], new_lesions: Sequence[str], repeatability: Mapping[str, Any], *, visible: bool = True
) -> Response:
    """The category of the last of several scans since a baseline.

    Progression needs more than +25 % against the smallest so far *and* more than measurement error allows: by
    :py:func:`~mri_seg.follow_up.repeatability.critical_difference`, which takes into account that the smallest of
    several scans is small by chance too. A tumour that vanished and is back counts as progression by the same rule. A
    response follows from the percentage alone, as in the standard; the reason says if it is within measurement error.

    Args:
        products: sum of the bidimensional products of each scan since the baseline, in mm2, in order.
        new_lesions: what is said of each new measurable lesion.
        repeatability: result of :py:func:`~mri_seg.follow_up.repeatability.load_repeatability`.
        visible: whether any tumour is left in the last scan.

    Returns:
        the category and the figures behind it.
    """
    *earlier, now = products
    baseline, smallest = earlier[0], min(earlier)
    if new_lesions:
        return Response("progressive disease", f"new lesion: {'; '.join(new_lesions)}")
    if not visible:
        found = "no T2/FLAIR lesion is left" if baseline > 0 else "no T2/FLAIR lesion, as in the baseline"
        return Response("complete response" if baseline > 0 else "stable disease", found)
    if baseline <= 0:
        return Response("not evaluable", "no T2/FLAIR lesion in the baseline to compare with")
    if now > smallest:
        rise = 100 * (now / smallest - 1) if smallest > 0 else math.inf
        against = f"product {rise:+.0f} % against" if smallest > 0 else f"product {now:.0f} mm2 after none in"
        typical = sum(products) / len(products)  # of all scans: the smallest alone would make the error too small
        needed = critical_difference(len(earlier)) * standard_deviation(repeatability, "product", typical)
        if rise > PROGRESSION and now - smallest > needed:
            return Response("progressive disease", f"{against} the smallest so far")
        if rise > PROGRESSION and now >= baseline:
            return Response("stable disease", f"{against} the smallest so far, {WITHIN}")
    fall = 100 * (now / baseline - 1)
    against = f"product {fall:+.0f} % against the baseline"
    deviations = [standard_deviation(repeatability, "product", value) for value in (baseline, now)]
    if abs(now - baseline) <= Z * math.hypot(*deviations):
        against += f", {WITHIN}"
    if fall <= PARTIAL:
        return Response("partial response", against)
    return Response("minor response" if fall <= MINOR else "stable disease", against)
