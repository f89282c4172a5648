"""A run without data: everything a config names is built, and a blank batch goes through it.

Modules are built on torch's meta device, whose tensors have shapes and dtypes but no values, so that a ResNet takes
milliseconds, no memory and no GPU, and a layer that does not fit the one before it is found all the same. Small models
of common layers compute on the CPU: that takes less than the second in which torch makes ready for meta tensors.
"""

from visreg.dry_run.again import all_dry_run_problems

__all__ = ["all_dry_run_problems"]
