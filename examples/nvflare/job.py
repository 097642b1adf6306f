"""Federated averaging of this bundle in NVIDIA FLARE's simulator, with one client per folder of cases.

    python examples/nvflare/job.py data/hospital_a data/hospital_b --rounds 3

Each folder is in TCGA-LGG's form and holds a ``split.json``. Further options are keys of the bundle's configs. The
averaged model, ``FL_global_model.pt``, and the runs of the hospitals are under ``--output_dir``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from monai.bundle import ConfigParser
from nvflare.app_opt.pt.recipes.fedavg import FedAvgRecipe
from nvflare.recipe import SimEnv
from nvflare.recipe.utils import set_per_site_config

HERE = Path(__file__).resolve().parent
BUNDLE = HERE.parents[1] / "bundle"


def main() -> None:
    """Write the settings of each hospital, and run the federation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output_dir", type=Path, default=Path("runs/nvflare"))
    args, others = parser.parse_known_args()
    options = {key.removeprefix("--"): json.loads(value) for key, value in zip(others[::2], others[1::2], strict=True)}
    output_dir = args.output_dir.resolve()
    sites = {}
    for folder in args.folders:
        file = output_dir / folder.name / "options.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        own = {
            "bundle_root": str(BUNDLE),
            "dataset_dir": str(folder.resolve()),
            "split": str(folder.resolve() / "split.json"),
            "output_dir": str(file.parent),
            "steps": f"${args.rounds} * len(@train#dataloader)",  # the learning rate falls over all rounds
        }
        file.write_text(json.dumps({**own, **options}, indent=1) + "\n", encoding="utf-8")
        sites[folder.name] = {"train_args": str(file)}
    config = ConfigParser(ConfigParser.load_config_file(str(BUNDLE / "configs" / "train.json")))
    config.update(options)
    network = {key: config.get_parsed_content(f"network_def#{key}") for key in config["network_def"]}
    recipe = FedAvgRecipe(
        name="mri_seg",
        model={"class_path": network.pop("_target_"), "args": network},
        min_clients=len(sites),
        num_rounds=args.rounds,
        train_script=str(HERE / "client.py"),
        key_metric="patient_dice",
    )
    set_per_site_config(recipe, sites)
    run = recipe.execute(SimEnv(clients=[*sites], workspace_root=str(output_dir)))
    print("The averaged model is below", run.get_result())


if __name__ == "__main__":
    main()
