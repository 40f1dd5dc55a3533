"""Train the flow transformer and its text encoders, for pictures and for edits."""

from __future__ import annotations

import argparse
import json
import random
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import FluxKontextPipeline

from training import ranks
from training.attention import use_plain_attention
from training.batches import Batch, Sampler
from training.clock import Clock, StopFlag, learning_rate
from training.data import add_data_options, read_data
from training.guard import GradientGuard
from training.latents import encode_all
from training.model import encode_prompts, load_pipeline, trained_parts
from training.state import Average, load_state, save_state

EDIT_SHARE = 0.2
AVERAGE_EVERY = 4


class FlowLoss:
    """The rectified-flow loss of a batch: the model predicts noise minus picture."""

    def __init__(
        self, pipeline: FluxKontextPipeline, latents: torch.Tensor, *, compiled: bool
    ) -> None:
        """Prepare the positions and move the latents to the model's device."""
        self.pipeline = pipeline
        self.device = pipeline.transformer.device
        self.latents = latents.to(self.device)
        side = round(latents.shape[2] ** 0.5)
        make = pipeline._prepare_latent_image_ids
        self.places = make(1, side, side, self.device, torch.float32)
        self.reference_places = self.places.clone()
        self.reference_places[:, 0] = 1  # what Kontext gives its reference picture
        length = pipeline.tokenizer.model_max_length
        self.text_places = torch.zeros(length, 3, device=self.device)
        self.model = pipeline.transformer
        if compiled:
            self.model = torch.compile(self.model, dynamic=False)

    def __call__(self, batch: Batch) -> torch.Tensor:
        """Return the mean squared error of the predicted velocity."""
        clean = self.latents[batch.rows, batch.ops].float()
        noise = torch.randn_like(clean)
        drawn = torch.randn(len(clean), 1, 1, device=self.device) + 0.3
        sigma = torch.sigmoid(drawn)
        states, places = (1 - sigma) * clean + sigma * noise, self.places
        if batch.reference_rows:
            reference = self.latents[batch.reference_rows, batch.reference_ops]
            states = torch.cat([states, reference.float()], 1)
            places = torch.cat([places, self.reference_places])
        with torch.autocast(self.device.type, torch.bfloat16):
            pooled, words = encode_prompts(self.pipeline, batch.prompts)
            velocity = self.model(
                hidden_states=states,
                timestep=sigma.view(-1),
                pooled_projections=pooled,
                encoder_hidden_states=words,
                txt_ids=self.text_places,
                img_ids=places,
                guidance=None,
                return_dict=False,
            )[0][:, : clean.shape[1]]
        return F.mse_loss(velocity.float(), noise - clean)


def make_optimizer(pipeline: FluxKontextPipeline) -> torch.optim.Optimizer:
    """Return AdamW; rarely seen word embeddings learn five times faster."""
    embeddings, rest = [], []
    for module in trained_parts(pipeline):
        is_text = module is not pipeline.transformer
        for name, parameter in module.named_parameters():
            rare = is_text and ("embed" in name or "shared" in name)
            (embeddings if rare else rest).append(parameter)
    groups = [
        {"params": rest, "factor": 1.0, "weight_decay": 0.01},
        {"params": embeddings, "factor": 5.0, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.99), fused=True)


class Run:
    """One rank's training run: everything that has to stop and go on together."""

    def __init__(self, options: argparse.Namespace, sampler: Any, loss: Any) -> None:
        """Take up the saved state of this run, if there is one."""
        self.options, self.sampler, self.loss = options, sampler, loss
        self.parts = trained_parts(loss.pipeline)
        self.parameters = [p for part in self.parts for p in part.parameters()]
        self.optimizer = make_optimizer(loss.pipeline)
        self.average = Average(self.parts, options.average**AVERAGE_EVERY)
        self.clock, self.step = Clock(options.budget), 0
        self.guard = GradientGuard()
        self.kind = random.Random(5)
        torch.manual_seed(1 + ranks.RANK)
        if options.state.exists():
            self._resume()
        ranks.share_start(self.parameters)
        self.seen: dict[str, list[torch.Tensor]] = {"generate": [], "edit": []}
        self.reported = time.monotonic()

    @property
    def _random_file(self) -> Path:
        return self.options.state.with_suffix(f".random{ranks.RANK}")

    def _resume(self) -> None:
        self.step = load_state(
            self.options.state, self.parts, self.optimizer, self.average, self.clock
        )
        if self._random_file.exists():
            saved = torch.load(self._random_file, weights_only=False)
            if saved["step"] == self.step:
                self.kind.setstate(saved["kind"])
                self.sampler.random.setstate(saved["sampler"])
                torch.set_rng_state(saved["torch"])

    def save(self) -> None:
        """Write the state: weights by the first rank, random state by each."""
        state = {
            "step": self.step,
            "kind": self.kind.getstate(),
            "sampler": self.sampler.random.getstate(),
            "torch": torch.get_rng_state(),
        }
        torch.save(state, self._random_file)
        if ranks.RANK == 0:
            save_state(
                self.options.state,
                self.parts,
                self.optimizer,
                self.average,
                self.clock,
                self.step,
            )

    def spend(self) -> float:
        """Return the share of the budget spent, which a file may change meanwhile.

        Most of what a run gains comes while the rate falls. Written while a run goes
        on, the file lets it end well when its time turns out shorter or longer.
        """
        if self.step % 20 == 0:
            file = self.options.state.with_suffix(".budget")
            asked = float(file.read_text()) if file.exists() else self.options.budget
            self.clock.budget = ranks.agree(asked)
        return self.clock.tick()

    def advance(self, share: float) -> None:
        """Take one optimizer step."""
        options = self.options
        rate = learning_rate(options.rate, self.step, share, options.decay)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        # Every rank draws the same kind, so that their steps take equally long.
        kind = "edit" if self.kind.random() < EDIT_SHARE else "generate"
        loss = self.loss(getattr(self.sampler, kind)(options.batch))
        self.seen[kind].append(loss.detach())
        self.optimizer.zero_grad()
        loss.backward()
        ranks.average_gradients(self.parameters)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        if self.guard.allows(norm.item()):
            self.optimizer.step()
        self.step += 1
        if self.step % AVERAGE_EVERY == 0:
            self.average.update(self.parts, self.step // AVERAGE_EVERY)

    def report(self, share: float) -> None:
        """Print the progress, once in a while and by the first rank."""
        waited = time.monotonic() - self.reported
        if ranks.RANK or waited < self.options.report:
            return
        drawn = sum(map(len, self.seen.values())) * self.options.batch * ranks.WORLD
        line = {
            "step": self.step,
            "spent": round(self.clock.spent),
            "share": round(share, 4),
            "per_second": round(drawn / waited, 1),
        }
        kinds = {kind: values for kind, values in self.seen.items() if values}
        means = {kind: torch.stack(v).mean().item() for kind, v in kinds.items()}
        line |= {kind: round(value, 4) for kind, value in means.items()}
        print(json.dumps(line), flush=True)
        self.seen, self.reported = {"generate": [], "edit": []}, time.monotonic()


def train(run: Run) -> None:
    """Train until the budget is spent or a signal asks to stop, then save."""
    options, saved = run.options, time.monotonic()
    with StopFlag() as stop:
        while (share := run.spend()) < 1 and not stop.agreed():
            run.advance(share)
            run.report(share)
            if ranks.agree(time.monotonic() - saved) > options.save_every:
                run.save()
                saved = time.monotonic()
    run.save()


def parse_options(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the options of one flow training run."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_data_options(parser)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--init", type=Path, required=True)
    parser.add_argument("--latents", type=Path, required=True)
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--budget", type=float, default=5400, help="active seconds")
    parser.add_argument("--decay", type=float, default=0.35)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--batch", type=int, default=64, help="per rank")
    parser.add_argument("--average", type=float, default=0.998)
    parser.add_argument("--report", type=float, default=60)
    parser.add_argument("--save-every", type=float, default=240)
    parser.add_argument("--no-compile", dest="compiled", action="store_false")
    return parser.parse_args(arguments)


def main() -> None:
    """Train as the options say."""
    options = parse_options()
    device = ranks.start_rank()
    pipeline = load_pipeline(options.init).to(device)
    pipeline.set_progress_bar_config(disable=True)
    data = read_data(options, options.size)
    if device.type == "cpu":
        use_plain_attention()
    latents = encode_all(pipeline.vae, data, options.latents)
    sampler = Sampler(data, latents, random.Random(1 + ranks.RANK))
    loss = FlowLoss(pipeline, latents.values, compiled=options.compiled)
    train(Run(options, sampler, loss))
    ranks.stop_rank()


if __name__ == "__main__":
    main()
