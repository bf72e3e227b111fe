"""What a model card says, under the headings of Mitchell et al., Model Cards for Model Reporting, 2019; every fact
comes from `loop.describing.model_card`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rounds.report.cards import NOT_STATED, Block, Card, Facts, Points, Section, Table, Text, listed, stated
from rounds.report.pages import count, decimal, moment, percent, seconds
from rounds.report.results import bounds, measured, where

USE = {
    "purpose": "Research and teaching.",
    "out_of_scope": "It is not a medical device: nothing that it says may decide how a patient is examined or treated.",
}
VARIANTS = {
    "trained": "as it was trained",
    "recalibrated": "another bundle with its outputs refitted to newer labels",
    "int8": "another bundle whose network computes in eight bits",
    "pruned": "another bundle whose network was narrowed and trained on",
    "imported": "a model that was trained elsewhere and brought along",
}
POLICIES = {
    "youden": "sensitivity and specificity together are highest (Youden)",
    "sensitivity": "specificity is highest among the points that reach a sensitivity of {min_sensitivity:g}",
    "cost": "the expected cost is lowest, where a missed film costs {cost_false_negative:g} and a false call "
    "{cost_false_positive:g}",
}
CHECKS = "The gate asks these questions before a model may serve, and a limit that is missed refuses it"


def model_card(facts: Mapping[str, Any], asked: Mapping[str, str]) -> Card:
    """The card; `asked` are the questions that only people can answer, by heading."""
    return Card(
        kicker="model card",
        title=f"Model {facts['version'] or facts['bundle'][:12]}",
        lead=_lead(facts),
        meta=f"Bundle {facts['bundle']}, which names the content: another model has another. "
        f"Written {moment(facts['written'])} UTC.",
        sections=[
            Section("Model details", list(_details(facts))),
            Section("Intended use", _use(facts, asked, ("purpose", "users", "out_of_scope", "licence", "contact"))),
            Section("Factors: for whom and what it may be worse", list(_factors(facts))),
            Section("Metrics, and how it decides", list(_deciding(facts))),
            *measured(facts),
            Section("Evaluation data", list(_evaluation_data(facts))),
            Section("Training data", list(_training_data(facts))),
            Section("Ethical considerations", _ethics(facts, asked)),
            Section("Caveats and known limits", [*_use(facts, asked, ("limits",)), Points(facts["limits"])]),
            Section("Cost", list(_cost(facts))),
            Section("History, and who decides", list(_history(facts))),
        ],
    )


def _lead(facts: Mapping[str, Any]) -> str:
    what = f"It tells {listed(facts['classes'])} apart on films of {facts['imaging']['size']} pixels a side."
    if not facts["evaluations"]:
        return f"{what} How good it is was never measured."
    one = facts["evaluations"][0]
    told = [
        f"an {name} of {one['metrics'][key]['value']:.3f} (95 % interval {bounds(one['metrics'][key])})"
        for key, name in (("auc", "AUC"), ("accuracy", "accuracy"))
        if key in one["metrics"]
    ]
    where = f"{count(one['n'])} films of {one['name'] or one['data'][:12]} ({one['split']})"
    return f"{what} On {where} it reached {listed(told)}." if told else f"{what} It was measured on {where}."


def _details(facts: Mapping[str, Any]) -> Iterator[Block]:
    imaging, parents, run = facts["imaging"], facts["parents"], facts["run"]
    colour = {1: "gray", 3: "colour"}.get(imaging["channels"], f"{imaging['channels']} channels")
    state = "in service now" if facts["champion"] else "not in service"
    rows = [
        ("Version", f"{facts['version']}, {state}" if facts["version"] else f"not registered, {state}"),
        ("What it is", VARIANTS.get(facts["variant"], facts["variant"])),
    ]
    if parents["bundle"]:
        rows.append(("The bundle it came of", parents["bundle"]))
    rows += [
        (
            "Input",
            f"{imaging['size']} by {imaging['size']} pixels, {colour}; other shapes are {_fitted(imaging['fit'])}",
        ),
        ("Answer", "a probability for each class, a class, and the set of classes that cannot be ruled out"),
        ("Size", f"{sum(facts['files'].values()) / 1e6:.2f} MB, of which the network is {_network(facts):.2f} MB"),
        ("Time", _time(facts["evaluations"])),
    ]
    if facts["imported"]:
        rows.append(("Brought along as", f"{facts['imported']['file']}, SHA-256 {facts['imported']['sha256']}"))
    rows += [("Training run", parents["run"]), ("Code", _code(parents["code"]))]
    rows.append(("Configuration", f"digest {parents['config']}"))
    yield Facts(rows)
    if run:
        yield Text(_recipe(run["spec"]))
        yield Table("The settings that it was trained with", ["group", "settings"], _settings(run["spec"]))
    else:
        yield Text("How it was trained is not recorded in this workspace.")


def _code(revision: str) -> str:
    if revision.endswith("+"):
        return f"{revision[:-1]}, with changes that were not committed"
    return revision or "not recorded"


def _fitted(fit: str) -> str:
    return {"stretch": "stretched to a square", "pad": "filled up to a square"}[fit]


def _network(facts: Mapping[str, Any]) -> float:
    return float(facts["files"]["model.onnx"]) / 1e6


def _time(evaluations: Sequence[Mapping[str, Any]]) -> str:
    timed = [one for one in evaluations if one["ms"]]
    if not timed:
        return "not measured"
    told = f"{decimal(timed[0]['ms'], 2)} ms a film for the network alone"
    return f"{told}, in batches of 32 on one thread of the machine that measured it"


def _recipe(spec: Mapping[str, Any]) -> str:
    model, loop = spec["model"], spec["train"]
    weights = "pretrained weights" if model["pretrained"] else "random weights"
    width = "" if model["width"] == 1 else f", {model['width']:g} times as wide as usual"
    return (
        f"The network is {model['name']}{width}, trained from {weights} for {loop['epochs']} epochs in batches of at "
        f"most {loop['batch']} with seed {spec['seed']}."
    )


def _settings(spec: Mapping[str, Any]) -> list[list[str]]:
    groups = {key: value for key, value in spec.items() if isinstance(value, Mapping)}
    return [[name, ", ".join(f"{key}={value}" for key, value in group.items())] for name, group in groups.items()]


def _use(facts: Mapping[str, Any], asked: Mapping[str, str], names: Sequence[str]) -> list[Block]:
    ref = facts["version"] or facts["bundle"][:12]
    rows = stated(facts["said"], {name: asked[name] for name in names}, facts["bundle"], f"rounds describe {ref}")
    usual = {asked[name]: text for name, text in USE.items() if name == "out_of_scope" or not facts["said"][name]}
    return [Facts([(question, f"{usual[question]} {text}" if question in usual else text) for question, text in rows])]


def _factors(facts: Mapping[str, Any]) -> Iterator[Block]:
    named = sorted({row["attribute"] for one in facts["evaluations"] for row in one["slices"]})
    if named:
        yield Text(
            f"It was measured apart for films of each {listed(named, 'or')}: see the slices below. Whatever else may "
            "matter, such as illness, age, posture, scanner or site where it is not named here, was not looked at."
        )
    else:
        yield Text(
            "No group of people, site or scanner was measured apart, since the films that it was measured on say "
            "nothing "
            "of them. For medical films age, sex, posture, scanner and site often matter."
        )


def _deciding(facts: Mapping[str, Any]) -> Iterator[Block]:
    calibration, classes = facts["calibration"], facts["classes"]
    threshold = calibration["threshold"]
    if threshold is None:
        yield Text("The class with the highest probability is given.")
    else:
        yield Text(
            f"The class {classes[-1]} is given from a probability of {decimal(threshold)} up: the operating point. "
            f"{_policy(facts['policy'])}"
        )
    yield Text(
        f"Probabilities were adjusted on validation films so that they mean what they say: the network's outputs are "
        f"divided by a temperature of {decimal(calibration['temperature'])}"
        f"{' and shifted by ' + listed(decimal(b) for b in calibration['bias']) if any(calibration['bias']) else ''}."
    )
    yield Text(
        "Beside the class every answer names a set of classes. For films like those of the calibration split, "
        "the true "
        f"class is missing from the set in at most {percent(calibration['alpha'])} of the films of each class, on "
        "average over calibrations (conformal prediction). A film whose set is empty or holds several classes, or that "
        "is unlike the calibration films, is referred to a person."
    )
    rows = [[name, decimal(limit)] for name, limit in zip(classes, calibration["conformal"], strict=True)]
    yield Table(
        "A class is in the set when one minus its probability is at most this", ["class", "limit"], rows, frozenset({1})
    )


def _policy(policy: Mapping[str, Any] | None) -> str:
    if policy is None:
        return "How it was chosen is not recorded in this workspace."
    on = "validation films, and on the same films as other scanners might show them, counted alike"
    told = POLICIES[policy["policy"]].format(**policy)
    return f"It was chosen where {told}, on {on if policy['robust'] else 'validation films'}."


def _evaluation_data(facts: Mapping[str, Any]) -> Iterator[Block]:
    if not facts["evaluations"]:
        yield Text("None: it was never measured.")
        return
    rows = [
        [
            where(one),
            count(one["n"]),
            count(one["subjects"]),
            "the model's own" if one["own"] else "other",
            one["data"][:12],
        ]
        for one in facts["evaluations"]
    ]
    head = ["data set, split", "films", "subjects", "source", "digest"]
    yield Table("What it was measured on", head, rows, frozenset({1, 2}))
    yield Text(
        "The test split took no part in making the model; val chose its settings, temperature and operating point, and "
        "calibration its sets, so results on these two are too good. Each data set has a card of its own: rounds data "
        "card NAME."
    )


def _training_data(facts: Mapping[str, Any]) -> Iterator[Block]:
    data = facts["data"]
    if data is None:
        yield Text(f"Data set {facts['parents']['data']}, which is not in this workspace.")
        return
    if facts["imported"]:
        yield Text("What it was trained on is not known here; this is the data set that it was calibrated on.")
    splits = listed(f"{split} ({count(n)})" for split, n in data["splits"].items())
    subjects = "No subject stands in two splits." if data["subjects_known"] else "Whose film each is, is not known."
    yield Text(f"Data set {data['name']}, digest {data['digest']}: {splits}. {subjects}")
    yield Facts([(name, _from(data, key)) for name, key in (("Source", "source"), ("Licence", "licence"))])
    yield Text(f"Its data card, with how it was made and what its checks found: rounds data card {data['name']}.")


def _from(data: Mapping[str, Any], key: str) -> str:
    said = data["said"][key]
    told = [said["text"]] if said else [f"{known[key]} (published of {known['of']})" for known in data["known"]]
    return "; ".join(told) or f"{NOT_STATED} To state it: rounds data describe {data['name']} --{key} TEXT"


def _ethics(facts: Mapping[str, Any], asked: Mapping[str, str]) -> list[Block]:
    return [
        *_use(facts, asked, ("ethics",)),
        Text(
            "A model like this can be wrong more often for people who are rare among its training films, and it can be "
            "right for reasons that have nothing to do with illness, such as the mark of a scanner. What was measured "
            "above shows such harm only where the films say enough about the people on them. Answers that nobody "
            "checks "
            "should decide nothing."
        ),
    ]


def _cost(facts: Mapping[str, Any]) -> Iterator[Block]:
    run, booked = facts["run"], facts["cost"]
    rows = []
    if run:
        rows.append(["training", "1", seconds(run["seconds"]), seconds(run["cpu_seconds"])])
    rows += [
        [kind, count(row["times"]), seconds(row["seconds"]), seconds(row["cpu_seconds"])]
        for kind, row in booked.items()
    ]
    if rows:
        head = ["work", "times", "by the clock", "of computing"]
        yield Table("What the making took", head, rows, frozenset({1, 2, 3}))
    else:
        yield Text("What the making took is not recorded in this workspace.")
    yield Text("Energy: not measured. Money: not measured.")


def _history(facts: Mapping[str, Any]) -> Iterator[Block]:
    rules = facts["rules"]
    yield Text(
        "No model serves unless the gate let it pass or a person overruled the gate by name and with a reason; the log "
        "keeps either. By the rules in force, the chance that a model which is worse than the one in service by "
        f"{100 * rules['margin']:g} points of accuracy or more is ever promoted is at most {percent(rules['alpha'])}. "
        "A person can put the version before back in service at any time: rounds rollback."
    )
    gate = facts["gate"]
    if gate and gate["checks"]:
        rows = [
            [one["name"], _number(one["value"]), _number(one["limit"]), "yes" if one["passed"] else "no", one["note"]]
            for one in gate["checks"]
        ]
        head = ["check", "value", "limit", "passed", "note"]
        yield Table(f"{CHECKS}; asked last on {moment(gate['at'])[:10]}", head, rows, frozenset({1, 2}))
    if facts["history"]:
        rows = [[moment(e["at"]), e["kind"].replace("_", " "), e["who"], e["why"]] for e in facts["history"]]
        yield Table("What became of it", ["when (UTC)", "what", "who", "why"], rows)
    else:
        yield Text("The log of this workspace says nothing about it.")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
