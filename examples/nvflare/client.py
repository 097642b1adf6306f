"""A hospital of a federation with NVIDIA FLARE: MONAI's client with this bundle. FLARE starts it; see job.py."""

from __future__ import annotations

import argparse
import json

import nvflare.client as flare
from monai.fl.client import MonaiAlgo
from monai.fl.utils.constants import ExtraItems, FlStatistics
from monai.fl.utils.exchange_object import ExchangeObject


def main() -> None:
    """Train on the hospital's own cases, from the weights of each round, until the federation ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("options", help="JSON file with bundle_root, output_dir and further keys of the configs")
    with open(parser.parse_args().options, encoding="utf-8") as file:
        options = json.load(file)
    bundle_root, output_dir = options.pop("bundle_root"), options.pop("output_dir")
    flare.init()
    client = MonaiAlgo(
        bundle_root,
        send_weight_diff=False,
        train_kwargs={**options, "output_dir": output_dir},
        eval_kwargs={**options, "output_dir": f"{output_dir}/evaluation", "report": False},
    )
    client.initialize({ExtraItems.CLIENT_NAME: flare.get_site_name()})
    while flare.is_running():
        received = ExchangeObject(weights=flare.receive().params)
        metrics = client.evaluate(received).metrics
        client.train(received)
        trained = client.get_weights()
        flare.send(
            flare.FLModel(
                params=trained.weights,
                metrics={name: float(value) for name, value in metrics.items()},
                meta={"NUM_STEPS_CURRENT_ROUND": trained.statistics[FlStatistics.NUM_EXECUTED_ITERATIONS]},
            )
        )


if __name__ == "__main__":
    main()
