from fedprompt.artefact import Artefact
from fedprompt.experiments.protocols.few_shot import run


def test_each_number_of_shots_is_tuned_anew(make_trial):
    trial = make_trial(prompt__method="coop", fit__epochs=1)
    found = run(trial)
    assert list(found.metrics) == [f"accuracy_{k}_shot" for k in (1, 2, 4, 8, 16)]
    hashes = {Artefact.load(trial.folder / f"{k}-shot").sha256 for k in (1, 2, 4, 8, 16)}
    assert len(hashes) == 5
    assert all(0 <= value <= 1 for value in found.metrics.values())


def test_shots_are_asked_for_one_after_the_other(make_trial, monkeypatch):
    from fedprompt.experiments.protocols import few_shot

    asked = []
    tune = few_shot.centrally

    def note(trial, part, changes):
        asked.append(changes["data.shots"])
        return tune(trial, part, changes)

    monkeypatch.setattr(few_shot, "centrally", note)
    few_shot.run(make_trial(prompt__method="template"))
    assert asked == [1, 2, 4, 8, 16]
