"""`make demo`: one whole compression job through the real stack, as a client would do it."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from safetensors.torch import save_file

from cstar_client import Client, JobFailed
from cstar_client.cli.results import print_table, print_targets
from cstar_client.cli.watching import watch
from stack.demo import reproduce
from stack.demo.digits import MEAN, STD, Digits, load_digits
from stack.embedded import Stack
from store.settings import settings

CHECKPOINT = Path(__file__).parent / "digits_resnet8.safetensors"
EPSILON = 0.1
SMALLER_BY_COUNTING = 4.0  # every tensor counts here, running statistics too
REQUEST: dict[str, Any] = {
    "profile": "quick",
    "seed": 0,
    "targets": {
        "compression": {"ratio": 4.5},
        "robustness": {"norm": "linf", "epsilon": EPSILON, "min_accuracy": 0.5},
        "min_clean_accuracy": 0.9,
    },
    "evaluation": {"examples": 360, "autoattack_examples": 64, "probe_examples": 128},
    "options": {"admm_epochs": 12, "finetune_epochs": 16},
    "labels": {"demo": "digits"},
}


def main(given: Sequence[str] | None = None) -> int:
    """Run the demo; returns 0 only if every target holds and every check passes."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("demo_output"))
    parser.add_argument("--data-dir", type=Path, help="default: a new folder under .cstar")
    arguments = parser.parse_args(given)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 110)
    began = time.monotonic()
    digits = load_digits()
    data_dir = arguments.data_dir or Path(".cstar") / time.strftime("demo-%Y%m%d-%H%M%S")
    threads = settings().runner_threads or 1  # quickest for so small a network (decisions/0001)
    configuration = settings().model_copy(update={"data_dir": data_dir, "runner_threads": threads})
    console.print("starting the stack: broker, migrations, API, workers, scheduler")
    with Stack(configuration) as stack, Client(stack.url, stack.api_key) as client:
        console.print(f"ready at {stack.url} after {time.monotonic() - began:.1f} s")
        job = run_job(client, digits, console)
        folder = download(client, job, arguments.output, console)
    good = check(folder, digits, job, console)
    print_table(console, job["result"], epsilon=EPSILON)
    good = print_targets(console, job["result"]) and good
    console.print(f"the compressed model is in {folder.resolve()}")
    console.print(f"{'all targets hold' if good else 'FAILED'}, {time.monotonic() - began:.0f} s")
    return 0 if good else 1


def run_job(client: Client, digits: Digits, console: Console) -> dict[str, Any]:
    """Upload the checkpoint and the data, submit the job, and follow it to its end."""
    with tempfile.TemporaryDirectory() as folder:
        data = digits.save(Path(folder) / "digits.npz")
        dataset = client.datasets.upload(data)
    model = client.models.upload(CHECKPOINT, dataset, mean=MEAN, std=STD)
    console.print(
        f"uploaded {CHECKPOINT.name} ({CHECKPOINT.stat().st_size:,} bytes) and digits.npz"
    )
    architecture = model["architecture"] or {}
    console.print(f"recognised {architecture['name']}, {model['parameters']:,} parameters")
    body = {**REQUEST, "model_id": model["id"], "dataset_id": dataset["id"]}
    job = client.jobs.create(body)
    console.print(f"submitted {job['id']}")
    ended = watch(client, job, console)
    if ended["status"] != "succeeded":
        raise SystemExit(str(JobFailed(ended)))
    return dict(ended)


def download(client: Client, job: Mapping[str, Any], output: Path, console: Console) -> Path:
    """Fetch every artifact; the client checks each digest as it arrives."""
    folder = output / str(job["id"])
    saved = client.jobs.download_all(job["id"], folder)
    console.print(f"downloaded {len(saved)} files, every SHA-256 as announced")
    return folder


def check(folder: Path, digits: Digits, job: Mapping[str, Any], console: Console) -> bool:
    """Score the downloaded files in a fresh process that knows torch and their loader alone."""
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch) / "test.safetensors"
        images = torch.from_numpy(digits.test_images).permute(0, 3, 1, 2)
        save_file(
            {
                "images": (images.float() / 255).contiguous(),
                "labels": torch.from_numpy(digits.test_labels),
            },
            data,
        )
        command = [sys.executable, "-I", reproduce.__file__, str(folder), str(data)]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        console.print(f"the downloaded files cannot be scored: {ended.stderr}")
        return False
    found = json.loads(ended.stdout)
    after = job["result"]["after"]
    said = {
        "clean": after["clean_accuracy"]["value"],
        "pgd-20": after["robust_accuracy"]["pgd-20"]["value"],
    }
    good = found["parameters"] == after["parameters"]
    for name, value in said.items():
        accuracy = found[name]["correct"] / found[name]["n"]
        good = good and accuracy == value
        console.print(f"downloaded file, fresh process: {name} {accuracy:.4f}, report {value:.4f}")
    ratio = job["result"]["before"]["parameters"] / found["tensor_elements"]
    counted = f"{found['tensor_elements']:,} elements in the tensors of model.safetensors"
    console.print(f"{counted}: {ratio:.2f}x fewer than the parameters uploaded")
    return bool(good and ratio >= SMALLER_BY_COUNTING)


if __name__ == "__main__":
    sys.exit(main())
