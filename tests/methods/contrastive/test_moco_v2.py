"""MoCo v2."""

import math

from tests.methods.case import zero_params_loss


def collapsed(case):
    return zero_params_loss(case), math.log(case.config["method"]["queue_size"] + 1)
