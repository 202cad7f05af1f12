"""Run by the interpreter of ZigZag's own environment, never by ours: `zigzag_driver.py JOBS ANSWERS`.

JOBS is a JSON list of {accelerator, workload, mapping: files, opt, lpf_limit}; ANSWERS gets one entry each.
"""

import json
import logging
import sys
import time
from typing import Any

from zigzag.mapping.temporal_mapping import TemporalMappingType
from zigzag.stages.evaluation.cost_model_evaluation import CostModelStage
from zigzag.stages.main import MainStage
from zigzag.stages.mapping.spatial_mapping_generation import SpatialMappingGeneratorStage
from zigzag.stages.mapping.temporal_mapping_generator_stage import TemporalMappingGeneratorStage
from zigzag.stages.parser.accelerator_parser import AcceleratorParserStage
from zigzag.stages.parser.workload_parser import WorkloadParserStage
from zigzag.stages.results.reduce_stages import MinimalEnergyStage, MinimalLatencyStage
from zigzag.stages.workload_iterator import WorkloadStage

REDUCE = {"latency": MinimalLatencyStage, "energy": MinimalEnergyStage}


def evaluate(job: dict[str, Any]) -> dict[str, Any]:
    """Let ZigZag map one product, as its own `get_hardware_performance_zigzag` does, and take its numbers."""
    reduce = REDUCE[job["opt"]]
    begin = time.perf_counter()
    stage = MainStage(
        [
            WorkloadParserStage,
            AcceleratorParserStage,
            WorkloadStage,
            reduce,
            SpatialMappingGeneratorStage,
            reduce,
            TemporalMappingGeneratorStage,
            CostModelStage,
        ],
        accelerator=job["accelerator"],
        workload=job["workload"],
        mapping=job["mapping"],
        loma_lpf_limit=job["lpf_limit"],
        loma_show_progress_bar=False,
        nb_mappings_generated=3,
        enable_mix_spatial_mapping_generation=False,
        access_same_data_considered_as_no_access=True,
        temporal_mapping_type=TemporalMappingType("uneven"),
    )
    found = stage.run()[0][0]
    seconds = time.perf_counter() - begin
    return {
        "wall_s": seconds,
        "latency": found.latency_total2,
        "ideal": found.ideal_temporal_cycle,
        "stall": found.stall_slack_comb,
        "onload": found.data_onloading_cycle,
        "offload": found.data_offloading_cycle,
        "energy_pj": found.energy_total,
        "mac_pj": found.mac_energy,
        "memory_pj": {str(op): levels for op, levels in found.mem_energy_breakdown.items()},
        "accesses": {
            str(op): [{str(way): n for way, n in level.data.items()} for level in levels]
            for op, levels in found.memory_word_access.items()
        },
        "loops": {
            str(op): [[(str(axis), size) for axis, size in level] for level in levels]
            for op, levels in found.temporal_mapping.mapping_dic_origin.items()
        },
    }


def main() -> None:
    """Answer all jobs."""
    logging.disable(logging.CRITICAL)
    jobs, answers = sys.argv[1:]
    with open(jobs, encoding="utf-8") as file:
        found = [evaluate(job) for job in json.load(file)]
    with open(answers, "w", encoding="utf-8") as file:
        json.dump(found, file, default=float)


if __name__ == "__main__":
    main()
