"""Turns a plan into what a person wants to know before submitting it. Renders nothing, expands nothing.

Counts come from the axes alone where a plan is a plain product, so ten million jobs are looked over as fast as ten.
"""

from producer.preview.difference import PlanDifference, compare_plans
from producer.preview.estimate import TimeEstimate
from producer.preview.overview import SAMPLE_JOBS, UNMEASURED, BucketPreview, Preview, SampledJob, preview
from producer.preview.show import render_difference, render_preview
from producer.preview.text_costs import ModelTexts, TokenizerFound

__all__ = [
    "SAMPLE_JOBS",
    "UNMEASURED",
    "BucketPreview",
    "ModelTexts",
    "PlanDifference",
    "Preview",
    "SampledJob",
    "TimeEstimate",
    "TokenizerFound",
    "compare_plans",
    "preview",
    "render_difference",
    "render_preview",
]
