"""How the server runs rounds: one setting a line, its unit in the comment."""

from typing import Literal

from pydantic import Field

from fedprompt.settings.section import Place, Section

MEANS = ("fedavg", "fedprox", "fedadam", "fedyogi", "fedavgm")  # average the sites' updates
ROBUST = ("fedmedian", "fedtrimmedavg", "krum", "multikrum", "bulyan")  # bear hostile sites


class ServerConfig(Section):
    """Settings of the ``[server]`` section."""

    rounds: int = Field(10, ge=0)
    strategy: Literal[
        "fedavg", "fedprox", "fedadam", "fedyogi", "fedavgm",
        "fedmedian", "fedtrimmedavg", "krum", "multikrum", "bulyan",
    ] = "fedavg"  # fmt: skip
    # how low-rank prompts are merged; "" = the method's own: fresh-basis for dip, else product
    rule: Literal["", "product", "shared-basis", "fresh-basis", "factors"] = ""
    dtype: Literal["float32", "float16"] = "float32"  # of the arrays on the wire, both ways
    seed: int = Field(0, ge=0, lt=2**32)  # of sampling and, through the messages, of local training
    output: Place = "runs/latest"  # folder of checkpoints, rounds.jsonl and the artefact
    resume: bool = False  # continue from the last committed round in `output`
    overwrite: bool = False  # start afresh in an `output` that holds an earlier run
    trackers: str = ""  # tensorboard, mlflow, or both with a comma between; "" = none

    # who takes part
    fraction: float = Field(1.0, gt=0, le=1)  # share of the joined sites asked each round
    sites: Place = ""  # list of enrolled nodes, written by flower-server; "" = any node may join
    min_sites: int = Field(0, ge=0)  # sites that must join before round one; 0 = data.clients
    quorum: float = Field(0.5, gt=0, le=1)  # share of the asked sites whose replies must pass
    retries: int = Field(2, ge=0)  # further tries of a round below quorum
    deadline: float = Field(600.0, gt=0)  # seconds one exchange with the sites may take
    join_deadline: float = Field(600.0, gt=0)  # seconds to wait for `min_sites`
    evaluate_every: int = Field(1, ge=0)  # rounds; 0 = before the first and after the last only

    # the gate
    clip_factor: float = Field(5.0, ge=0)  # an update's norm over the round's median; 0 = off
    clip_norm: float = Field(0.0, ge=0)  # largest norm of an update; 0 = off

    weighting: Literal["examples", "uniform"] = "examples"  # what a site's update weighs
    byzantine: int = Field(0, ge=0)  # sites that may be hostile; fedmedian to bulyan only
    quarantine: int = Field(3, ge=0)  # strikes after which a site is not asked; 0 = never
    quarantine_rounds: int = Field(10, ge=1)  # rounds it sits out; its strikes are halved then

    secure_aggregation: bool = False  # learn the sites' mean only (SecAgg+; docs/privacy.md)

    # the server's optimiser
    mu: float = Field(0.01, ge=0)  # proximal weight, fedprox only
    learning_rate: float = Field(0.01, gt=0)  # fedadam, fedyogi
    beta_1: float = Field(0.9, ge=0, lt=1)  # fedadam, fedyogi
    beta_2: float = Field(0.99, ge=0, lt=1)  # fedadam, fedyogi
    tau: float = Field(1e-3, gt=0)  # adaptivity floor of fedadam and fedyogi
    momentum: float = Field(0.9, ge=0, lt=1)  # fedavgm

    # simulation
    workers: int = Field(1, ge=1)  # threads that run sites in `--engine local`
    client_cpus: float = Field(1.0, gt=0)  # cores a site takes in `--engine ray`
    client_gpus: float = Field(0.0, ge=0)  # share of a GPU a site takes in `--engine ray`
