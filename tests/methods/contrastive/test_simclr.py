"""SimCLR."""

import math

from tests.methods.case import BATCH, zero_params_loss


def collapsed(case):
    return zero_params_loss(case), math.log(2 * BATCH - 1)
