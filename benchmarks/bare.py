"""The embedded model as a bare pipeline: what measurements of the server are over."""

from __future__ import annotations

import os

# As the server sets it: two cores are not to wait for each other differently.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

import diffusers
import torch

from flux_api.engine.pipeline_call import PipelineCall
from flux_api.http.model_defaults import Inputs, complete_request
from flux_api.http.parameters import Parameters
from flux_api.loading.model_sets import quiet_libraries
from flux_api.models.catalog import MODEL_INFO


class BarePipeline:
    """A stock diffusers pipeline over the weights of the set ``name``, whose folder is
    here, in this process."""

    def __init__(self, name: str = "tiny") -> None:
        self._name, self._info = name, MODEL_INFO[name]
        quiet_libraries()
        kind = getattr(diffusers, self._info.tasks["generate"].pipeline)
        self.pipeline = kind.from_pretrained(
            self._info.base_model.path, dtype=torch.float32, local_files_only=True
        )
        self.pipeline.set_progress_bar_config(disable=True)

    def draw(self, prompt: str, seed: int, **asked: object) -> None:
        """One picture, as a caller of diffusers gets it."""
        values = {"prompt": prompt, "seed": seed} | asked
        request = complete_request(
            self._name, self._info, "generate", Parameters.read(values), Inputs()
        )
        task = self._info.tasks["generate"]
        call = PipelineCall(request, self._info, task, seed)
        image = self.pipeline(**call.prepare(self.pipeline)).images[0]
        call.deliver(image, seed)
