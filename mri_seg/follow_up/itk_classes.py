"""The classes of ITK that a rigid registration needs, without the seconds that ITK takes to load all others."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import itk

__all__ = ["Classes", "itk_classes"]


class Classes(NamedTuple):
    """Classes of ITK, for volumes of float32.

    Attributes:
        transform: ``VersorRigid3DTransform``.
        metric: ``MattesMutualInformationImageToImageMetricv4``.
        mask: ``ImageMaskSpatialObject``.
        optimizer: ``RegularStepGradientDescentOptimizerv4``.
        parameters: ``OptimizerParameters``.
        method: ``ImageRegistrationMethodv4``.
        enums: ``ImageRegistrationMethodv4Enums``.
    """

    transform: Any
    metric: Any
    mask: Any
    optimizer: Any
    parameters: Any
    method: Any
    enums: Any


@lru_cache(maxsize=1)
def itk_classes() -> Classes:
    """Load the classes, from the modules that hold them or, if a release of ITK has others, by their usual names.

    By its usual name (``itk.ImageRegistrationMethodv4``) a class comes after all classes of the parts of ITK on which
    its part depends, some thousand: that takes longer than several registrations.
    """
    try:
        return _direct()
    except ImportError:
        return _usual()


def _direct() -> Classes:
    from itk import itkImageMaskSpatialObjectPython as masks
    from itk import itkImageRegistrationMethodv4Python as methods
    from itk import itkMattesMutualInformationImageToImageMetricv4Python as metrics
    from itk import itkOptimizerParametersPython as parameters
    from itk import itkRegularStepGradientDescentOptimizerv4Python as optimizers
    from itk import itkVersorRigid3DTransformPython as transforms

    try:
        return Classes(
            transforms.itkVersorRigid3DTransformD,
            metrics.itkMattesMutualInformationImageToImageMetricv4IF3IF3,
            masks.itkImageMaskSpatialObject3,
            optimizers.itkRegularStepGradientDescentOptimizerv4D,
            parameters.itkOptimizerParametersD,
            methods.itkImageRegistrationMethodv4REGv4F3F3,
            methods.itkImageRegistrationMethodv4Enums,
        )
    except AttributeError as error:
        raise ImportError(str(error)) from error


def _usual() -> Classes:
    volume = itk.Image[itk.F, 3]
    return Classes(
        itk.VersorRigid3DTransform[itk.D],
        itk.MattesMutualInformationImageToImageMetricv4[volume, volume],
        itk.ImageMaskSpatialObject[3],
        itk.RegularStepGradientDescentOptimizerv4[itk.D],
        itk.OptimizerParameters[itk.D],
        itk.ImageRegistrationMethodv4[volume, volume],
        itk.ImageRegistrationMethodv4Enums,
    )
